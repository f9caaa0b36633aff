//! The scheduler loop.

use crate::events::Recorder;
use crate::harness::{CLAIM, Cache, Caches, Change, FREE, Key, claims_of, drive, queue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use planner::claim_binding::SELECTED_NODE;
use planner::scheduling::{Observed, Occupancy, Placement, Share, place, selected_node};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;

#[derive(Clone)]
struct Scheduler {
    client: Client,
    caches: Caches,
    recorder: Recorder,
    /// One decision at a time: each rests on those before it.
    ledger: Arc<Mutex<Ledger>>,
}

/// What nodes' pods take: what the cache has shown, and what was decided since.
struct Ledger {
    changes: broadcast::Receiver<Change<Pod>>,
    shares: HashMap<Key, (Option<String>, Share)>,
    occupied: HashMap<String, Occupancy>,
}

impl Ledger {
    /// Of a cache, from the beginning.
    fn new(pods: &Cache<Pod>) -> Ledger {
        // Changes from now on, and then everything: what stands in both is taken once.
        let changes = pods.changes();
        let mut ledger = Ledger { changes, shares: HashMap::new(), occupied: HashMap::new() };
        for pod in pods.all() {
            ledger.see(&pod);
        }
        ledger
    }

    /// Takes in what the cache has shown meanwhile.
    fn catch_up(&mut self, pods: &Cache<Pod>) {
        loop {
            match self.changes.try_recv() {
                Ok(Change { new: Some(pod), .. }) => self.see(&pod),
                Ok(Change { old: Some(pod), .. }) => self.forget(&key(&pod)),
                Ok(_) => {}
                Err(broadcast::error::TryRecvError::Lagged(_)) => *self = Ledger::new(pods),
                Err(_) => return,
            }
        }
    }

    fn see(&mut self, pod: &Pod) {
        match Share::of(pod) {
            Some(share) => self.take(pod, share),
            // Not bound yet, as far as the cache knows; what was decided for this very pod holds.
            None if self.has(pod) && waits(pod) => {}
            None => self.forget(&key(pod)),
        }
    }

    fn has(&self, pod: &Pod) -> bool {
        self.shares.get(&key(pod)).is_some_and(|(uid, _)| *uid == pod.uid())
    }

    fn take(&mut self, pod: &Pod, share: Share) {
        self.forget(&key(pod));
        self.occupied.entry(share.node.clone()).or_default().add(&share);
        self.shares.insert(key(pod), (pod.uid(), share));
    }

    fn forget(&mut self, key: &Key) {
        let Some((_, share)) = self.shares.remove(key) else { return };
        if let Some(occupancy) = self.occupied.get_mut(&share.node) {
            occupancy.remove(&share);
            if occupancy.is_empty() {
                self.occupied.remove(&share.node);
            }
        }
    }
}

fn key(pod: &Pod) -> Key {
    (pod.namespace().unwrap_or_default(), pod.name_any())
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
    let waiting = {
        let pods = caches.pods.clone();
        move || -> Vec<Key> {
            let free = pods.found(FREE, "", "");
            free.iter().filter(|pod| waits(pod)).map(|pod| key(pod)).collect()
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
            let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
            let users = pods.found(CLAIM, &namespace, &name);
            users.iter().filter(|pod| waits(pod)).map(|pod| key(pod)).collect()
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
        ledger: Arc::new(Mutex::new(Ledger::new(&caches.pods))),
        caches,
    };
    drive("scheduler", queue, keys, move |key| {
        let scheduler = scheduler.clone();
        async move { scheduler.schedule(&key).await }
    })
    .await;
}

impl Scheduler {
    async fn schedule(&self, (namespace, name): &Key) -> Result<Option<Duration>, String> {
        let Some(pod) = self.caches.pods.get(namespace, name).filter(|pod| waits(pod)) else {
            return Ok(None);
        };
        if pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.scheduling_gates.iter().flatten().next().is_some())
        {
            return self
                .unschedulable(
                    &pod,
                    "SchedulingGated",
                    "Scheduling is blocked due to non-empty scheduling gates",
                )
                .await;
        }
        match self.decide(&pod) {
            Some(Placement::Bind(node)) => {
                let bound = self.bind(&pod, &node).await;
                if bound.is_err() {
                    self.ledger().forget(&key(&pod));
                }
                bound
            }
            Some(Placement::Reserve { node, claims }) => self.reserve(&pod, &node, &claims).await,
            Some(Placement::Nowhere(why)) => {
                self.recorder.tell(&*pod, "Warning", "FailedScheduling", &why);
                self.unschedulable(&pod, "Unschedulable", &why).await
            }
            None => Ok(None),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a pod goes; `None` when that is decided already. The next decision counts this pod.
    fn decide(&self, pod: &Pod) -> Option<Placement> {
        let mut ledger = self.ledger();
        ledger.catch_up(&self.caches.pods);
        if ledger.has(pod) {
            return None;
        }
        let namespace = pod.namespace().unwrap_or_default();
        let (nodes, classes) = (self.caches.nodes.all(), self.caches.classes.all());
        let claims: Vec<Arc<PersistentVolumeClaim>> =
            claims_of(pod).filter_map(|claim| self.caches.claims.get(&namespace, claim)).collect();
        let volumes: Vec<Arc<PersistentVolume>> = claims
            .iter()
            .filter_map(|claim| claim.spec.as_ref()?.volume_name.as_deref())
            .filter_map(|volume| self.caches.volumes.get("", volume))
            .collect();
        let placement = place(&Observed {
            pod,
            nodes: &nodes.iter().map(|node| &**node).collect::<Vec<&Node>>(),
            occupied: &ledger.occupied,
            claims: &claims.iter().map(|claim| &**claim).collect::<Vec<&PersistentVolumeClaim>>(),
            volumes: &volumes.iter().map(|volume| &**volume).collect::<Vec<&PersistentVolume>>(),
            classes: &classes.iter().map(|class| &**class).collect::<Vec<&StorageClass>>(),
        });
        if let Placement::Bind(node) = &placement {
            ledger.take(pod, Share::on(pod, node));
        }
        Some(placement)
    }

    async fn bind(&self, pod: &Pod, node: &str) -> Result<Option<Duration>, String> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "namespace": namespace, "uid": pod.uid()}, "target": {"kind": "Node", "name": node}});
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
                Ok(None)
            }
            // Gone, or bound by another: the cache will show it.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
                let mut ledger = self.ledger();
                ledger.forget(&key(pod));
                if let Some(now) = self.caches.pods.get(&namespace, &name) {
                    ledger.see(&now);
                }
                Ok(None)
            }
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
