//! The store: conformance, a model, and sudden death.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod crash;
mod model;

use futures::StreamExt;
use std::sync::Arc;
use store::conformance::put;
use store::{Embedded, Expect, Indexer, Options, Seen, Store, StoreError};

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
async fn a_watcher_of_something_quiet_misses_nothing_however_much_happens_elsewhere() {
    let store = Embedded::in_memory(Options { history_events: 5, snapshots: 5 });
    let mut seen = store.watch("/quiet/", None);
    assert!(matches!(seen.next().await, Some(Ok(Seen::Progress(0)))));
    for number in 0..100 {
        store.write(&format!("/loud/{number}"), put("x"), Expect::Absent).await.unwrap();
    }
    store.write("/quiet/a", put("x"), Expect::Absent).await.unwrap();
    let next = seen.next().await.unwrap().unwrap();
    assert!(matches!(next, Seen::Event(event) if event.entry.revision == 101));
    // And one that sleeps again goes on from there.
    store.write("/quiet/b", put("x"), Expect::Absent).await.unwrap();
    let next = seen.next().await.unwrap().unwrap();
    assert!(matches!(next, Seen::Event(event) if event.entry.revision == 102));
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
    let store = Embedded::in_memory(Options { history_events: 5, snapshots: 5 });
    let mut watch = store.watch("/", Some(0));
    for number in 0..10 {
        store.write(&format!("/{number}"), put("x"), Expect::Absent).await.unwrap();
    }
    assert!(matches!(watch.next().await, Some(Err(StoreError::Compacted { asked: 0, oldest: 5 }))));
    assert!(watch.next().await.is_none());
}
