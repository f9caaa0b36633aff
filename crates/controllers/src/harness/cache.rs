//! All objects of one kind, as one watch shows them.

use super::Key;
use futures::{StreamExt, TryStreamExt};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{broadcast, watch};

/// How many changes a controller may lag behind before it is told to look at everything again.
const NEWS: usize = 8192;
/// How long a controller waits to see its own write; then it goes on, and plans on what it sees.
const PATIENCE: Duration = Duration::from_secs(5);

/// What objects a cache can hold.
pub trait Cached:
    Resource<DynamicType = ()> + Clone + Debug + serde::de::DeserializeOwned + Send + Sync + 'static
{
}
impl<
    K: Resource<DynamicType = ()>
        + Clone
        + Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
> Cached for K
{
}

/// One change, as seen.
#[derive(Debug)]
pub struct Change<K> {
    /// Before.
    pub old: Option<Arc<K>>,
    /// After.
    pub new: Option<Arc<K>>,
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        Change { old: self.old.clone(), new: self.new.clone() }
    }
}

/// All objects of a kind, as one watch shows them. Cheap to clone.
#[derive(Debug)]
pub struct Cache<K> {
    inner: Arc<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    objects: RwLock<Objects<K>>,
    news: broadcast::Sender<Change<K>>,
    /// The newest resource version seen, once the first listing is complete.
    seen: watch::Sender<Option<u64>>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Cache { inner: self.inner.clone() }
    }
}

