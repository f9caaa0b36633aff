//! The scheduler loop.

use crate::events::Recorder;
use crate::harness::{Caches, Change, Key, drive, queue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use planner::claim_binding::SELECTED_NODE;
use planner::scheduling::{Observed, Placement, place, selected_node};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

#[derive(Clone)]
struct Scheduler {
    client: Client,
    caches: Caches,
    recorder: Recorder,
    /// One decision at a time: each rests on those before it.
    deciding: Arc<Mutex<()>>,
}

fn waits(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let free = spec.node_name.as_deref().unwrap_or_default().is_empty();
    free && pod.metadata.deletion_timestamp.is_none()
        && spec.scheduler_name.as_deref().unwrap_or("default-scheduler") == "default-scheduler"
}

/// Runs for ever.
pub(crate) async fn run(client: Client, caches: Caches) {
    let (queue, keys) = queue();
    let key = |pod: &Pod| (pod.namespace().unwrap_or_default(), pod.name_any());
    let waiting = {
        let pods = caches.pods.clone();
        move || -> Vec<Key> {
            pods.all().iter().filter(|pod| waits(pod)).map(|pod| key(pod)).collect()
        }
    };
    queue.feed(&caches.pods, {
        let waiting = waiting.clone();
        move |change: &Change<Pod>| match (&change.old, &change.new) {
            (_, Some(pod)) if waits(pod) => vec![key(pod)],
            // Room was made.
            (Some(_), None) => waiting(),
            _ => Vec::new(),
        }
    });
    queue.feed(&caches.nodes, {
        let waiting = waiting.clone();
        move |_: &Change<Node>| waiting()
    });
    queue.feed(&caches.claims, {
        let pods = caches.pods.clone();
        move |change: &Change<PersistentVolumeClaim>| {
            let Some(claim) = change.new.as_ref().or(change.old.as_ref()) else {
                return Vec::new();
            };
            let uses = |pod: &Pod| {
                pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).any(|volume| {
                    volume
                        .persistent_volume_claim
                        .as_ref()
                        .is_some_and(|used| used.claim_name == claim.name_any())
                })
            };
            pods.of_namespace(&claim.namespace().unwrap_or_default())
                .iter()
                .filter(|pod| waits(pod) && uses(pod))
                .map(|pod| key(pod))
                .collect()
        }
    });
    queue.feed(&caches.volumes, {
        let waiting = waiting.clone();
        move |change: &Change<PersistentVolume>| {
            if change.old.is_none() { waiting() } else { Vec::new() }
        }
    });
    queue.feed(&caches.classes, move |_: &Change<StorageClass>| waiting());
    tokio::join!(
        caches.pods.synced(),
        caches.nodes.synced(),
        caches.claims.synced(),
        caches.volumes.synced(),
        caches.classes.synced()
    );
    let scheduler = Scheduler {
        recorder: Recorder::new(client.clone(), "default-scheduler"),
        client,
        caches,
        deciding: Arc::default(),
    };
    drive("scheduler", queue, keys, move |key| {
        let scheduler = scheduler.clone();
        async move { scheduler.schedule(&key).await }
    })
    .await;
}

