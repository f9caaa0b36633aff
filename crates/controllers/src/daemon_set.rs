//! The DaemonSet controller: observe, plan, act.

use crate::dependents::words;
use crate::events::Recorder;
use crate::harness::{Caches, Change, Key, drive, queue};
use crate::pod_control::{PodControl, is_settled};
use api::selector::label::LabelSelector;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use planner::daemon_set::{Action, BackOffs, Observed, Plan, controller_reference, plan};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[derive(Clone)]
struct Controller {
    client: Client,
    caches: Caches,
    pods: PodControl,
    clock: crate::Clock,
    /// What was last planned of nodes whose pods fail, by the set's uid.
    back_offs: Arc<Mutex<HashMap<String, BackOffs>>>,
}

/// Runs for ever.
pub(crate) async fn run(client: Client, caches: Caches, clock: crate::Clock) {
    let (queue, keys) = queue();
    queue.feed(&caches.daemon_sets, |change: &Change<DaemonSet>| {
        let set = change.new.as_ref().or(change.old.as_ref());
        set.map(|set| key_of(&**set)).into_iter().collect()
    });
    queue.feed(&caches.pods, {
        let caches = caches.clone();
        move |change: &Change<Pod>| concerned(&caches, change.old.as_deref(), change.new.as_deref())
    });
    queue.feed(&caches.revisions, {
        let caches = caches.clone();
        move |change: &Change<ControllerRevision>| {
            concerned(&caches, change.old.as_deref(), change.new.as_deref())
        }
    });
    queue.feed(&caches.nodes, {
        let sets = caches.daemon_sets.clone();
        move |change: &Change<Node>| {
            if is_news(change) {
                sets.all().iter().map(|set| key_of(&**set)).collect()
            } else {
                Vec::new()
            }
        }
    });
    tokio::join!(
        caches.daemon_sets.synced(),
        caches.pods.synced(),
        caches.revisions.synced(),
        caches.nodes.synced()
    );
    let recorder = Recorder::new(client.clone(), "daemonset-controller");
    let pods = PodControl { client: client.clone(), pods: caches.pods.clone(), recorder };
    let controller =
        Arc::new(Controller { client, caches, pods, clock, back_offs: Arc::default() });
    drive("daemonset", queue, keys, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
    .await;
}

fn key_of(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Whether a change of a node can change which pods it is to have; that it still lives cannot.
fn is_news(change: &Change<Node>) -> bool {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => {
            old.metadata.labels != new.metadata.labels || old.spec != new.spec
        }
        _ => true,
    }
}

/// The set that controls an object; none if another kind does.
fn owner(metadata: &ObjectMeta) -> Option<&str> {
    let owners = metadata.owner_references.iter().flatten();
    owners
        .filter(|owner| owner.controller == Some(true) && owner.kind == "DaemonSet")
        .map(|owner| owner.name.as_str())
        .next()
}

fn is_controlled(metadata: &ObjectMeta) -> bool {
    metadata.owner_references.iter().flatten().any(|owner| owner.controller == Some(true))
}

/// The sets that a change concerns: those that control the object, and those that would adopt it.
fn concerned<K: Resource<DynamicType = ()>>(
    caches: &Caches,
    old: Option<&K>,
    new: Option<&K>,
) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    for metadata in [old, new].into_iter().flatten().map(Resource::meta) {
        let namespace = metadata.namespace.clone().unwrap_or_default();
        keys.extend(owner(metadata).map(|name| (namespace.clone(), name.to_owned())));
        if !is_controlled(metadata) {
            let sets = caches.daemon_sets.of_namespace(&namespace);
            let wants = |set: &DaemonSet| {
                LabelSelector::of(Some(&set.spec.selector))
                    .matches_optional(metadata.labels.as_ref())
            };
            keys.extend(sets.iter().filter(|set| wants(set)).map(|set| key_of(&**set)));
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

impl Controller {
    async fn reconcile(&self, (namespace, name): &Key) -> Result<Option<Duration>, String> {
        let Some(set) = self.caches.daemon_sets.get(namespace, name) else { return Ok(None) };
        let uid = set.uid().unwrap_or_default();
        let mut pods = self.caches.pods.controlled_by(namespace, &uid);
        pods.extend(self.caches.pods.orphans(namespace));
        let pods: Vec<&Pod> = pods.iter().map(|pod| &**pod).collect();
        // Another's revision may bear a name that is wanted.
        let mut revisions = self.caches.revisions.controlled_by(namespace, &uid);
        revisions.extend(self.caches.revisions.orphans(namespace));
        revisions.extend(self.caches.revisions.with_prefix(namespace, &format!("{name}-")));
        revisions.sort_by_key(|revision| revision.name_any());
        revisions.dedup_by_key(|revision| revision.name_any());
        let revisions: Vec<&ControllerRevision> = revisions.iter().map(|one| &**one).collect();
        let nodes = self.caches.nodes.all();
        let nodes: Vec<&Node> = nodes.iter().map(|node| &**node).collect();
        let back_offs = self.lock().get(&uid).cloned().unwrap_or_default();
        let plan = plan(&Observed {
            set: &set,
            revisions: &revisions,
            pods: &pods,
            nodes: &nodes,
            back_offs: &back_offs,
            now: (self.clock)(),
        });
        for telling in &plan.tellings {
            self.pods.recorder.tell(&*set, telling.kind, &telling.reason, &telling.message);
        }
        self.remember(uid, plan.back_offs.clone());
        let acted = self.act(&set, &plan).await;
        // The status is told also when an action failed.
        self.write_status(&set, plan.status).await?;
        acted?;
        Ok(plan.look_again_after)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, BackOffs>> {
        self.back_offs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, uid: String, back_offs: BackOffs) {
        let mut all = self.lock();
        // Most sets have nothing to be remembered: no pod of theirs fails.
        if back_offs == BackOffs::default() {
            all.remove(&uid);
        } else if all.insert(uid, back_offs).is_none() {
            // Those of sets that are gone: few are ever here, and this is rare.
            let sets = self.caches.daemon_sets.all();
            let living: HashSet<Option<String>> = sets.iter().map(|set| set.uid()).collect();
            all.retain(|uid, _| living.contains(&Some(uid.clone())));
        }
    }

    async fn act(&self, set: &DaemonSet, plan: &Plan) -> Result<(), String> {
        let (mut made, mut deleted) = (Vec::new(), Vec::new());
        for action in &plan.actions {
            match action {
                Action::AdoptPod { name, uid } => {
                    let reference = controller_reference(set);
                    self.pods.adopt(set, &reference, (name, uid), None).await?;
                }
                Action::ReleasePod { name, uid } => {
                    self.pods.release(set, (name, uid), None).await?;
                }
                Action::CreatePod(pod) => made.push(&**pod),
                Action::DeletePod { name, uid } => deleted.push((name.as_str(), uid.as_str())),
                Action::ForcePod { name, uid, node } => self.force(set, (name, uid), node).await?,
                Action::CreateRevision(_)
                | Action::AdoptRevision { .. }
                | Action::RenumberRevision { .. }
                | Action::DeleteRevision { .. } => self.change_history(set, action).await?,
            }
        }
        self.pods.create(set, &made).await?;
        self.pods.delete(set, &deleted, None).await
    }

    /// A pod whose node does not exist has nobody to end it. The node is looked for once more: a cache may not have seen it.
    async fn force(&self, set: &DaemonSet, pod: (&str, &str), node: &str) -> Result<(), String> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        match nodes.get_opt(node).await {
            Ok(None) => self.pods.delete(set, &[pod], Some(0)).await,
            Ok(Some(_)) => Ok(()),
            Err(error) => Err(words(&error)),
        }
    }

    async fn change_history(&self, set: &DaemonSet, action: &Action) -> Result<(), String> {
        let namespace = set.namespace().unwrap_or_default();
        let api: Api<ControllerRevision> = Api::namespaced(self.client.clone(), &namespace);
        let patch = async |name: &str, change: serde_json::Value| {
            api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await
        };
        let result = match action {
            Action::CreateRevision(revision) => api.create(&PostParams::default(), revision).await,
            Action::AdoptRevision { name } => {
                let owners = json!([controller_reference(set)]);
                patch(name, json!({"metadata": {"ownerReferences": owners}})).await
            }
            Action::RenumberRevision { name, revision } => {
                patch(name, json!({"revision": revision})).await
            }
            Action::DeleteRevision { name } => {
                return match api.delete(name, &DeleteParams::default()).await {
                    Err(error) if !is_settled(&error) => Err(words(&error)),
                    _ => Ok(()),
                };
            }
            Action::AdoptPod { .. }
            | Action::ReleasePod { .. }
            | Action::CreatePod(_)
            | Action::DeletePod { .. }
            | Action::ForcePod { .. } => return Ok(()),
        };
        let changed = result.map_err(|error| words(&error))?;
        self.caches.revisions.wait_for_write(&changed).await;
        Ok(())
    }

    /// Writes the status, if it differs. When somebody else wrote meanwhile, the next look writes it.
    async fn write_status(&self, set: &DaemonSet, status: DaemonSetStatus) -> Result<(), String> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<DaemonSet> =
            Api::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        let mut new = set.clone();
        new.status = Some(status);
        match api.replace_status(&set.name_any(), &PostParams::default(), &new).await {
            Ok(written) => {
                self.caches.daemon_sets.wait_for_write(&written).await;
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(words(&error)),
        }
    }
}
