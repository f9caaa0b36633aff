//! [`Agent`]: watches the node's pods and gives each a worker.

use crate::events::Recorder;
use crate::pod_worker;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use network::dns::Dns;
use network::services::Services;
use network::{PodNetwork, PodRef};
use runtime::{ContainerRuntime, ImageStore, RuntimeEvent};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What an agent is made from.
pub struct AgentConfig {
    /// The node's name.
    pub node_name: String,
    /// The node's own address, as pods see it.
    pub node_ip: Ipv4Addr,
    /// Range of pods on this node, e.g. `10.42.0.0/24`.
    pub pod_cidr: String,
    /// The cluster's DNS server.
    pub cluster_dns: Ipv4Addr,
    /// e.g. `cluster.local`.
    pub cluster_domain: String,
    /// Where the host resolves names.
    pub resolv_conf: PathBuf,
    /// Where pods' files, logs and local volumes live.
    pub data_dir: PathBuf,
    /// The version of the API types, told as the kubelet's.
    pub kubernetes_version: String,
    /// As user `system:node:NAME`.
    pub client: Client,
    /// Containers.
    pub runtime: Arc<dyn ContainerRuntime>,
    /// Images.
    pub images: Arc<dyn ImageStore>,
    /// Addresses.
    pub network: Arc<dyn PodNetwork>,
    /// Balanced addresses.
    pub services: Arc<Services>,
    /// Names.
    pub dns: Dns,
}

impl std::fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentConfig")
            .field("node_name", &self.node_name)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

/// What a worker is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A container ended (of the sandbox with this id), or its supervisor died.
    Runtime(String),
    /// A ConfigMap or Secret changed: namespace and name.
    Configuration(String, String),
}

/// What workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: AgentConfig,
    pub(crate) recorder: Recorder,
    pub(crate) changes: broadcast::Sender<Change>,
    /// The Services of each namespace, for environment variables.
    pub(crate) services: RwLock<BTreeMap<(String, String), Service>>,
    /// The pods that are here now, by namespace and name.
    pub(crate) pods: RwLock<BTreeMap<(String, String), Pod>>,
}

/// The agent of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Agent {
    pub(crate) shared: Arc<Shared>,
}

struct Worker {
    uid: String,
    pod: watch::Sender<Option<Arc<Pod>>>,
    task: JoinHandle<()>,
}

impl Agent {
    /// Makes an agent; nothing happens before [`Agent::run`].
    pub fn new(config: AgentConfig) -> Agent {
        let recorder = Recorder::new(config.client.clone(), "kubelet", &config.node_name);
        Agent {
            shared: Arc::new(Shared {
                config,
                recorder,
                changes: broadcast::channel(1024).0,
                services: RwLock::default(),
                pods: RwLock::default(),
            }),
        }
    }

    /// Runs the node until `closing` fires. Pods run on after that.
    pub async fn run(self, closing: CancellationToken) {
        let shared = self.shared.clone();
        let tasks = [
            tokio::spawn(crate::register::run(shared.clone())),
            tokio::spawn(crate::service_proxy::run(shared.clone())),
            tokio::spawn(crate::volumes::reclaim(shared.clone())),
            tokio::spawn(watch_configuration::<ConfigMap>(shared.clone())),
            tokio::spawn(watch_configuration::<Secret>(shared.clone())),
            tokio::spawn(watch_runtime(shared.clone())),
        ];
        closing.run_until_cancelled(watch_pods(shared)).await;
        for task in tasks {
            task.abort();
        }
    }
}

async fn watch_runtime(shared: Arc<Shared>) {
    let mut events = shared.config.runtime.events();
    while let Some(event) = events.next().await {
        let sandbox = match event {
            RuntimeEvent::ContainerExited { sandbox, .. }
            | RuntimeEvent::SandboxLost { sandbox } => sandbox,
        };
        // Nobody may be waiting.
        let _unheard = shared.changes.send(Change::Runtime(sandbox));
    }
}

async fn watch_configuration<K>(shared: Arc<Shared>)
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let api: Api<K> = Api::all(shared.config.client.clone());
    let mut events = watcher::watcher(api, watcher::Config::default()).boxed();
    loop {
        match events.try_next().await {
            Ok(Some(Event::Apply(object) | Event::InitApply(object) | Event::Delete(object))) => {
                let _unheard = shared.changes.send(Change::Configuration(
                    object.namespace().unwrap_or_default(),
                    object.name_any(),
                ));
            }
            Ok(Some(Event::Init | Event::InitDone)) => {}
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "a watch of configuration broke and is taken up again");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    }
}

