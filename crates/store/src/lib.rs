//! A versioned key-value store with watch. It holds keys and bytes and knows nothing of Kubernetes.
//!
//! Everything is in memory, ordered by key, as the exact bytes that readers will serve; a [log](embedded) makes it
//! durable. Revisions are global and gap-free. An answer to a write is given only after the write is durable.

pub mod conformance;
pub mod embedded;
mod watch_hub;

pub use embedded::{Embedded, OpenError, Options};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// A position in the one history of all writes. The first write makes revision 1 (or the next after what is stored).
pub type Revision = u64;

/// A key: slash-separated, e.g. `/apps/statefulsets/default/web`. Ordered bytewise.
pub type Key = Arc<str>;

/// A stored value at a revision. Cheap to clone.
#[derive(Clone)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// The exact bytes that were written.
    pub bytes: Bytes,
    /// The revision of the write that made it.
    pub revision: Revision,
    /// What its writer put beside the bytes, or the [`Indexer`] made of them.
    pub index: Index,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .field("revision", &self.revision)
            .field("len", &self.bytes.len())
            .finish()
    }
}

/// The small parsed index that is kept beside the bytes of each entry. The room above alone can read it (by downcasting).
pub type Index = Arc<dyn Any + Send + Sync>;

/// Makes the index of a value that was stored by an earlier process. Must not fail: what it cannot parse gets an empty
/// index.
pub type Indexer = Arc<dyn Fn(&str, &Bytes) -> Index + Send + Sync>;

/// What a write stores.
#[derive(Debug)]
pub struct Written {
    /// The value.
    pub bytes: Bytes,
    /// Its index.
    pub index: Index,
    /// What watchers are sent of this write. May share its memory with `bytes`.
    pub encoded: Bytes,
}

/// Makes a value's bytes once its revision is known, so that the revision can stand inside the bytes. Called at most
/// once, on the writer; must be quick.
pub type Encode = Box<dyn FnOnce(Revision) -> Written + Send>;

/// What a write does.
pub enum Change {
    /// Stores a value.
    Put(Encode),
    /// Removes the key. The bytes are what watchers see as the last state of the object, at the revision of the
    /// deletion.
    Delete(Encode),
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Change::Put(_) => "Put",
            Change::Delete(_) => "Delete",
        })
    }
}

/// What a write relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The key must not exist.
    Absent,
    /// The key must be at this revision.
    At(Revision),
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was made or changed.
    Put,
    /// It was removed.
    Delete,
}

/// One write, as watchers see it. Shared by all of them.
pub struct Event {
    /// Put or Delete.
    pub kind: EventKind,
    /// The entry after the write (of a deletion: the bytes that [`Change::Delete`] gave).
    pub entry: Entry,
    /// The entry before the write, if the key existed.
    pub previous: Option<Entry>,
    /// What watchers are sent who want to see everything, as its writer gave it.
    pub encoded: Bytes,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("kind", &self.kind).field("entry", &self.entry).finish()
    }
}

/// What a watcher is given, in order.
#[derive(Debug, Clone)]
pub enum Seen {
    /// A write under the prefix.
    Event(Arc<Event>),
    /// Nothing under the prefix happened up to and including this revision (sent now and then, and at once after a
    /// replay is over), so that a watcher can resume from here.
    Progress(Revision),
}

/// Which part of a listing is wanted.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// At most so many entries; 0 for all.
    pub limit: usize,
    /// Start after this key (exclusive).
    pub after: Option<Key>,
    /// List the state at this revision; `None` for the newest.
    pub at: Option<Revision>,
}

/// A listing at one revision.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Entries in key order.
    pub entries: Vec<Entry>,
    /// The revision at which the listing is true.
    pub revision: Revision,
    /// How many entries under the prefix follow the last one given.
    pub remaining: usize,
}

/// Why the store refused.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The [`Expect`] did not hold; the entry as it is now, if there is one.
    #[error("the key is not at the expected revision")]
    Conflict(Option<Entry>),
    /// The revision is older than the kept history, which starts at `oldest`.
    #[error("revision {asked} is no longer in the history, which starts at {oldest}")]
    Compacted {
        /// What was asked for.
        asked: Revision,
        /// The oldest revision still known.
        oldest: Revision,
    },
    /// The revision lies in the future; `newest` is the current one.
    #[error("revision {asked} is in the future, the newest is {newest}")]
    Future {
        /// What was asked for.
        asked: Revision,
        /// The current revision.
        newest: Revision,
    },
    /// The write could not be made durable (disk full, I/O error). Nothing was changed; reads go on.
    #[error("the write could not be made durable: {0}")]
    NotDurable(String),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// A versioned key-value store with watch.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// The entry at `key`, newest state. Never waits for the disk.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;
    /// The entries whose keys start with `prefix`, at one revision. Never waits for the disk.
    async fn list(&self, prefix: &str, page: Page) -> Result<Listing, StoreError>;
    /// Makes one durable write, if `expect` holds, and returns the entry as written.
    async fn write(&self, key: &str, change: Change, expect: Expect) -> Result<Entry, StoreError>;
    /// Everything that happens under `prefix` after revision `after`: each write once, in order. `None`: from now on.
    /// A watcher that is too slow for the bounded history gets [`StoreError::Compacted`] and the end of the stream.
    fn watch(
        &self,
        prefix: &str,
        after: Option<Revision>,
    ) -> BoxStream<'static, Result<Seen, StoreError>>;
    /// Forgets history up to and including `through`: older watches and listings get [`StoreError::Compacted`].
    async fn compact(&self, through: Revision) -> Result<(), StoreError>;
    /// The newest revision.
    fn revision(&self) -> Revision;
}
