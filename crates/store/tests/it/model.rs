//! Any history of writes against a plain map.

use crate::no_index;
use futures::StreamExt;
use proptest::prelude::*;
use std::collections::BTreeMap;
use store::conformance::{delete, put};
use store::{Embedded, EventKind, Expect, Options, Page, Seen, Store};

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn the_store_is_a_map_whose_history_can_be_replayed(steps in prop::collection::vec((0u8..6, any::<bool>(), 0u8..100), 1..80), reopen_at in 0usize..80) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let mut store = Embedded::open(folder.path(), no_index(), Options::default()).unwrap();
            let mut model: BTreeMap<String, String> = BTreeMap::new();
            let mut replayed_from = 0;
            let mut at_start = model.clone();
            for (number, (name, remove, value)) in steps.iter().enumerate() {
                if number == reopen_at {
                    drop(store);
                    store = reopen(folder.path()).await;
                    replayed_from = store.revision();
                    at_start = model.clone();
                }
                let key = format!("/{name}");
                let expect = store.get(&key).await.unwrap().map_or(Expect::Absent, |entry| Expect::At(entry.revision));
                if *remove && expect != Expect::Absent {
                    store.write(&key, delete(), expect).await.unwrap();
                    model.remove(&key);
                } else if !remove {
                    store.write(&key, put(&value.to_string()), expect).await.unwrap();
                    model.insert(key, value.to_string());
                }
            }
            let listed: BTreeMap<String, String> = store.list("/", Page::default()).await.unwrap().entries.into_iter()
                .map(|entry| (entry.key.to_string(), String::from_utf8(entry.bytes.to_vec()).unwrap())).collect();
            assert_eq!(listed, model);
            let mut replayed = at_start;
            let mut watch = store.watch("/", Some(replayed_from));
            while let Some(Ok(Seen::Event(event))) = watch.next().await {
                match event.kind {
                    EventKind::Put => { replayed.insert(event.entry.key.to_string(), String::from_utf8(event.entry.bytes.to_vec()).unwrap()); }
                    EventKind::Delete => { replayed.remove(event.entry.key.as_ref()); }
                }
            }
            assert_eq!(replayed, model);
        });
    }
}

/// The writing thread lets go of the folder a moment after the store is dropped.
async fn reopen(folder: &std::path::Path) -> Embedded {
    loop {
        match Embedded::open(folder, no_index(), Options::default()) {
            Ok(store) => return store,
            Err(store::OpenError::InUse(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}
