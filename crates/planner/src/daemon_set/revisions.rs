//! Revisions of a set's template, for `kubectl rollout history` and `undo`. As upstream: `constructHistory`,
//! `cleanupHistory`.

use super::pods::{controller_reference, selector};
use super::{Action, HASH_LABEL, Observed};
use crate::workload::controller;
use crate::workload::hash;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

/// The set's history.
pub(super) struct History<'a> {
    /// The hashes of revisions that hold the set's template; the first is that of new pods.
    pub(super) hashes: Vec<String>,
    /// The others, oldest first.
    old: Vec<&'a ControllerRevision>,
    pub(super) collision_count: i32,
    pub(super) actions: Vec<Action>,
}

fn name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

/// A revision's hash: by its label, or else by its name.
fn hash_of(revision: &ControllerRevision) -> String {
    let labels = revision.metadata.labels.as_ref();
    let label = labels.and_then(|labels| labels.get(HASH_LABEL)).cloned();
    label.unwrap_or_else(|| name(revision).to_owned())
}

/// Whether a revision holds this template: by meaning, so that a server that writes it otherwise rolls nothing.
fn holds(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    let held = revision.data.0.pointer("/spec/template").cloned().and_then(|mut held| {
        held.as_object_mut()?.remove("$patch");
        serde_json::from_value::<PodTemplateSpec>(held).ok()
    });
    held.is_some_and(|held| held == *template)
}

/// The data of a revision: a patch that replaces the template.
pub(super) fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if let Value::Object(fields) = &mut template {
        fields.insert("$patch".to_owned(), json!("replace"));
    }
    json!({"spec": {"template": template}})
}

/// Chooses (and where need be makes) the revision of the set's template.
pub(super) fn choose<'a>(observed: &Observed<'a>) -> History<'a> {
    let set = observed.set;
    let template = set.spec.template.clone();
    let selector = selector(set);
    let mut actions = Vec::new();
    let (mut current, mut old): (Vec<&ControllerRevision>, Vec<&ControllerRevision>) =
        (Vec::new(), Vec::new());
    for revision in observed.revisions.iter().copied() {
        let owner = controller(&revision.metadata);
        let is_own = owner.is_some_and(|owner| Some(&owner.uid) == set.metadata.uid.as_ref());
        let is_orphan = owner.is_none()
            && revision.metadata.deletion_timestamp.is_none()
            && selector.matches_optional(revision.metadata.labels.as_ref());
        if is_orphan {
            actions.push(Action::AdoptRevision { name: name(revision).to_owned() });
        }
        if is_own || is_orphan {
            if holds(revision, &template) { &mut current } else { &mut old }.push(revision);
        }
    }
    old.sort_by_key(|revision| (revision.revision, name(revision)));
    current.sort_by_key(|revision| (revision.revision, name(revision)));
    let number = old.last().and_then(|newest| newest.revision).unwrap_or(0) + 1;
    let mut collision_count =
        set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let mut hashes: Vec<String> = current.iter().rev().map(|one| hash_of(one)).collect();
    match current.last() {
        Some(newest) if newest.revision.unwrap_or(0) < number => {
            let name = name(newest).to_owned();
            actions.push(Action::RenumberRevision { name, revision: number });
        }
        Some(_) => {}
        None => {
            let data = data(&template);
            let hash = loop {
                let hash = hash(&data, collision_count);
                let wanted = revision_name(set, &hash);
                if observed.revisions.iter().all(|other| name(other) != wanted) {
                    break hash;
                }
                collision_count = collision_count.saturating_add(1);
            };
            let revision = new_revision(set, &template, data, &hash, number);
            actions.push(Action::CreateRevision(Box::new(revision)));
            hashes.push(hash);
        }
    }
    History { hashes, old, collision_count, actions }
}

fn revision_name(set: &DaemonSet, hash: &str) -> String {
    format!("{}-{hash}", set.metadata.name.as_deref().unwrap_or_default())
}

fn new_revision(
    set: &DaemonSet,
    template: &PodTemplateSpec,
    data: Value,
    hash: &str,
    number: i64,
) -> ControllerRevision {
    let template = template.metadata.as_ref();
    let mut labels = template.and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(revision_name(set, hash)),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: set.metadata.annotations.clone(),
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        data: RawExtension(data),
        revision: Some(number),
    }
}

impl History<'_> {
    /// Old revisions beyond the limit that no pod lives by.
    pub(super) fn superfluous(&self, observed: &Observed<'_>, pods: &[&Pod]) -> Vec<Action> {
        let limit = observed.set.spec.revision_history_limit.unwrap_or(10);
        let Ok(limit) = usize::try_from(limit) else { return Vec::new() };
        let lives = |revision: &ControllerRevision| {
            let hash = hash_of(revision);
            pods.iter().any(|pod| {
                let labels = pod.metadata.labels.as_ref();
                labels.and_then(|labels| labels.get(HASH_LABEL)) == Some(&hash)
            })
        };
        let surplus = self.old.len().saturating_sub(limit);
        self.old
            .iter()
            .filter(|revision| !lives(revision) && revision.metadata.deletion_timestamp.is_none())
            .take(surplus)
            .map(|revision| Action::DeleteRevision { name: name(revision).to_owned() })
            .collect()
    }
}
