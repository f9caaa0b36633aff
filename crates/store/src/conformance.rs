//! What every [`Store`] must pass, whatever it is made of. Each check takes an empty store.

use crate::{Change, EventKind, Expect, Page, Revision, Seen, Store, StoreError, Written};
use bytes::Bytes;
use futures::StreamExt;
use std::sync::Arc;

/// A change that stores `text`.
pub fn put(text: &str) -> Change {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    Change::Put(Box::new(move |_| written(bytes)))
}

/// A change that removes a key.
pub fn delete() -> Change {
    Change::Delete(Box::new(|revision| written(format!("deleted at {revision}").into())))
}

fn written(bytes: Bytes) -> Written {
    Written { encoded: bytes.clone(), bytes, index: Arc::new(()) }
}

/// Runs every check.
///
/// # Panics
/// When the store does not conform.
pub async fn all(store: &dyn Store) {
    writes_are_conditional(store).await;
    revisions_have_no_gaps(store).await;
    listings_are_pages_of_one_revision(store).await;
    watches_replay_and_follow(store).await;
    compaction_forgets_the_past(store).await;
}

async fn writes_are_conditional(store: &dyn Store) {
    let first =
        store.write("/a", put("1"), Expect::Absent).await.expect("an absent key can be made");
    let refused = store.write("/a", put("2"), Expect::Absent).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict(Some(entry))) if entry.revision == first.revision)
    );
    let second = store
        .write("/a", put("2"), Expect::At(first.revision))
        .await
        .expect("a known revision can be replaced");
    assert!(matches!(
        store.write("/a", put("3"), Expect::At(first.revision)).await,
        Err(StoreError::Conflict(Some(_)))
    ));
    store
        .write("/a", delete(), Expect::At(second.revision))
        .await
        .expect("a known revision can be removed");
    assert!(matches!(
        store.write("/a", delete(), Expect::At(second.revision)).await,
        Err(StoreError::Conflict(None))
    ));
    assert!(store.get("/a").await.expect("reads go on").is_none());
}

async fn revisions_have_no_gaps(store: &dyn Store) {
    let before = store.revision();
    for step in 1..=3 {
        let entry = store
            .write(&format!("/gap/{step}"), put("x"), Expect::Absent)
            .await
            .expect("a new key can be made");
        assert_eq!(entry.revision, before + step);
    }
    assert_eq!(store.revision(), before + 3);
}

async fn listings_are_pages_of_one_revision(store: &dyn Store) {
    for name in ["a", "b", "c"] {
        store
            .write(&format!("/list/{name}"), put(name), Expect::Absent)
            .await
            .expect("a new key can be made");
    }
    let first = store.list("/list/", Page { limit: 2, ..Page::default() }).await.expect("a page");
    assert_eq!((first.entries.len(), first.remaining), (2, 1));
    store.write("/list/aa", put("late"), Expect::Absent).await.expect("a new key can be made");
    let rest =
        Page { limit: 2, after: Some(first.entries[1].key.clone()), at: Some(first.revision) };
    let second = store.list("/list/", rest).await.expect("the next page");
    assert_eq!(
        second.entries.iter().map(|entry| entry.key.as_ref()).collect::<Vec<_>>(),
        ["/list/c"]
    );
    assert_eq!(second.revision, first.revision);
}

async fn watches_replay_and_follow(store: &dyn Store) {
    let start = store.revision();
    let entry =
        store.write("/watch/a", put("1"), Expect::Absent).await.expect("a new key can be made");
    let mut seen = store.watch("/watch/", Some(start));
    store.write("/elsewhere", put("x"), Expect::Absent).await.expect("a new key can be made");
    store
        .write("/watch/a", delete(), Expect::At(entry.revision))
        .await
        .expect("a known revision can be removed");
    let mut kinds: Vec<(EventKind, Revision)> = Vec::new();
    while kinds.len() < 2 {
        if let Some(Ok(Seen::Event(event))) = seen.next().await {
            assert_eq!(event.previous.is_some(), event.kind == EventKind::Delete);
            kinds.push((event.kind, event.entry.revision));
        }
    }
    assert_eq!(kinds, [(EventKind::Put, start + 1), (EventKind::Delete, start + 3)]);
}

async fn compaction_forgets_the_past(store: &dyn Store) {
    let start = store.revision();
    store.write("/compact", put("x"), Expect::Absent).await.expect("a new key can be made");
    store.compact(store.revision()).await.expect("the past can be forgotten");
    let first = store.watch("/compact", Some(start)).next().await;
    assert!(matches!(first, Some(Err(StoreError::Compacted { .. }))), "{first:?}");
    assert!(matches!(
        store.list("/", Page { at: Some(start), ..Page::default() }).await,
        Err(StoreError::Compacted { .. })
    ));
    assert!(store.get("/compact").await.expect("reads go on").is_some());
}
