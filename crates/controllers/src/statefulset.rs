//! The StatefulSet controller: observe, plan, act.

use crate::dependents::{self, key_of, words};
use crate::events::Recorder;
use crate::harness::{Caches, Change, Key, drive, queue};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use planner::statefulset::identity::controller_reference;
use planner::statefulset::{Action, Observed, Plan, by_name, plan};
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
    queue.feed(&caches.sets, |change| key_of(change).into_iter().collect());
    queue.feed(&caches.pods, {
        let sets = caches.sets.clone();
        move |change: &Change<Pod>| {
            concerned(change, |namespace, metadata| {
                let name = metadata.name.as_deref().unwrap_or_default();
                // A pod concerns the set whose name it bears, whoever owns it.
                name.rsplit_once('-')
                    .filter(|(parent, _)| sets.get(namespace, parent).is_some())
                    .map(|(parent, _)| parent.to_owned())
            })
        }
    });
    queue.feed(&caches.claims, {
        let sets = caches.sets.clone();
        move |change: &Change<PersistentVolumeClaim>| {
            concerned(change, |namespace, metadata| {
                let name = metadata.name.as_deref().unwrap_or_default();
                let (rest, _) = name.rsplit_once('-')?;
                // `<template>-<set>-<ordinal>`: each dash may be the one before the set's name.
                rest.match_indices('-')
                    .map(|(at, _)| &rest[at + 1..])
                    .find(|set| sets.get(namespace, set).is_some())
                    .map(str::to_owned)
            })
        }
    });
    queue.feed(&caches.revisions, |change: &Change<ControllerRevision>| {
        concerned(change, |_, _| None)
    });
    tokio::join!(
        caches.sets.synced(),
        caches.pods.synced(),
        caches.claims.synced(),
        caches.revisions.synced()
    );
    let controller = Arc::new(Controller {
        recorder: Recorder::new(client.clone(), "statefulset-controller"),
        client,
        caches,
        clock,
    });
    drive("statefulset", queue, keys, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
    .await;
}

