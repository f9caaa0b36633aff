//! What the doctor looks at, as it was seen.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{
    Event, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodSpec, Service,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Objects of a kind; none if they could not be looked at, from which nothing follows.
pub type Seen<T> = Option<Vec<T>>;

/// Everything that was seen, at one time.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// When.
    pub now: Timestamp,
    /// Whether the nodes are abide's.
    pub on_abide: bool,
    /// StatefulSets.
    pub sets: Seen<StatefulSet>,
    /// Pods.
    pub pods: Seen<Pod>,
    /// Claims.
    pub claims: Seen<PersistentVolumeClaim>,
    /// Volumes.
    pub volumes: Seen<PersistentVolume>,
    /// Storage classes.
    pub classes: Seen<StorageClass>,
    /// Services.
    pub services: Seen<Service>,
    /// Events.
    pub events: Seen<Event>,
    /// Revisions of sets.
    pub revisions: Seen<ControllerRevision>,
    /// Nodes.
    pub nodes: Seen<Node>,
    /// Names of ConfigMaps; never their content.
    pub config_maps: Seen<ObjectMeta>,
    /// Names of Secrets; never their content.
    pub secrets: Seen<ObjectMeta>,
    /// Deployments, ReplicaSets, DaemonSets, Jobs and CronJobs.
    pub workloads: Seen<Workload>,
    /// The last lines of containers in trouble.
    pub logs: Vec<Log>,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
}

/// A Deployment, ReplicaSet, DaemonSet, Job or CronJob.
#[derive(Debug, Clone, Default)]
pub struct Workload {
    /// Its kind.
    pub kind: &'static str,
    /// Name, namespace, owners.
    pub metadata: ObjectMeta,
    /// What its pods are.
    pub pod: Option<PodSpec>,
    /// Whether it has done its work.
    pub is_complete: bool,
}

/// The last lines that a container printed.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// The lines, the newest last.
    pub lines: Vec<String>,
}