async fn watch_pods(shared: Arc<Shared>) {
    let api: Api<Pod> = Api::all(shared.config.client.clone());
    let mine =
        watcher::Config::default().fields(&format!("spec.nodeName={}", shared.config.node_name));
    let mut events = watcher::watcher(api, mine).boxed();
    let mut workers: BTreeMap<(String, String), Worker> = BTreeMap::new();
    let mut listed: BTreeSet<(String, String)> = BTreeSet::new();
    let mut initial: Vec<Pod> = Vec::new();
    loop {
        match events.try_next().await {
            Ok(Some(Event::Init)) => {
                listed.clear();
                initial.clear();
            }
            Ok(Some(Event::InitApply(pod))) => {
                listed.insert(key(&pod));
                initial.push(pod);
            }
            Ok(Some(Event::InitDone)) => {
                for gone in
                    workers.keys().filter(|key| !listed.contains(*key)).cloned().collect::<Vec<_>>()
                {
                    end(&shared, &mut workers, &gone);
                }
                remove_orphans(&shared, &initial, &workers).await;
                for pod in initial.drain(..) {
                    apply(&shared, &mut workers, pod);
                }
            }
            Ok(Some(Event::Apply(pod))) => apply(&shared, &mut workers, pod),
            Ok(Some(Event::Delete(pod))) => {
                if workers
                    .get(&key(&pod))
                    .is_some_and(|worker| worker.uid == pod.uid().unwrap_or_default())
                {
                    end(&shared, &mut workers, &key(&pod));
                }
            }
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "the watch of pods broke and is taken up again");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    }
}

fn key(pod: &Pod) -> (String, String) {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

fn apply(shared: &Arc<Shared>, workers: &mut BTreeMap<(String, String), Worker>, pod: Pod) {
    let (key, uid) = (key(&pod), pod.uid().unwrap_or_default());
    shared.pods.write().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), pod.clone());
    let predecessor = match workers.get(&key) {
        Some(worker) if worker.uid == uid => {
            // A worker that has ended its pod no longer listens.
            let _unheard = worker.pod.send(Some(Arc::new(pod)));
            return;
        }
        Some(_) => workers.remove(&key).map(|worker| {
            let _unheard = worker.pod.send(None);
            worker.task
        }),
        None => None,
    };
    let (sender, receiver) = watch::channel(Some(Arc::new(pod)));
    let shared = shared.clone();
    let task = tokio::spawn(async move {
        // Two pods of one name must never run at once: the former one's containers are surely dead first.
        if let Some(predecessor) = predecessor
            && let Err(error) = predecessor.await
        {
            tracing::error!(%error, "the worker of a former pod failed");
        }
        pod_worker::run(shared, receiver).await;
    });
    workers.insert(key, Worker { uid, pod: sender, task });
}

fn end(
    shared: &Arc<Shared>,
    workers: &mut BTreeMap<(String, String), Worker>,
    key: &(String, String),
) {
    shared.pods.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    if let Some(worker) = workers.get(key) {
        // The worker stays in the table: a successor of the same name waits for it.
        let _unheard = worker.pod.send(None);
    }
}

/// Removes sandboxes whose pods are no more.
async fn remove_orphans(
    shared: &Arc<Shared>,
    pods: &[Pod],
    workers: &BTreeMap<(String, String), Worker>,
) {
    let sandboxes = match shared.config.runtime.list().await {
        Ok(sandboxes) => sandboxes,
        Err(error) => {
            return tracing::error!(%error, "the sandboxes of an earlier server cannot be listed");
        }
    };
    for sandbox in sandboxes {
        let id = &sandbox.config.id;
        let known = pods.iter().any(|pod| pod.metadata.uid.as_ref() == Some(id))
            || workers.values().any(|worker| worker.uid == *id);
        if known {
            continue;
        }
        let label = |name: &str| sandbox.config.labels.get(name).cloned().unwrap_or_default();
        let pod = PodRef { id: id.clone(), namespace: label("namespace"), name: label("name") };
        tracing::info!(
            uid = id,
            namespace = pod.namespace,
            name = pod.name,
            "a sandbox without a pod is removed"
        );
        pod_worker::remove_everything(shared, &pod).await;
    }
}
