//! The Deployment controller: observe, plan, act.

use crate::dependents::{self, controllers_of, key_of, words};
use crate::events::Recorder;
use crate::harness::{Caches, Change, Key, drive, queue};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use planner::deployment::{Action, Observed, REVISION, Update, controller_reference, plan};
use planner::workload::controller;
use serde_json::json;
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
    queue.feed(&caches.deployments, |change| key_of(change).into_iter().collect());
    queue.feed(&caches.replica_sets, {
        let deployments = caches.deployments.clone();
        move |change: &Change<ReplicaSet>| {
            let mut keys = controllers_of(change, "Deployment");
            let orphan = change.new.as_ref().filter(|set| controller(&set.metadata).is_none());
            if let Some(orphan) = orphan {
                let namespace = orphan.namespace().unwrap_or_default();
                let all = deployments.of_namespace(&namespace);
                keys.extend(
                    all.iter().map(|deployment| (namespace.clone(), deployment.name_any())),
                );
            }
            keys
        }
    });
    queue.feed(&caches.pods, {
        let sets = caches.replica_sets.clone();
        // Who recreates waits until the last pod is gone.
        move |change: &Change<Pod>| {
            if change.new.is_some() {
                return Vec::new();
            }
            let of = controllers_of(change, "ReplicaSet");
            of.iter()
                .filter_map(|(namespace, name)| {
                    let set = sets.get(namespace, name)?;
                    let owner = controller(&set.metadata)?;
                    Some((namespace.clone(), owner.name.clone()))
                })
                .collect()
        }
    });
    tokio::join!(caches.deployments.synced(), caches.replica_sets.synced(), caches.pods.synced());
    let controller = Arc::new(Controller {
        recorder: Recorder::new(client.clone(), "deployment-controller"),
        client,
        caches,
        clock,
    });
    drive("deployment", queue, keys, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
    .await;
}

impl Controller {
    async fn reconcile(&self, (namespace, name): &Key) -> Result<Option<Duration>, String> {
        let Some(deployment) = self.caches.deployments.get(namespace, name) else {
            return Ok(None);
        };
        let mut sets = self
            .caches
            .replica_sets
            .controlled_by(namespace, &deployment.uid().unwrap_or_default());
        let recreates = deployment
            .spec
            .strategy
            .as_ref()
            .is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate"));
        let pods: Vec<Arc<Pod>> = sets
            .iter()
            .filter(|_| recreates)
            .flat_map(|set| {
                self.caches.pods.controlled_by(namespace, &set.uid().unwrap_or_default())
            })
            .collect();
        sets.extend(self.caches.replica_sets.orphans(namespace));
        let taken: Vec<String> = self
            .caches
            .replica_sets
            .with_prefix(namespace, &format!("{name}-"))
            .iter()
            .map(|set| set.name_any())
            .collect();
        let plan = plan(&Observed {
            deployment: &deployment,
            sets: &sets.iter().map(|set| &**set).collect::<Vec<_>>(),
            pods: &pods.iter().map(|pod| &**pod).collect::<Vec<_>>(),
            taken: &taken,
            now: (self.clock)(),
        });
        let mut acted = Ok(());
        for action in &plan.actions {
            acted = self.carry_out(&deployment, action).await;
            if acted.is_err() {
                break;
            }
        }
        // The status is told also when an action failed.
        let told = (deployment.status.as_ref(), &plan.status);
        dependents::write_status(&self.client, &self.caches.deployments, &*deployment, told)
            .await?;
        acted?;
        Ok(plan.look_again_after)
    }

    async fn carry_out(&self, deployment: &Deployment, action: &Action) -> Result<(), String> {
        let namespace = deployment.namespace().unwrap_or_default();
        let cache = &self.caches.replica_sets;
        match action {
            Action::AdoptReplicaSet { name, uid } => {
                let reference = controller_reference(deployment);
                dependents::adopt(&self.client, deployment, &reference, cache, (name, uid)).await
            }
            Action::ReleaseReplicaSet { name, uid } => {
                dependents::release(&self.client, deployment, cache, (name, uid)).await
            }
            Action::CreateReplicaSet(set) => {
                let api = Api::<ReplicaSet>::namespaced(self.client.clone(), &namespace);
                match api.create(&PostParams::default(), set).await {
                    Ok(made) => {
                        cache.wait_for_write(&made).await;
                        let to = set.spec.replicas.unwrap_or(0);
                        if to > 0 {
                            self.tell_scaled(deployment, &made.name_any(), 0, to);
                        }
                        Ok(())
                    }
                    Err(error) => {
                        let message = format!(
                            "Failed to create new replica set {:?}: {}",
                            set.name_any(),
                            words(&error)
                        );
                        self.recorder.tell(
                            deployment,
                            "Warning",
                            "ReplicaSetCreateError",
                            &message,
                        );
                        Err(message)
                    }
                }
            }
            Action::UpdateReplicaSet(update) => self.update(deployment, update).await,
            Action::DeleteReplicaSet { name, uid } => {
                dependents::delete(&self.client, &namespace, cache, (name, uid))
                    .await
                    .map(drop)
                    .map_err(|error| words(&error))
            }
            Action::NumberDeployment { revision } => {
                let change = json!({"metadata": {"uid": deployment.uid(), "annotations": {REVISION: revision}}});
                let api = Api::<Deployment>::namespaced(self.client.clone(), &namespace);
                let numbered = api
                    .patch(&deployment.name_any(), &PatchParams::default(), &Patch::Merge(change))
                    .await
                    .map_err(|error| words(&error))?;
                self.caches.deployments.wait_for_write(&numbered).await;
                Ok(())
            }
        }
    }

    async fn update(&self, deployment: &Deployment, update: &Update) -> Result<(), String> {
        let mut change = json!({"metadata": {"uid": update.uid}});
        if !update.annotations.is_empty() {
            change["metadata"]["annotations"] = json!(update.annotations);
        }
        if let Some((_, to)) = update.scale {
            change["spec"]["replicas"] = json!(to);
        }
        if let Some(seconds) = update.min_ready_seconds {
            change["spec"]["minReadySeconds"] = json!(seconds);
        }
        let namespace = deployment.namespace().unwrap_or_default();
        let api = Api::<ReplicaSet>::namespaced(self.client.clone(), &namespace);
        let updated = api
            .patch(&update.name, &PatchParams::default(), &Patch::Merge(change))
            .await
            .map_err(|error| words(&error))?;
        self.caches.replica_sets.wait_for_write(&updated).await;
        if let Some((from, to)) = update.scale {
            self.tell_scaled(deployment, &update.name, from, to);
        }
        Ok(())
    }

    fn tell_scaled(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let way = if from < to { "up" } else { "down" };
        let message = format!("Scaled {way} replica set {set} from {from} to {to}");
        self.recorder.tell(deployment, "Normal", "ScalingReplicaSet", &message);
    }
}