/// The sets that a change concerns: those that own the object, and the one that `by_name` finds.
fn concerned<K: Resource<DynamicType = ()>>(
    change: &Change<K>,
    by_name: impl Fn(
        &str,
        &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    ) -> Option<String>,
) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    for object in [&change.old, &change.new].into_iter().flatten() {
        let metadata = object.meta();
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let owners = metadata
            .owner_references
            .iter()
            .flatten()
            .filter(|owner| owner.kind == "StatefulSet")
            .map(|owner| owner.name.clone());
        for name in owners.chain(by_name(&namespace, metadata)) {
            let key = (namespace.clone(), name);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    keys
}

impl Controller {
    async fn reconcile(&self, (namespace, name): &Key) -> Result<Option<Duration>, String> {
        let Some(set) = self.caches.sets.get(namespace, name) else { return Ok(None) };
        let plan = self.plan(&set);
        for problem in &plan.problems {
            self.recorder.tell(&*set, "Warning", problem.reason, &problem.message);
        }
        if let Some(wait) = &plan.waiting_for {
            tracing::debug!(controller = "statefulset", namespace, name, wait, "waiting");
        }
        let acted = self.act(&set, &plan).await;
        // What was done counts at once, as upstream: a status of before would only be followed by another. It is told also
        // when an action failed.
        let status = if acted.is_ok() && !plan.actions.is_empty() {
            self.plan(&set).status
        } else {
            plan.status
        };
        let told = (set.status.as_ref(), &status);
        dependents::write_status(&self.client, &self.caches.sets, &*set, told).await?;
        acted?;
        Ok(plan.look_again_after)
    }

    /// What is to be done for a set, as far as the caches know.
    fn plan(&self, set: &StatefulSet) -> Plan {
        let (namespace, name) = (set.namespace().unwrap_or_default(), set.name_any());
        let prefix = format!("{name}-");
        let uid = set.uid();
        // Everything of the set bears its name: the cost is that of the set, not of its namespace.
        let pods = self.caches.pods.with_prefix(&namespace, &prefix);
        let revisions: Vec<ControllerRevision> = self
            .caches
            .revisions
            .with_prefix(&namespace, &prefix)
            .iter()
            .filter(|revision| {
                let owners = revision.owner_references();
                owners.is_empty() || owners.iter().any(|owner| uid.as_ref() == Some(&owner.uid))
            })
            .map(|revision| (**revision).clone())
            .collect();
        let templates = set
            .spec
            .volume_claim_templates
            .iter()
            .flatten()
            .filter_map(|template| template.metadata.name.clone());
        let claims: Vec<Arc<PersistentVolumeClaim>> = templates
            .flat_map(|template| {
                self.caches.claims.with_prefix(&namespace, &format!("{template}-{name}-"))
            })
            .collect();
        plan(&Observed {
            set,
            revisions: &revisions,
            pods: &pods.iter().map(|pod| &**pod).collect::<Vec<_>>(),
            claims: &by_name(claims.iter().map(|claim| &**claim)),
            now: (self.clock)(),
        })
    }

    /// Carries the actions out in order; creations and deletions of pods that stand together in growing batches.
    async fn act(&self, set: &StatefulSet, plan: &Plan) -> Result<(), String> {
        let mut rest = plan.actions.as_slice();
        let mut batch = 1;
        while !rest.is_empty() {
            let size = if is_per_pod(&rest[0]) {
                rest.iter().take_while(|action| is_per_pod(action)).count().min(batch)
            } else {
                1
            };
            let (now, later) = rest.split_at(size);
            // A pod's claims stand before it and must exist first.
            if now.len() == 1
                || now.iter().any(|action| {
                    matches!(action, Action::CreateClaim { .. } | Action::UpdateClaimOwners { .. })
                })
            {
                for action in now {
                    self.carry_out(set, action).await?;
                }
            } else {
                futures::future::try_join_all(now.iter().map(|action| self.carry_out(set, action)))
                    .await?;
            }
            batch = (batch * 2).min(500);
            rest = later;
        }
        Ok(())
    }

    async fn carry_out(&self, set: &StatefulSet, action: &Action) -> Result<(), String> {
        let namespace = set.namespace().unwrap_or_default();
        let set_name = set.name_any();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
        let revisions: Api<ControllerRevision> = Api::namespaced(self.client.clone(), &namespace);
        match action {
            Action::AdoptPod { name, uid } => {
                let reference = controller_reference(set);
                let cache = &self.caches.pods;
                dependents::adopt(&self.client, set, &reference, cache, (name, uid)).await?;
            }
            Action::ReleasePod { name, uid } => {
                dependents::release(&self.client, set, &self.caches.pods, (name, uid)).await?;
            }
            Action::CreateRevision(revision) => {
                match revisions.create(&PostParams::default(), revision).await {
                    Ok(made) => self.caches.revisions.wait_for_write(&made).await,
                    // Seen by the next reconcile, or another's of that name.
                    Err(error) => return Err(error.to_string()),
                }
            }
            Action::AdoptRevision { name } => {
                let change = json!({"metadata": {"ownerReferences": [controller_reference(set)]}});
                let made = revisions
                    .patch(name, &PatchParams::default(), &Patch::Merge(change))
                    .await
                    .map_err(|error| error.to_string())?;
                self.caches.revisions.wait_for_write(&made).await;
            }
            Action::RenumberRevision { name, revision } => {
                let made = revisions
                    .patch(
                        name,
                        &PatchParams::default(),
                        &Patch::Merge(json!({"revision": revision})),
                    )
                    .await
                    .map_err(|error| error.to_string())?;
                self.caches.revisions.wait_for_write(&made).await;
            }
            Action::DeleteRevision { name } => {
                gone(revisions.delete(name, &DeleteParams::default()).await.map(drop))?
            }
            Action::CreateClaim { claim, pod } => {
                let name = claim.name_any();
                match claims.create(&PostParams::default(), claim).await {
                    Ok(made) => {
                        self.caches.claims.wait_for_write(&made).await;
                        self.recorder.tell(
                            set,
                            "Normal",
                            "SuccessfulCreate",
                            &format!(
                                "create Claim {name} Pod {pod} in StatefulSet {set_name} success"
                            ),
                        );
                    }
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    Err(error) => {
                        let words = words(&error);
                        self.recorder.tell(set, "Warning", "FailedCreate", &format!("create Claim {name} for Pod {pod} in StatefulSet {set_name} failed error: {words}"));
                        return Err(words);
                    }
                }
            }
            Action::UpdateClaimOwners { name, uid, owners } => {
                let change = json!({"metadata": {"uid": uid, "ownerReferences": owners}});
                let claim = claims
                    .patch(name, &PatchParams::default(), &Patch::Merge(change))
                    .await
                    .map_err(|error| error.to_string())?;
                self.caches.claims.wait_for_write(&claim).await;
            }
            Action::CreatePod(pod) => {
                let name = pod.name_any();
                match pods.create(&PostParams::default(), pod).await {
                    Ok(made) => {
                        self.caches.pods.wait_for_write(&made).await;
                        self.recorder.tell(
                            set,
                            "Normal",
                            "SuccessfulCreate",
                            &format!("create Pod {name} in StatefulSet {set_name} successful"),
                        );
                    }
                    // Somebody was quicker, or a pod of an earlier set is not gone yet: tried again, without an event, as
                    // upstream's StatefulPodControl.CreateStatefulPod.
                    Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                        return Err(status.message);
                    }
                    Err(error) => {
                        let words = words(&error);
                        self.recorder.tell(
                            set,
                            "Warning",
                            "FailedCreate",
                            &format!(
                                "create Pod {name} in StatefulSet {set_name} failed error: {words}"
                            ),
                        );
                        return Err(words);
                    }
                }
            }
            Action::DeletePod { name, uid } => {
                let cache = &self.caches.pods;
                match dependents::delete(&self.client, &namespace, cache, (name, uid)).await {
                    Ok(true) => self.recorder.tell(
                        set,
                        "Normal",
                        "SuccessfulDelete",
                        &format!("delete Pod {name} in StatefulSet {set_name} successful"),
                    ),
                    Ok(false) => {}
                    Err(error) => {
                        let words = words(&error);
                        self.recorder.tell(
                            set,
                            "Warning",
                            "FailedDelete",
                            &format!(
                                "delete Pod {name} in StatefulSet {set_name} failed error: {words}"
                            ),
                        );
                        return Err(words);
                    }
                }
            }
            Action::UpdatePodIdentity { name, uid, labels } => {
                let labels: serde_json::Map<String, serde_json::Value> =
                    labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
                let change = json!({"metadata": {"uid": uid, "labels": labels}});
                let pod = pods
                    .patch(name, &PatchParams::default(), &Patch::Merge(change))
                    .await
                    .map_err(|error| error.to_string())?;
                self.caches.pods.wait_for_write(&pod).await;
                self.recorder.tell(
                    set,
                    "Normal",
                    "SuccessfulUpdate",
                    &format!("update Pod {name} in StatefulSet {set_name} successful"),
                );
            }
        }
        Ok(())
    }
}

fn is_per_pod(action: &Action) -> bool {
    match action {
        Action::CreateClaim { .. }
        | Action::UpdateClaimOwners { .. }
        | Action::CreatePod(_)
        | Action::DeletePod { .. } => true,
        Action::AdoptPod { .. }
        | Action::ReleasePod { .. }
        | Action::CreateRevision(_)
        | Action::AdoptRevision { .. }
        | Action::RenumberRevision { .. }
        | Action::UpdatePodIdentity { .. }
        | Action::DeleteRevision { .. } => false,
    }
}

fn gone(result: Result<(), kube::Error>) -> Result<(), String> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map_err(|error| error.to_string()),
    }
}
