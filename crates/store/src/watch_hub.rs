//! Watchers: each reads the bounded history at its own pace, woken when there is more.
//!
//! Nothing is queued per watcher: one that is too slow finds its place in the history gone and is told so.

use crate::{Event, Revision, Seen, StoreError};
use futures::stream::{self, BoxStream, StreamExt};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// How many events are taken from the history at once.
const CHUNK: usize = 256;
/// How often a watcher of a quiet prefix is told how far it is.
const PROGRESS: Duration = Duration::from_secs(60);

/// Where events come from.
pub(crate) trait Source: Send + Sync + 'static {
    /// Up to `limit` events after a revision, and the revision up to which they tell everything.
    fn events_after(
        &self,
        revision: Revision,
        limit: usize,
    ) -> Result<(Vec<Arc<Event>>, Revision), StoreError>;
    /// The newest revision.
    fn newest(&self) -> Revision;
}

struct Watcher<S> {
    source: Arc<S>,
    news: broadcast::Receiver<Revision>,
    prefix: String,
    /// Everything up to here is seen or in `ready`.
    position: Revision,
    ready: VecDeque<Seen>,
    /// Whether the end of the replay has been told.
    caught_up: bool,
    ended: bool,
}

/// A stream of what happens under `prefix` after `after`.
pub(crate) fn watch<S: Source>(
    source: Arc<S>,
    news: broadcast::Receiver<Revision>,
    prefix: String,
    after: Option<Revision>,
) -> BoxStream<'static, Result<Seen, StoreError>> {
    let position = after.unwrap_or_else(|| source.newest());
    let watcher = Watcher {
        source,
        news,
        prefix,
        position,
        ready: VecDeque::new(),
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
            match self.source.events_after(self.position, CHUNK) {
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                Ok((events, through)) if !events.is_empty() => {
                    self.position = through;
                    self.ready.extend(
                        events
                            .into_iter()
                            .filter(|event| event.entry.key.starts_with(&self.prefix))
                            .map(Seen::Event),
                    );
                }
                Ok(_) if !self.caught_up => {
                    self.caught_up = true;
                    return Some(Ok(Seen::Progress(self.position)));
                }
                Ok(_) => match tokio::time::timeout(PROGRESS, self.news.recv()).await {
                    // Missed news are no loss: the history has them.
                    Ok(Ok(_) | Err(broadcast::error::RecvError::Lagged(_))) => {}
                    Ok(Err(broadcast::error::RecvError::Closed)) => return None,
                    Err(_) => return Some(Ok(Seen::Progress(self.position))),
                },
            }
        }
    }
}