/// Under which words an object of a kind is found: the name of an index, and namespace and word in it.
pub type Indexer<K> = fn(&K) -> Vec<(&'static str, Key)>;

#[derive(Debug)]
struct Objects<K> {
    by_key: BTreeMap<Arc<Key>, Arc<K>>,
    index: HashMap<(&'static str, Key), BTreeSet<Arc<Key>>>,
    indexer: Indexer<K>,
}

/// The index of controllers' uids; the empty word stands for none.
const CONTROLLER: &str = "controller";

impl<K: ResourceExt> Objects<K> {
    fn words(&self, object: &K) -> Vec<(&'static str, Key)> {
        let controller = planner::workload::controller(object.meta());
        let uid = controller.map_or(String::new(), |owner| owner.uid.clone());
        let mut words = (self.indexer)(object);
        words.push((CONTROLLER, (object.namespace().unwrap_or_default(), uid)));
        words
    }

    fn insert(&mut self, object: Arc<K>) -> Option<Arc<K>> {
        let key = Arc::new(key_of(&*object));
        let words = self.words(&object);
        let old = self.by_key.insert(key.clone(), object);
        if let Some(old) = &old {
            self.forget(&key, self.words(old));
        }
        for word in words {
            self.index.entry(word).or_default().insert(key.clone());
        }
        old
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.by_key.remove(key);
        if let Some(old) = &old {
            self.forget(key, self.words(old));
        }
        old
    }

    fn forget(&mut self, key: &Key, words: Vec<(&'static str, Key)>) {
        for word in words {
            if let Some(keys) = self.index.get_mut(&word) {
                keys.remove(key);
                if keys.is_empty() {
                    self.index.remove(&word);
                }
            }
        }
    }
}

fn version(object: &impl ResourceExt) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn key_of(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

impl<K: Cached> Cache<K> {
    /// Starts the watch.
    pub fn start(client: Client) -> Cache<K> {
        Cache::indexed(client, |_| Vec::new())
    }

    /// Starts the watch of a kind whose objects are found by more than their names.
    pub fn indexed(client: Client, indexer: Indexer<K>) -> Cache<K> {
        let objects = Objects { by_key: BTreeMap::new(), index: HashMap::new(), indexer };
        let inner = Arc::new(Inner {
            objects: RwLock::new(objects),
            news: broadcast::channel(NEWS).0,
            seen: watch::channel(None).0,
        });
        let cache = Cache { inner };
        let filled = cache.clone();
        tokio::spawn(async move { filled.follow(Api::all(client)).await });
        cache
    }

    async fn follow(&self, api: Api<K>) {
        let mut events = watcher::watcher(api, watcher::Config::default()).boxed();
        let mut listed: Vec<K> = Vec::new();
        loop {
            match events.try_next().await {
                Ok(Some(Event::Init)) => listed.clear(),
                Ok(Some(Event::InitApply(object))) => listed.push(object),
                Ok(Some(Event::InitDone)) => self.replace(std::mem::take(&mut listed)),
                Ok(Some(Event::Apply(object))) => {
                    let newest = version(&object);
                    self.put(object);
                    self.saw(newest);
                }
                Ok(Some(Event::Delete(object))) => {
                    self.remove(&key_of(&object));
                    self.saw(version(&object));
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "a watch broke and is taken up again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn saw(&self, version: u64) {
        self.inner.seen.send_modify(|seen| *seen = Some(seen.unwrap_or(0).max(version)));
    }

    fn put(&self, object: K) {
        let object = Arc::new(object);
        let old = self
            .inner
            .objects
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(object.clone());
        self.tell(Change { old, new: Some(object) });
    }

    fn remove(&self, key: &Key) {
        let old = self.inner.objects.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        self.tell(Change { old, new: None });
    }

    fn replace(&self, listed: Vec<K>) {
        let keys: HashSet<Key> = listed.iter().map(key_of).collect();
        let gone: Vec<Key> = self
            .inner
            .objects
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .by_key
            .keys()
            .filter(|key| !keys.contains(&***key))
            .map(|key| (**key).clone())
            .collect();
        gone.iter().for_each(|key| self.remove(key));
        let newest = listed.iter().map(version).max().unwrap_or(0);
        listed.into_iter().for_each(|object| self.put(object));
        self.saw(newest);
    }

    fn tell(&self, change: Change<K>) {
        // Nobody may be listening.
        let _unheard = self.inner.news.send(change);
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.inner
            .objects
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .by_key
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// All of a namespace.
    pub fn of_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let start = (namespace.to_owned(), String::new());
        let objects = self.inner.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects
            .by_key
            .range::<Key, _>(start..)
            .take_while(|(key, _)| key.0 == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// All whose names start so, of a namespace: proportional to what is found.
    pub fn with_prefix(&self, namespace: &str, prefix: &str) -> Vec<Arc<K>> {
        let start = (namespace.to_owned(), prefix.to_owned());
        let objects = self.inner.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects
            .by_key
            .range::<Key, _>(start..)
            .take_while(|(key, _)| key.0 == namespace && key.1.starts_with(prefix))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// All that an index has under a word: proportional to what is found.
    pub fn found(&self, index: &'static str, namespace: &str, word: &str) -> Vec<Arc<K>> {
        let objects = self.inner.objects.read().unwrap_or_else(PoisonError::into_inner);
        let keys = objects.index.get(&(index, (namespace.to_owned(), word.to_owned())));
        keys.into_iter().flatten().filter_map(|key| objects.by_key.get(key).cloned()).collect()
    }

    /// How many an index has under a word.
    pub fn count(&self, index: &'static str, namespace: &str, word: &str) -> usize {
        let objects = self.inner.objects.read().unwrap_or_else(PoisonError::into_inner);
        let keys = objects.index.get(&(index, (namespace.to_owned(), word.to_owned())));
        keys.map_or(0, BTreeSet::len)
    }

    /// All of a namespace that an object controls.
    pub fn controlled_by(&self, namespace: &str, uid: &str) -> Vec<Arc<K>> {
        self.found(CONTROLLER, namespace, uid)
    }

    /// All of a namespace that nobody controls.
    pub fn orphans(&self, namespace: &str) -> Vec<Arc<K>> {
        self.found(CONTROLLER, namespace, "")
    }

    /// All.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.inner
            .objects
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .by_key
            .values()
            .cloned()
            .collect()
    }

    /// Changes from now on.
    pub fn changes(&self) -> broadcast::Receiver<Change<K>> {
        self.inner.news.subscribe()
    }

    /// Waits until the first listing is complete.
    pub async fn synced(&self) {
        let mut seen = self.inner.seen.subscribe();
        // The sender lives as long as the cache: this ends with the listing.
        while seen.borrow_and_update().is_none() {
            if seen.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until a write is seen, so that nothing is decided on a past that we changed ourselves.
    pub async fn wait_until_seen(&self, version: u64) {
        let mut seen = self.inner.seen.subscribe();
        let waited = tokio::time::timeout(PATIENCE, async {
            while seen.borrow_and_update().unwrap_or(0) < version {
                if seen.changed().await.is_err() {
                    return;
                }
            }
        });
        if waited.await.is_err() {
            tracing::debug!(revision = version, "an own write is not seen yet");
        }
    }

    /// Waits until an object that was just deleted is seen to be gone, or to be going.
    pub async fn wait_until_gone(&self, namespace: &str, name: &str, uid: &str) {
        let mut seen = self.inner.seen.subscribe();
        let is_there = || {
            self.get(namespace, name).is_some_and(|object| {
                object.uid().as_deref() == Some(uid) && object.meta().deletion_timestamp.is_none()
            })
        };
        let waited = tokio::time::timeout(PATIENCE, async {
            while is_there() {
                if seen.changed().await.is_err() {
                    return;
                }
            }
        });
        if waited.await.is_err() {
            tracing::debug!(namespace, name, "an own deletion is not seen yet");
        }
    }

    /// [`Cache::wait_until_seen`] for an object that was just written.
    pub async fn wait_for_write(&self, object: &K) {
        self.wait_until_seen(version(object)).await;
    }
}
