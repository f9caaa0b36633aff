//! One way to observe and one way to run a controller.

use futures::{FutureExt, StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service,
    ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;

/// Namespace (empty for the cluster's own) and name.
pub type Key = (String, String);

/// How many changes a controller may lag behind before it is told to look at everything again.
const NEWS: usize = 8192;
/// How long a controller waits to see its own write; then it goes on, and plans on what it sees.
const PATIENCE: Duration = Duration::from_secs(5);
/// The delays of a key whose reconcile fails. As upstream's work queue.
const FIRST_DELAY: Duration = Duration::from_millis(5);
const LONGEST_DELAY: Duration = Duration::from_secs(300);
/// Reconciles of one controller that run at once.
const AT_ONCE: usize = 64;

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

/// Everything that controllers look at.
#[derive(Debug, Clone)]
pub struct Caches {
    /// Pods.
    pub pods: Cache<Pod>,
    /// StatefulSets.
    pub sets: Cache<StatefulSet>,
    /// Revisions.
    pub revisions: Cache<ControllerRevision>,
    /// Deployments.
    pub deployments: Cache<Deployment>,
    /// ReplicaSets.
    pub replica_sets: Cache<ReplicaSet>,
    /// PodDisruptionBudgets.
    pub budgets: Cache<PodDisruptionBudget>,
    /// Claims.
    pub claims: Cache<PersistentVolumeClaim>,
    /// Volumes.
    pub volumes: Cache<PersistentVolume>,
    /// Classes.
    pub classes: Cache<StorageClass>,
    /// Nodes.
    pub nodes: Cache<Node>,
    /// Services.
    pub services: Cache<Service>,
    /// Slices.
    pub slices: Cache<EndpointSlice>,
    /// Endpoints.
    pub endpoints: Cache<Endpoints>,
    /// Namespaces.
    pub namespaces: Cache<Namespace>,
    /// ServiceAccounts.
    pub accounts: Cache<ServiceAccount>,
    /// Jobs.
    pub jobs: Cache<Job>,
    /// CronJobs.
    pub cron_jobs: Cache<CronJob>,
    /// DaemonSets.
    pub daemon_sets: Cache<DaemonSet>,
}

/// The index of label pairs, `key=value`.
pub const LABEL: &str = "label";
/// The index of claims that pods use, or that volumes are promised to.
pub const CLAIM: &str = "claim";
/// The index of pods without a node, and of volumes and claims without each other.
pub const FREE: &str = "free";

fn label_words<'a>(
    namespace: &'a str,
    labels: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> impl Iterator<Item = (&'static str, Key)> {
    labels
        .into_iter()
        .map(move |(key, value)| (LABEL, (namespace.to_owned(), format!("{key}={value}"))))
}

/// The claims that a pod uses.
pub fn claims_of(pod: &Pod) -> impl Iterator<Item = &str> {
    pod.spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
        .filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

/// The pods of a namespace that may have all of these labels: the rarest label leads to them.
pub fn with_labels<'a>(
    pods: &Cache<Pod>,
    namespace: &str,
    labels: impl Iterator<Item = (&'a String, &'a String)>,
) -> Vec<Arc<Pod>> {
    let words = labels.map(|(key, value)| format!("{key}={value}"));
    match words.min_by_key(|word| pods.count(LABEL, namespace, word)) {
        Some(rarest) => pods.found(LABEL, namespace, &rarest),
        None => pods.of_namespace(namespace),
    }
}

/// The index of pods that a Job counts when they end, by the names of their controllers.
pub const TRACKED: &str = "tracked";

fn pod_words(pod: &Pod) -> Vec<(&'static str, Key)> {
    let namespace = pod.namespace().unwrap_or_default();
    let mut words: Vec<(&'static str, Key)> = label_words(&namespace, pod.labels()).collect();
    words.extend(claims_of(pod).map(|claim| (CLAIM, (namespace.clone(), claim.to_owned()))));
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    if node.unwrap_or_default().is_empty() {
        words.push((FREE, Key::default()));
    }
    if planner::job::is_tracked(pod) {
        let owner = planner::workload::controller(&pod.metadata);
        let owner = owner.map_or(String::new(), |owner| owner.name.clone());
        words.push((TRACKED, (namespace, owner)));
    }
    words
}

fn volume_words(volume: &PersistentVolume) -> Vec<(&'static str, Key)> {
    match volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) {
        Some(claim) => {
            let namespace = claim.namespace.clone().unwrap_or_default();
            vec![(CLAIM, (namespace, claim.name.clone().unwrap_or_default()))]
        }
        None => vec![(FREE, Key::default())],
    }
}

fn claim_words(claim: &PersistentVolumeClaim) -> Vec<(&'static str, Key)> {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase == Some("Bound") { Vec::new() } else { vec![(FREE, Key::default())] }
}

/// A Service is found by the first pair of its selector: whoever it selects has that label.
fn service_words(service: &Service) -> Vec<(&'static str, Key)> {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let first = selector.and_then(|selector| selector.iter().next());
    label_words(&service.namespace().unwrap_or_default(), first).collect()
}

impl Caches {
    /// Starts all watches.
    pub fn start(client: Client) -> Caches {
        Caches {
            pods: Cache::indexed(client.clone(), pod_words),
            sets: Cache::start(client.clone()),
            revisions: Cache::start(client.clone()),
            deployments: Cache::start(client.clone()),
            replica_sets: Cache::start(client.clone()),
            budgets: Cache::start(client.clone()),
            claims: Cache::indexed(client.clone(), claim_words),
            volumes: Cache::indexed(client.clone(), volume_words),
            classes: Cache::start(client.clone()),
            nodes: Cache::start(client.clone()),
            services: Cache::indexed(client.clone(), service_words),
            slices: Cache::start(client.clone()),
            endpoints: Cache::start(client.clone()),
            namespaces: Cache::start(client.clone()),
            jobs: Cache::start(client.clone()),
            cron_jobs: Cache::start(client.clone()),
            daemon_sets: Cache::start(client.clone()),
            accounts: Cache::start(client),
        }
    }
}

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
    let mut waiting: std::collections::VecDeque<Key> = std::collections::VecDeque::new();
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
