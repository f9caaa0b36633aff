//! Watchers: each reads the bounded history at its own pace, and sleeps until there is more under its prefix.
//!
//! Nothing is queued per watcher: one that is too slow finds its place in the history gone and is told so. A write wakes
//! those whose prefix it is under, and nobody else.

use crate::{Event, Revision, Seen, StoreError};
use futures::stream::{self, BoxStream, StreamExt};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// How many events are taken from the history at once.
const CHUNK: usize = 256;
/// How often a watcher of a quiet prefix is told how far it is.
const PROGRESS: Duration = Duration::from_secs(60);

/// Where events come from.
pub(crate) trait Source: Send + Sync + 'static {
    /// Up to `limit` events after a revision, under whatever prefix; if there are none, sleep until there is one under
    /// `prefix`.
    fn next(&self, revision: Revision, limit: usize, prefix: &str) -> Result<Next, StoreError>;
    /// The newest revision.
    fn newest(&self) -> Revision;
}

/// What a watcher does next.
pub(crate) enum Next {
    /// Takes these, and goes on after this revision.
    Events(Vec<Arc<Event>>, Revision),
    /// Sleeps.
    Sleep(Sleep),
}

/// A watcher's sleep.
pub(crate) struct Sleep {
    woken: oneshot::Receiver<()>,
    /// Nothing under its prefix happened up to and including this revision.
    quiet: Arc<AtomicU64>,
}

/// Those who sleep.
#[derive(Default)]
pub(crate) struct Sleepers {
    sleepers: Vec<Sleeper>,
    /// At so many it is looked for those who went away in their sleep.
    sweep_at: usize,
}

struct Sleeper {
    prefix: String,
    wake: oneshot::Sender<()>,
    quiet: Arc<AtomicU64>,
}

impl Sleepers {
    /// Sleep from a revision on, which is the newest.
    pub(crate) fn sleep(&mut self, prefix: &str, newest: Revision) -> Sleep {
        if self.sleepers.len() >= self.sweep_at {
            self.sleepers.retain(|sleeper| !sleeper.wake.is_closed());
            self.sweep_at = 64.max(2 * self.sleepers.len());
        }
        let (wake, woken) = oneshot::channel();
        let quiet = Arc::new(AtomicU64::new(newest));
        self.sleepers.push(Sleeper { prefix: prefix.to_owned(), wake, quiet: quiet.clone() });
        Sleep { woken, quiet }
    }

    /// Wakes those whom these events concern; the others have missed nothing up to `revision`.
    pub(crate) fn wake(&mut self, events: &[Arc<Event>], revision: Revision) {
        let concerned = self.sleepers.extract_if(.., |sleeper| {
            let is_concerned =
                events.iter().any(|event| event.entry.key.starts_with(&sleeper.prefix));
            if !is_concerned {
                sleeper.quiet.store(revision, Ordering::Release);
            }
            is_concerned
        });
        for sleeper in concerned {
            // It may have gone away.
            let _gone = sleeper.wake.send(());
        }
    }
}

struct Watcher<S> {
    source: Arc<S>,
    prefix: String,
    /// Everything up to here is seen or in `ready`.
    position: Revision,
    ready: VecDeque<Seen>,
    sleep: Option<Sleep>,
    /// Whether the end of the replay has been told.
    caught_up: bool,
    ended: bool,
}

/// A stream of what happens under `prefix` after `after`.
pub(crate) fn watch<S: Source>(
    source: Arc<S>,
    prefix: String,
    after: Option<Revision>,
) -> BoxStream<'static, Result<Seen, StoreError>> {
    let position = after.unwrap_or_else(|| source.newest());
    let watcher = Watcher {
        source,
        prefix,
        position,
        ready: VecDeque::new(),
        sleep: None,
        caught_up: false,
        ended: false,
    };
    stream::unfold(watcher, |mut watcher| async move {
        let next = watcher.next().await?;
        Some((next, watcher))
    })
    .boxed()
}

impl<S: Source> Watcher<S> {
    async fn next(&mut self) -> Option<Result<Seen, StoreError>> {
        loop {
            if let Some(seen) = self.ready.pop_front() {
                return Some(Ok(seen));
            }
            if self.ended {
                return None;
            }
            if let Some(sleep) = &mut self.sleep {
                let woken = tokio::time::timeout(PROGRESS, &mut sleep.woken).await;
                self.position = sleep.quiet.load(Ordering::Acquire);
                match woken {
                    Err(_) => return Some(Ok(Seen::Progress(self.position))),
                    Ok(Err(_)) => return None,
                    Ok(Ok(())) => self.sleep = None,
                }
            }
            match self.source.next(self.position, CHUNK, &self.prefix) {
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                Ok(Next::Events(events, through)) => {
                    self.position = through;
                    self.ready.extend(
                        events
                            .into_iter()
                            .filter(|event| event.entry.key.starts_with(&self.prefix))
                            .map(Seen::Event),
                    );
                }
                Ok(Next::Sleep(sleep)) => {
                    self.sleep = Some(sleep);
                    if !std::mem::replace(&mut self.caught_up, true) {
                        return Some(Ok(Seen::Progress(self.position)));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_went_away_in_their_sleep_are_forgotten() {
        let mut sleepers = Sleepers::default();
        let stays = sleepers.sleep("/a/", 0);
        for _ in 0..1000 {
            drop(sleepers.sleep("/a/", 0));
        }
        assert!(sleepers.sleepers.len() <= 130, "{}", sleepers.sleepers.len());
        assert!(sleepers.sleepers.iter().any(|sleeper| !sleeper.wake.is_closed()));
        drop(stays);
    }
}
