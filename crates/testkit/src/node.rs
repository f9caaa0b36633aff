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

/// A node that plays the kubelet for every pod: bound pods become Ready, deleted ones go; unless a test holds them.
#[derive(Clone)]
pub struct FakeNode {
    client: Client,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    held: Arc<Mutex<BTreeSet<String>>>,
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
        let nodes: Api<Node> = Api::all(client.clone());
        let node: Node = serde_json::from_value(
            json!({"metadata": {"name": "fake", "labels": {"kubernetes.io/hostname": "fake"}}}),
        )
        .unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let amounts = json!({"cpu": "1000", "memory": "1Ti", "pods": "100000"});
        let status = json!({"status": {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]}});
        nodes.patch_status("fake", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        let node = FakeNode { client, clock, held: Arc::default() };
        tokio::spawn(node.clone().play());
        node
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
        let status =
            json!({"status": {"phase": phase, "podIP": "10.42.0.9", "conditions": conditions}});
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        match pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => drop(other.unwrap()),
        }
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
        }
    }
}
