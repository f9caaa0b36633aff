//! [`Embedded`]: everything in memory, made durable by a [`Log`].
//!
//! There is one writer. Without a log (tests) it is whoever calls; with one it is a thread of its own, and writers that
//! wait at the same moment share one durable commit.

mod history;
mod log;

pub use log::{Log, OpenError, Record, SqliteLog, back_up, check};

use crate::watch_hub::Next;
use crate::{
    Change, Entry, Event, EventKind, Expect, Indexer, Listing, Page, Revision, Seen, Store,
    StoreError, Written,
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use history::{History, Snapshot};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use tokio::sync::{mpsc, oneshot};

/// How many writes may wait for the disk; more wait for room.
const QUEUE: usize = 4096;
/// How many writes share one commit at most: bounds how long the first of them waits.
const BATCH: usize = 512;
/// How often (in writes) what is superseded is dropped from the log.
const DROP_EVERY: u64 = 5_000;

/// How much is remembered.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Events that a watcher can catch up on.
    pub history_events: usize,
    /// Past states that listings can be continued at.
    pub snapshots: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { history_events: 10_000, snapshots: 1_000 }
    }
}

/// A store in memory, durable if opened on a folder.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    queue: Option<mpsc::Sender<Request>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

/// The folder is free again when this returns, and not only when the writing thread gets round to it.
impl Drop for Embedded {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // One that panicked has said so, and holds nothing any more.
            let _panicked = writer.join();
        }
    }
}

struct Shared {
    state: RwLock<Snapshot>,
    writer: Mutex<History>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("revision", &self.snapshot().revision)
            .finish_non_exhaustive()
    }
}

struct Request {
    key: String,
    change: Change,
    expect: Expect,
    answer: oneshot::Sender<Result<Entry, StoreError>>,
}

/// A write that holds and has its revision, not yet seen by anybody.
struct Accepted {
    event: Arc<Event>,
    answer: Option<oneshot::Sender<Result<Entry, StoreError>>>,
}

impl Embedded {
    /// A store that forgets everything with the process.
    pub fn in_memory(options: Options) -> Embedded {
        let shared = Shared::new(Snapshot::default(), options);
        Embedded { shared, queue: None, writer: None }
    }

    /// A durable store in `folder`, made if absent. Refused while another process has it open.
    pub fn open(folder: &Path, indexer: Indexer, options: Options) -> Result<Embedded, OpenError> {
        let mut log = SqliteLog::open(folder)?;
        let (records, revision) = log.replay()?;
        let mut state = Snapshot { revision, ..Snapshot::default() };
        for record in records {
            let entry = Entry {
                index: indexer(&record.key, &record.bytes),
                key: record.key.into(),
                bytes: record.bytes,
                revision: record.revision,
            };
            state.entries.insert(entry.key.clone(), entry);
        }
        let shared = Shared::new(state, options);
        let (queue, requests) = mpsc::channel(QUEUE);
        let owned = shared.clone();
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || owned.write_until_closed(requests, log))
            .map_err(|error| OpenError::Io(format!("start the writing thread: {error}")))?;
        Ok(Embedded { shared, queue: Some(queue), writer: Some(writer) })
    }
}

impl Shared {
    fn new(state: Snapshot, options: Options) -> Arc<Shared> {
        let history = History::new(state.clone(), options);
        Arc::new(Shared { state: RwLock::new(state), writer: Mutex::new(history) })
    }

    fn snapshot(&self) -> Snapshot {
        self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Applies one write to `state`, which nobody else sees yet.
    fn accept(
        &self,
        state: &mut Snapshot,
        key: &str,
        change: Change,
        expect: Expect,
    ) -> Result<Arc<Event>, StoreError> {
        let previous = state.entries.get(key).cloned();
        let holds = match (expect, &previous) {
            (Expect::Absent, None) => true,
            (Expect::At(revision), Some(entry)) => entry.revision == revision,
            _ => false,
        };
        if !holds {
            return Err(StoreError::Conflict(previous));
        }
        let revision = state.revision + 1;
        let (kind, encode) = match change {
            Change::Put(encode) => (EventKind::Put, encode),
            Change::Delete(encode) => (EventKind::Delete, encode),
        };
        let Written { bytes, index, encoded } = encode(revision);
        let entry = Entry { key: key.into(), index, bytes, revision };
        match kind {
            EventKind::Put => drop(state.entries.insert(entry.key.clone(), entry.clone())),
            EventKind::Delete => drop(state.entries.remove(key)),
        }
        state.revision = revision;
        Ok(Arc::new(Event { kind, entry, previous, encoded }))
    }

    /// Lets everybody see a new state and what led to it.
    fn publish(&self, history: &mut History, state: Snapshot, events: &[Arc<Event>]) {
        history.extend(events, state.clone());
        *self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner) = state;
        history.wake(events);
    }

