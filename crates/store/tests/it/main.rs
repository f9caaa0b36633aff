//! The store: conformance, a model, and sudden death.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod crash;
mod model;

use std::sync::Arc;
use store::{Embedded, Indexer, Options};

fn no_index() -> Indexer {
    Arc::new(|_, _| Arc::new(()))
}

#[tokio::test]
async fn the_store_in_memory_conforms() {
    store::conformance::all(&Embedded::in_memory(Options::default())).await;
}

#[tokio::test]
async fn the_durable_store_conforms() {
    let folder = tempfile::tempdir().unwrap();
    store::conformance::all(
        &Embedded::open(folder.path(), no_index(), Options::default()).unwrap(),
    )
    .await;
}

#[tokio::test]
async fn a_store_is_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Embedded::open(folder.path(), no_index(), Options::default()).unwrap();
    let second =
        Embedded::open(folder.path(), no_index(), Options::default()).unwrap_err().to_string();
    assert!(
        second.contains(&format!("is in use by another server (process {})", std::process::id())),
        "{second}"
    );
}

#[tokio::test]
async fn a_slow_watcher_is_told_that_it_missed_something() {
    use futures::StreamExt;
    use store::{Expect, Store, StoreError, conformance::put};
    let store = Embedded::in_memory(Options { history_events: 5, snapshots: 5 });
    let mut watch = store.watch("/", Some(0));
    for number in 0..10 {
        store.write(&format!("/{number}"), put("x"), Expect::Absent).await.unwrap();
    }
    assert!(matches!(watch.next().await, Some(Err(StoreError::Compacted { asked: 0, oldest: 5 }))));
    assert!(watch.next().await.is_none());
}
