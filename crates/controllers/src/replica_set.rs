//! The ReplicaSet controller: observe, plan, act.

use crate::dependents::{self, controllers_of, key_of, words};
use crate::events::Recorder;
use crate::harness::{Caches, Change, Key, drive, queue};
use api::selector::label::LabelSelector;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use planner::replica_set::{Action, Failure, Observed, controller_reference, plan};
use planner::workload::controller;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone)]
struct Controller {
    client: Client,
    caches: Caches,
    recorder: Recorder,
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
    let controller = Arc::new(Controller {
        recorder: Recorder::new(client.clone(), "replicaset-controller"),
        client,
        caches,
        clock,
    });
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

    /// Carries the actions out; pods in growing batches, so that what cannot work is not tried a hundred times.
    async fn act(&self, set: &ReplicaSet, actions: &[Action]) -> Result<Option<Failure>, String> {
        let (ownership, pods): (Vec<&Action>, Vec<&Action>) = actions.iter().partition(|action| {
            matches!(action, Action::AdoptPod { .. } | Action::ReleasePod { .. })
        });
        for action in ownership {
            match action {
                Action::AdoptPod { name, uid } => {
                    let reference = controller_reference(set);
                    let cache = &self.caches.pods;
                    dependents::adopt(&self.client, set, &reference, cache, (name, uid)).await?;
                }
                Action::ReleasePod { name, uid } => {
                    dependents::release(&self.client, set, &self.caches.pods, (name, uid)).await?;
                }
                Action::CreatePod(_) | Action::DeletePod { .. } => {}
            }
        }
        let (mut rest, mut batch) = (pods.as_slice(), 1);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(batch.min(rest.len()));
            let results =
                futures::future::join_all(now.iter().map(|action| self.pod(set, action))).await;
            if let Some(failure) = results.into_iter().find_map(Result::err) {
                return Ok(Some(failure));
            }
            (rest, batch) = (later, batch * 2);
        }
        Ok(None)
    }

    async fn pod(&self, set: &ReplicaSet, action: &Action) -> Result<(), Failure> {
        let namespace = set.namespace().unwrap_or_default();
        match action {
            Action::CreatePod(pod) => {
                let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
                match api.create(&PostParams::default(), pod).await {
                    Ok(made) => {
                        self.caches.pods.wait_for_write(&made).await;
                        let message = format!("Created pod: {}", made.name_any());
                        self.recorder.tell(set, "Normal", "SuccessfulCreate", &message);
                        Ok(())
                    }
                    Err(error) => {
                        let message = words(&error);
                        let told = format!("Error creating: {message}");
                        self.recorder.tell(set, "Warning", "FailedCreate", &told);
                        Err(Failure { reason: "FailedCreate", message })
                    }
                }
            }
            Action::DeletePod { name, uid } => {
                let cache = &self.caches.pods;
                match dependents::delete(&self.client, &namespace, cache, (name, uid)).await {
                    Ok(deleted) => {
                        if deleted {
                            let message = format!("Deleted pod: {name}");
                            self.recorder.tell(set, "Normal", "SuccessfulDelete", &message);
                        }
                        Ok(())
                    }
                    Err(error) => {
                        let message = words(&error);
                        let told = format!("Error deleting: {message}");
                        self.recorder.tell(set, "Warning", "FailedDelete", &told);
                        Err(Failure { reason: "FailedDelete", message })
                    }
                }
            }
            Action::AdoptPod { .. } | Action::ReleasePod { .. } => Ok(()),
        }
    }
}