    fn write_inline(&self, key: &str, change: Change, expect: Expect) -> Result<Entry, StoreError> {
        let mut history = self.history();
        let mut state = self.snapshot();
        let event = self.accept(&mut state, key, change, expect)?;
        self.publish(&mut history, state, std::slice::from_ref(&event));
        Ok(event.entry.clone())
    }

    /// The writing thread.
    fn write_until_closed(&self, mut requests: mpsc::Receiver<Request>, mut log: SqliteLog) {
        let mut since_dropping = 0;
        while let Some(first) = requests.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH {
                match requests.try_recv() {
                    Ok(request) => batch.push(request),
                    Err(_) => break,
                }
            }
            since_dropping += batch.len() as u64;
            self.write_batch(batch, &mut log);
            if since_dropping >= DROP_EVERY && requests.is_empty() {
                since_dropping = 0;
                if let Err(error) = log.drop_superseded() {
                    tracing::warn!(%error, "the log could not be tidied; it grows until it can");
                }
            }
        }
    }

    fn write_batch(&self, batch: Vec<Request>, log: &mut SqliteLog) {
        let mut state = self.snapshot();
        let mut accepted = Vec::with_capacity(batch.len());
        let mut refused = Vec::new();
        for Request { key, change, expect, answer } in batch {
            match self.accept(&mut state, &key, change, expect) {
                Ok(event) => accepted.push(Accepted { event, answer: Some(answer) }),
                Err(error) => refused.push((answer, error)),
            }
        }
        let durable = if accepted.is_empty() {
            Ok(())
        } else {
            log.append(accepted.iter().map(|write| write.event.as_ref()))
        };
        // A refusal may rest on a write of this very batch: it is true only now that that one is durable.
        for (answer, error) in refused {
            let error = durable.clone().map_or_else(StoreError::NotDurable, |()| error);
            // Whoever asked may have gone away.
            let _gone = answer.send(Err(error));
        }
        if accepted.is_empty() {
            return;
        }
        if durable.is_ok() {
            let events: Vec<Arc<Event>> =
                accepted.iter().map(|write| write.event.clone()).collect();
            let mut history = self.history();
            self.publish(&mut history, state, &events);
        }
        for write in &mut accepted {
            let result = durable
                .as_ref()
                .map(|()| write.event.entry.clone())
                .map_err(|error| StoreError::NotDurable(error.clone()));
            if let Some(answer) = write.answer.take() {
                // Whoever asked may have gone away; the write stands all the same.
                let _gone = answer.send(result);
            }
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self
            .shared
            .state
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .entries
            .get(key)
            .cloned())
    }

    async fn list(&self, prefix: &str, page: Page) -> Result<Listing, StoreError> {
        let state = match page.at {
            None => self.shared.snapshot(),
            Some(revision) => self.shared.history().at(revision)?,
        };
        Ok(state.list(prefix, &page))
    }

    async fn write(&self, key: &str, change: Change, expect: Expect) -> Result<Entry, StoreError> {
        let Some(queue) = &self.queue else { return self.shared.write_inline(key, change, expect) };
        let (answer, answered) = oneshot::channel();
        queue
            .send(Request { key: key.to_owned(), change, expect, answer })
            .await
            .map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    fn watch(
        &self,
        prefix: &str,
        after: Option<Revision>,
    ) -> BoxStream<'static, Result<Seen, StoreError>> {
        crate::watch_hub::watch(self.shared.clone(), prefix.to_owned(), after)
    }

    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        self.shared.history().compact(through)
    }

    fn revision(&self) -> Revision {
        self.shared.state.read().unwrap_or_else(std::sync::PoisonError::into_inner).revision
    }
}

impl crate::watch_hub::Source for Shared {
    fn next(&self, revision: Revision, limit: usize, prefix: &str) -> Result<Next, StoreError> {
        self.history().next(revision, limit, prefix)
    }

    fn newest(&self) -> Revision {
        self.history().newest()
    }
}
