//! Where keys wait, and how they are reconciled.

use super::{Cache, Cached, Change, Key};
use futures::FutureExt;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;

/// The delays of a key whose reconcile fails. As upstream's work queue.
const FIRST_DELAY: Duration = Duration::from_millis(5);
const LONGEST_DELAY: Duration = Duration::from_secs(300);
/// Reconciles of one controller that run at once.
const AT_ONCE: usize = 64;

/// Where keys wait to be reconciled.
#[derive(Debug, Clone)]
pub struct Queue(mpsc::UnboundedSender<Key>);

impl Queue {
    /// Asks for a reconcile. A key that waits already is not added twice.
    pub fn add(&self, key: Key) {
        // A controller that has ended reconciles nothing more.
        let _ended = self.0.send(key);
    }

    /// Turns a cache's changes into keys, now and from now on.
    pub fn feed<K: Cached>(
        &self,
        cache: &Cache<K>,
        keys: impl Fn(&Change<K>) -> Vec<Key> + Send + Sync + 'static,
    ) {
        let (queue, cache, mut changes) = (self.clone(), cache.clone(), cache.changes());
        tokio::spawn(async move {
            cache.synced().await;
            let everything = |queue: &Queue| {
                for object in cache.all() {
                    keys(&Change { old: None, new: Some(object) })
                        .into_iter()
                        .for_each(|key| queue.add(key));
                }
            };
            everything(&queue);
            loop {
                match changes.recv().await {
                    Ok(change) => keys(&change).into_iter().for_each(|key| queue.add(key)),
                    Err(broadcast::error::RecvError::Lagged(_)) => everything(&queue),
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        });
    }
}

/// A queue, to be handed to [`drive`].
pub fn queue() -> (Queue, mpsc::UnboundedReceiver<Key>) {
    // Unbounded, but each key is taken out at once and kept once: it holds no more than there are objects.
    let (sender, receiver) = mpsc::unbounded_channel();
    (Queue(sender), receiver)
}

#[derive(Default)]
struct KeyState {
    running: bool,
    again: bool,
    failures: u32,
}

/// Reconciles keys for ever: never one key twice at once, different keys side by side. A reconcile may ask to be
/// repeated after a time; one that fails is repeated with growing delays; one that panics counts as failed.
pub async fn drive<F, R>(
    controller: &'static str,
    queue: Queue,
    mut keys: mpsc::UnboundedReceiver<Key>,
    reconcile: F,
) where
    F: Fn(Key) -> R,
    R: Future<Output = Result<Option<Duration>, String>> + Send + 'static,
{
    let mut states: HashMap<Key, KeyState> = HashMap::new();
    let mut tasks: JoinSet<(Key, Result<Option<Duration>, String>)> = JoinSet::new();
    let mut waiting: VecDeque<Key> = VecDeque::new();
    loop {
        while tasks.len() < AT_ONCE {
            let Some(key) = waiting.pop_front() else { break };
            if let Some(state) = states.get_mut(&key) {
                state.running = true;
                state.again = false;
            }
            let work = std::panic::AssertUnwindSafe(reconcile(key.clone())).catch_unwind();
            tasks.spawn(async move {
                (key, work.await.unwrap_or_else(|_| Err("the reconcile panicked".to_owned())))
            });
        }
        tokio::select! {
            key = keys.recv() => {
                let Some(key) = key else { return };
                let state = states.entry(key.clone()).or_default();
                if state.running {
                    state.again = true;
                } else if !state.again {
                    state.again = true;
                    waiting.push_back(key);
                }
            }
            Some(Ok((key, result))) = tasks.join_next(), if !tasks.is_empty() => {
                let Some(state) = states.get_mut(&key) else { continue };
                state.running = false;
                let delay = match result {
                    Ok(delay) => {
                        state.failures = 0;
                        delay
                    }
                    Err(error) => {
                        tracing::debug!(controller, namespace = key.0, name = key.1, error, "a reconcile failed and is repeated");
                        let delay = FIRST_DELAY.saturating_mul(1 << state.failures.min(20)).min(LONGEST_DELAY);
                        state.failures += 1;
                        Some(delay)
                    }
                };
                if let Some(delay) = delay {
                    let (queue, key) = (queue.clone(), key.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(delay).await;
                        queue.add(key);
                    });
                }
                if std::mem::take(&mut state.again) {
                    state.again = true;
                    waiting.push_back(key);
                } else if state.failures == 0 {
                    states.remove(&key);
                }
            }
        }
    }
}