impl Scheduler {
    async fn schedule(&self, (namespace, name): &Key) -> Result<Option<Duration>, String> {
        let deciding = self.deciding.lock().await;
        let Some(pod) = self.caches.pods.get(namespace, name).filter(|pod| waits(pod)) else {
            return Ok(None);
        };
        if pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.scheduling_gates.iter().flatten().next().is_some())
        {
            drop(deciding);
            return self
                .unschedulable(
                    &pod,
                    "SchedulingGated",
                    "Scheduling is blocked due to non-empty scheduling gates",
                )
                .await;
        }
        match self.decide(&pod) {
            Placement::Bind(node) => self.bind(&pod, &node).await,
            Placement::Reserve { node, claims } => self.reserve(&pod, &node, &claims).await,
            Placement::Nowhere(why) => {
                drop(deciding);
                self.recorder.tell(&*pod, "Warning", "FailedScheduling", &why);
                self.unschedulable(&pod, "Unschedulable", &why).await
            }
        }
    }

    fn decide(&self, pod: &Pod) -> Placement {
        let namespace = pod.namespace().unwrap_or_default();
        let (nodes, pods, volumes, classes) = (
            self.caches.nodes.all(),
            self.caches.pods.all(),
            self.caches.volumes.all(),
            self.caches.classes.all(),
        );
        let claims: Vec<Arc<PersistentVolumeClaim>> = pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten())
            .filter_map(|volume| {
                self.caches
                    .claims
                    .get(&namespace, &volume.persistent_volume_claim.as_ref()?.claim_name)
            })
            .collect();
        let placed = |pod: &Pod| {
            let has_node = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
            let ended = pod.status.as_ref().is_some_and(|status| {
                ["Succeeded", "Failed"].contains(&status.phase.as_deref().unwrap_or_default())
            });
            has_node && !ended
        };
        place(&Observed {
            pod,
            nodes: &nodes.iter().map(|node| &**node).collect::<Vec<&Node>>(),
            pods: &pods.iter().map(|pod| &**pod).filter(|pod| placed(pod)).collect::<Vec<&Pod>>(),
            claims: &claims.iter().map(|claim| &**claim).collect::<Vec<&PersistentVolumeClaim>>(),
            volumes: &volumes.iter().map(|volume| &**volume).collect::<Vec<&PersistentVolume>>(),
            classes: &classes.iter().map(|class| &**class).collect::<Vec<&StorageClass>>(),
        })
    }

    async fn bind(&self, pod: &Pod, node: &str) -> Result<Option<Duration>, String> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "namespace": namespace}, "target": {"kind": "Node", "name": node}});
        let request =
            http::Request::post(format!("/api/v1/namespaces/{namespace}/pods/{name}/binding"))
                .header("content-type", "application/json")
                .body(binding.to_string().into_bytes())
                .map_err(|error| error.to_string())?;
        match self.client.request_text(request).await {
            Ok(_) => {
                self.recorder.tell(
                    pod,
                    "Normal",
                    "Scheduled",
                    &format!("Successfully assigned {namespace}/{name} to {node}"),
                );
                // The next decision counts this pod.
                let mut changes = self.caches.pods.changes();
                let bound =
                    |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
                let seen = async {
                    while !self.caches.pods.get(&namespace, &name).is_none_or(|pod| bound(&pod)) {
                        if let Err(tokio::sync::broadcast::error::RecvError::Closed) =
                            changes.recv().await
                        {
                            return;
                        }
                    }
                };
                if tokio::time::timeout(Duration::from_secs(5), seen).await.is_err() {
                    tracing::debug!(namespace, name, "an own binding is not seen yet");
                }
                Ok(None)
            }
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Tells the claims' provisioner which node is meant; the pod is bound when they are.
    async fn reserve(
        &self,
        pod: &Pod,
        node: &str,
        claims: &[String],
    ) -> Result<Option<Duration>, String> {
        let namespace = pod.namespace().unwrap_or_default();
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
        for name in claims {
            if self
                .caches
                .claims
                .get(&namespace, name)
                .is_some_and(|claim| selected_node(&claim) == Some(node))
            {
                continue;
            }
            let change = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
            let claim = api
                .patch(name, &PatchParams::default(), &Patch::Merge(change))
                .await
                .map_err(|error| error.to_string())?;
            self.caches.claims.wait_for_write(&claim).await;
        }
        Ok(None)
    }

    async fn unschedulable(
        &self,
        pod: &Pod,
        reason: &str,
        why: &str,
    ) -> Result<Option<Duration>, String> {
        let conditions =
            pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        let told = conditions.iter().any(|condition| {
            condition.type_ == "PodScheduled"
                && condition.status == "False"
                && condition.message.as_deref() == Some(why)
        });
        if told {
            return Ok(None);
        }
        let now =
            Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default().to_string();
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": why, "lastTransitionTime": now});
        let api: Api<Pod> =
            Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let change =
            json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        match api
            .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(change))
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(None),
            other => other.map(|_| None).map_err(|error| error.to_string()),
        }
    }
}
