//! A node whose pods have no containers: they become what a test says.

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A node that plays the kubelet for every pod: bound pods become Ready, deleted ones go; unless a test holds them.
#[derive(Clone)]
pub struct FakeNode {
    client: Client,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    held: Arc<Mutex<BTreeSet<String>>>,
    ends: Arc<Mutex<Vec<End>>>,
}

/// How the pods end whose names begin so.
#[derive(Debug, Clone)]
struct End {
    prefix: String,
    exit_code: i32,
    after: Duration,
}

impl std::fmt::Debug for FakeNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeNode").field("held", &self.held).finish_non_exhaustive()
    }
}

impl FakeNode {
    /// Registers the node and starts to play. `clock` stamps the conditions.
    pub async fn start(
        client: Client,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    ) -> FakeNode {
        let node = FakeNode { client, clock, held: Arc::default(), ends: Arc::default() };
        node.join("fake").await;
        tokio::spawn(node.clone().play());
        node
    }

    /// Registers one more node, whose pods are played as well.
    pub async fn join(&self, name: &str) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node: Node = serde_json::from_value(
            json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}),
        )
        .unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let amounts = json!({"cpu": "1000", "memory": "1Ti", "pods": "100000"});
        let status = json!({"status": {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]}});
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }

    /// From now on the pods whose names begin so end with this exit code, so long after they became Ready. What is said
    /// last counts.
    pub fn end(&self, prefix: &str, exit_code: i32, after: Duration) {
        let end = End { prefix: prefix.to_owned(), exit_code, after };
        self.ends.lock().unwrap().push(end);
    }

    /// From now on nothing happens to the pod of this name by itself.
    pub fn hold(&self, name: &str) {
        self.held.lock().unwrap().insert(name.to_owned());
    }

    /// The pod of this name is played again.
    pub async fn release(&self, name: &str) {
        self.held.lock().unwrap().remove(name);
        let pods: Api<Pod> = Api::all(self.client.clone());
        for pod in pods.list(&kube::api::ListParams::default()).await.unwrap() {
            if pod.name_any() == name {
                self.act(&pod).await;
            }
        }
    }

    /// Makes a pod Ready or not, of this phase.
    pub async fn set(&self, namespace: &str, name: &str, phase: &str, ready: bool) {
        let now = Timestamp::from_second((self.clock)().as_second()).unwrap().to_string();
        let word = if ready { "True" } else { "False" };
        let conditions: Vec<_> = ["Initialized", "Ready", "ContainersReady", "PodScheduled"]
            .iter()
            .map(|kind| json!({"type": kind, "status": if kind.contains("Ready") { word } else { "True" }, "lastTransitionTime": now}))
            .collect();
        let status = json!({"phase": phase, "podIP": "10.42.0.9", "conditions": conditions});
        self.write(namespace, name, status).await;
    }

    async fn write(&self, namespace: &str, name: &str, status: serde_json::Value) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let change = Patch::Merge(json!({"status": status}));
        match pods.patch_status(name, &PatchParams::default(), &change).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => drop(other.unwrap()),
        }
    }

    /// Ends all containers of a pod.
    async fn exit(&self, pod: &Pod, exit_code: i32) {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let phase = if exit_code == 0 { "Succeeded" } else { "Failed" };
        self.set(&namespace, &name, phase, false).await;
        let now = Timestamp::from_second((self.clock)().as_second()).unwrap().to_string();
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let statuses: Vec<_> = containers
            .map(|container| {
                json!({"name": container.name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": exit_code, "startedAt": now, "finishedAt": now}}})
            })
            .collect();
        self.write(&namespace, &name, json!({"containerStatuses": statuses})).await;
    }

    async fn play(self) {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let mut events =
            watcher::watcher(pods, watcher::Config::default()).applied_objects().boxed();
        // Ends with the server.
        while let Ok(Some(pod)) = events.try_next().await {
            self.act(&pod).await;
        }
    }

    async fn act(&self, pod: &Pod) {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        if !bound || self.held.lock().unwrap().contains(&name) {
            return;
        }
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if pod.metadata.deletion_timestamp.is_some() {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
            let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            match pods.delete(&name, &now).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other.unwrap()),
            }
        } else if phase == Some("Pending") {
            self.set(&namespace, &name, "Running", true).await;
            let ends = self.ends.lock().unwrap().clone();
            if let Some(end) = ends.into_iter().rev().find(|end| name.starts_with(&end.prefix)) {
                let (node, pod) = (self.clone(), pod.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(end.after).await;
                    node.exit(&pod, end.exit_code).await;
                });
            }
        }
    }
}
