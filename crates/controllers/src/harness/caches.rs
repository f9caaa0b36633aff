//! Everything that controllers look at, and under which words they find it.

use super::{Cache, Key};
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
use kube::{Client, ResourceExt};
use std::sync::Arc;

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
