//! The ReplicaSet controller: observe, plan, act.

use crate::dependents::{self, controllers_of, key_of};
use crate::events::Recorder;
use crate::harness::{Caches, Change, Key, drive, queue};
use crate::pod_control::PodControl;
use api::selector::label::LabelSelector;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt};
use planner::replica_set::{Action, Failure, Observed, controller_reference, plan};
use planner::workload::controller;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone)]
struct Controller {
    client: Client,
    caches: Caches,
    pods: PodControl,
    clock: crate::Clock,
}

/// Runs for ever.
pub(crate) async fn run(client: Client, caches: Caches, clock: crate::Clock) {
    let (queue, keys) = queue();
    queue.feed(&caches.replica_sets, |change| key_of(change).into_iter().collect());
    queue.feed(&caches.pods, {
        let sets = caches.replica_sets.clone();
        move |change: &Change<Pod>| {
            let mut keys = controllers_of(change, "ReplicaSet");
            let orphan = change.new.as_ref().filter(|pod| controller(&pod.metadata).is_none());
            if let Some(orphan) = orphan {
                // Whoever would have it looks at it.
                let namespace = orphan.namespace().unwrap_or_default();
                let labels = orphan.metadata.labels.as_ref();
                let wanting = sets.of_namespace(&namespace).into_iter().filter(|set| {
                    LabelSelector::of(Some(&set.spec.selector)).matches_optional(labels)
                });
                keys.extend(wanting.map(|set| (namespace.clone(), set.name_any())));
            }
            keys
        }
    });
    tokio::join!(caches.replica_sets.synced(), caches.pods.synced());
    let recorder = Recorder::new(client.clone(), "replicaset-controller");
    let pods = PodControl { client: client.clone(), pods: caches.pods.clone(), recorder };
    let controller = Arc::new(Controller { client, caches, pods, clock });
    drive("replicaset", queue, keys, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
    .await;
}

impl Controller {
    async fn reconcile(&self, (namespace, name): &Key) -> Result<Option<Duration>, String> {
        let Some(set) = self.caches.replica_sets.get(namespace, name) else { return Ok(None) };
        let uid = set.uid().unwrap_or_default();
        let mut pods = self.caches.pods.controlled_by(namespace, &uid);
        let related = self.related(&set);
        pods.extend(self.caches.pods.orphans(namespace));
        let (pods, related): (Vec<&Pod>, Vec<&Pod>) =
            (pods.iter().map(|pod| &**pod).collect(), related.iter().map(|pod| &**pod).collect());
        let observed = Observed {
            set: &set,
            pods: &pods,
            related: &related,
            failure: None,
            now: (self.clock)(),
        };
        let decided = plan(&observed);
        let failure = self.act(&set, &decided.actions).await?;
        let status = match &failure {
            Some(failure) => plan(&Observed { failure: Some(failure), ..observed }).status,
            None => decided.status,
        };
        let told = (set.status.as_ref(), &status);
        dependents::write_status(&self.client, &self.caches.replica_sets, &*set, told).await?;
        match failure {
            Some(failure) => Err(failure.message),
            None => Ok(decided.look_again_after),
        }
    }

    /// The pods of all sets with the same owner, itself included.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let namespace = set.namespace().unwrap_or_default();
        let Some(owner) = controller(&set.metadata) else {
            return self.caches.pods.controlled_by(&namespace, &set.uid().unwrap_or_default());
        };
        let siblings = self.caches.replica_sets.controlled_by(&namespace, &owner.uid);
        siblings
            .iter()
            .flat_map(|sibling| {
                self.caches.pods.controlled_by(&namespace, &sibling.uid().unwrap_or_default())
            })
            .collect()
    }

    /// Carries the actions out. What becomes of pods is told in the status.
    async fn act(&self, set: &ReplicaSet, actions: &[Action]) -> Result<Option<Failure>, String> {
        let (mut made, mut ended): (Vec<&Pod>, Vec<(&str, &str)>) = (Vec::new(), Vec::new());
        for action in actions {
            match action {
                Action::AdoptPod { name, uid } => {
                    let reference = controller_reference(set);
                    self.pods.adopt(set, &reference, (name, uid), None).await?;
                }
                Action::ReleasePod { name, uid } => {
                    self.pods.release(set, (name, uid), None).await?;
                }
                Action::CreatePod(pod) => made.push(pod),
                Action::DeletePod { name, uid } => ended.push((name, uid)),
            }
        }
        if let Err(message) = self.pods.create(set, &made).await {
            return Ok(Some(Failure { reason: "FailedCreate", message }));
        }
        let failure = self.pods.delete(set, &ended, None).await.err();
        Ok(failure.map(|message| Failure { reason: "FailedDelete", message }))
    }
}
