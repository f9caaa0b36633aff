//! What happened lately: bounded.

use super::Options;
use crate::watch_hub::{Next, Sleepers};
use crate::{Entry, Event, Key, Listing, Page, Revision, StoreError};
use imbl::OrdMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// A whole state at a revision. Cheap to clone: states share what they have in common.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    pub(super) revision: Revision,
    pub(super) entries: OrdMap<Key, Entry>,
}

impl Snapshot {
    pub(super) fn list(&self, prefix: &str, page: &Page) -> Listing {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let start = match &page.after {
            Some(key) if key.as_ref() >= prefix => Excluded(key.clone()),
            _ => Included(Key::from(prefix)),
        };
        let mut found = self
            .entries
            .range((start, Unbounded))
            .map(|(_, entry)| entry)
            .take_while(|entry| entry.key.starts_with(prefix));
        let limit = if page.limit == 0 { usize::MAX } else { page.limit };
        let entries: Vec<Entry> = found.by_ref().take(limit).cloned().collect();
        Listing { entries, revision: self.revision, remaining: found.count() }
    }
}

/// The last events and states.
pub(super) struct History {
    options: Options,
    /// Gap-free; the first one's revision is `oldest + 1`.
    events: VecDeque<Arc<Event>>,
    /// Nothing at or before this revision can be replayed.
    oldest: Revision,
    newest: Revision,
    states: VecDeque<Snapshot>,
    sleepers: Sleepers,
}

impl History {
    pub(super) fn new(state: Snapshot, options: Options) -> History {
        History {
            options,
            events: VecDeque::new(),
            oldest: state.revision,
            newest: state.revision,
            states: VecDeque::from([state]),
            sleepers: Sleepers::default(),
        }
    }

    pub(super) fn extend(&mut self, events: &[Arc<Event>], state: Snapshot) {
        self.events.extend(events.iter().cloned());
        self.newest = state.revision;
        self.states.push_back(state);
        while self.events.len() > self.options.history_events {
            if let Some(event) = self.events.pop_front() {
                self.oldest = event.entry.revision;
            }
        }
        while self.states.len() > self.options.snapshots.max(1) {
            self.states.pop_front();
        }
    }

    pub(super) fn newest(&self) -> Revision {
        self.newest
    }

    /// Wakes those who wait for these events, which are the newest.
    pub(super) fn wake(&mut self, events: &[Arc<Event>]) {
        self.sleepers.wake(events, self.newest);
    }

    /// Up to `limit` events after a revision; if there are none, sleep until there is one under `prefix`.
    pub(super) fn next(
        &mut self,
        revision: Revision,
        limit: usize,
        prefix: &str,
    ) -> Result<Next, StoreError> {
        if revision > self.newest {
            return Err(StoreError::Future { asked: revision, newest: self.newest });
        }
        if revision < self.oldest {
            return Err(StoreError::Compacted { asked: revision, oldest: self.oldest });
        }
        let skip = usize::try_from(revision - self.oldest).unwrap_or(usize::MAX);
        let events: Vec<Arc<Event>> =
            self.events.range(skip.min(self.events.len())..).take(limit).cloned().collect();
        Ok(match events.last().map(|event| event.entry.revision) {
            Some(through) => Next::Events(events, through),
            None => Next::Sleep(self.sleepers.sleep(prefix, self.newest)),
        })
    }

    /// The state at a revision: the newest state not younger than it.
    pub(super) fn at(&self, revision: Revision) -> Result<Snapshot, StoreError> {
        if revision > self.newest {
            return Err(StoreError::Future { asked: revision, newest: self.newest });
        }
        // States are kept per commit: the one wanted is exactly there or was never shown to anybody.
        self.states.iter().rev().find(|state| state.revision == revision).cloned().ok_or(
            StoreError::Compacted {
                asked: revision,
                oldest: self.states.front().map_or(self.newest, |state| state.revision),
            },
        )
    }

    pub(super) fn compact(&mut self, through: Revision) -> Result<(), StoreError> {
        if through > self.newest {
            return Err(StoreError::Future { asked: through, newest: self.newest });
        }
        while self.events.front().is_some_and(|event| event.entry.revision <= through) {
            self.events.pop_front();
        }
        self.oldest = self.oldest.max(through);
        self.states.retain(|state| state.revision >= through || state.revision == self.newest);
        Ok(())
    }
}
