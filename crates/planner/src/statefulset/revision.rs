//! Revisions: which template a pod is made from. As upstream: `pkg/controller/history/controller_history.go`.

use super::identity::{self, Membership, REVISION_LABEL, controller};
use super::{Action, Observed};
use api::selector::label::LabelSelector;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

/// The label with a revision's hash.
pub const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// How much of a set's name a revision's name keeps.
const NAME_MAX: usize = 223;
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A template and the name of its revision.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template {
    pub(super) revision: String,
    pub(super) template: PodTemplateSpec,
}

/// The two revisions that matter.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    /// What pods are to become.
    pub(super) update: Template,
    /// What pods were before the update began.
    pub(super) current: Template,
    pub(super) collision_count: i32,
    pub(super) actions: Vec<Action>,
}

impl Choice {
    /// The template for a pod that is made now.
    pub(super) fn for_new_pod(&self, set: &StatefulSet, ordinal: i64) -> &Template {
        let strategy = set.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let is_rolling = strategy
            .and_then(|strategy| strategy.type_.as_deref())
            .is_none_or(|kind| kind == "RollingUpdate");
        let below = match rolling {
            Some(rolling) => i64::from(rolling.partition.unwrap_or(0)),
            None if is_rolling => {
                set.status.as_ref().and_then(|status| status.current_replicas).unwrap_or(0).into()
            }
            None => 0,
        };
        if ordinal < identity::start(set) + below { &self.current } else { &self.update }
    }
}

/// The data of a revision: a patch that replaces the template.
pub(super) fn data(set: &StatefulSet) -> Value {
    let mut template = serde_json::to_value(&set.spec.template).unwrap_or_default();
    if let Value::Object(fields) = &mut template {
        fields.insert("$patch".to_owned(), json!("replace"));
    }
    json!({"spec": {"template": template}})
}

/// FNV-1 (not 1a), 32 bit, over the data and the collision count, as a safe word.
pub(crate) fn hash(data: &Value, collision_count: i32) -> String {
    let text = format!("{data}{collision_count}");
    let hash = text
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| hash.wrapping_mul(0x0100_0193) ^ u32::from(byte));
    hash.to_string()
        .bytes()
        .map(|byte| ALPHABET[usize::from(byte) % ALPHABET.len()] as char)
        .collect()
}

fn revision_name(set: &StatefulSet, hash: &str) -> String {
    let name = identity::set_name(set);
    format!("{}-{hash}", &name[..name.len().min(NAME_MAX)])
}

fn is_own(set: &StatefulSet, revision: &ControllerRevision) -> bool {
    controller(&revision.metadata)
        .is_some_and(|owner| Some(&owner.uid) == set.metadata.uid.as_ref())
}

/// Whether a revision is nobody's and was made for a set like this: one that was deleted with its dependents orphaned.
fn is_orphan(set: &StatefulSet, revision: &ControllerRevision) -> bool {
    let selector = LabelSelector::of(Some(&set.spec.selector));
    controller(&revision.metadata).is_none()
        && revision.metadata.deletion_timestamp.is_none()
        && selector.matches_optional(revision.metadata.labels.as_ref())
}

/// The template that a revision's data holds.
fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// Whether a revision holds this template: by meaning, so that a server that writes a template otherwise rolls nothing.
fn holds(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    template_of(revision).is_some_and(|held| held == *template)
}

/// Chooses (and where need be makes) the revisions.
pub(super) fn choose(observed: &Observed<'_>) -> Choice {
    let set = observed.set;
    let template = set.spec.template.clone();
    let mut actions = Vec::new();
    let mut own: Vec<&ControllerRevision> = Vec::new();
    for revision in observed.revisions {
        if is_own(set, revision) {
            own.push(revision);
        } else if is_orphan(set, revision) {
            let name = revision.metadata.name.clone().unwrap_or_default();
            actions.push(Action::AdoptRevision { name });
            own.push(revision);
        }
    }
    own.sort_by(|a, b| (a.revision, &a.metadata.name).cmp(&(b.revision, &b.metadata.name)));
    let next_number = own.last().map_or(1, |revision| revision.revision.unwrap_or(0) + 1);
    let mut collision_count =
        set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let update = match own.iter().rev().find(|revision| holds(revision, &template)) {
        Some(found) => {
            let name = found.metadata.name.clone().unwrap_or_default();
            if found.revision != Some(next_number - 1) {
                // Back to an older template: it becomes the newest again.
                actions
                    .push(Action::RenumberRevision { name: name.clone(), revision: next_number });
            }
            name
        }
        None => {
            let data = data(set);
            let name = loop {
                let name = revision_name(set, &hash(&data, collision_count));
                let taken = observed
                    .revisions
                    .iter()
                    .any(|revision| revision.metadata.name.as_ref() == Some(&name));
                if !taken {
                    break name;
                }
                collision_count = collision_count.saturating_add(1);
            };
            actions.push(Action::CreateRevision(Box::new(new_revision(
                set,
                data,
                &name,
                next_number,
                collision_count,
            ))));
            name
        }
    };
    let update = Template { revision: update, template };
    let wanted =
        set.status.as_ref().and_then(|status| status.current_revision.clone()).unwrap_or_default();
    let current = own
        .iter()
        .find(|revision| revision.metadata.name.as_deref() == Some(&wanted))
        .and_then(|revision| Some(Template { revision: wanted, template: template_of(revision)? }))
        .unwrap_or_else(|| update.clone());
    Choice { update, current, collision_count, actions }
}

fn new_revision(
    set: &StatefulSet,
    data: Value,
    name: &str,
    number: i64,
    collision_count: i32,
) -> ControllerRevision {
    let template = set.spec.template.metadata.as_ref();
    let mut labels = template.and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), hash(&data, collision_count));
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: set.metadata.annotations.clone(),
            owner_references: Some(vec![identity::controller_reference(set)]),
            ..ObjectMeta::default()
        },
        data: RawExtension(data),
        revision: Some(number),
    }
}

/// Old revisions beyond the limit that nobody lives by.
pub(super) fn superfluous(
    observed: &Observed<'_>,
    members: &Membership<'_>,
    choice: &Choice,
) -> Vec<Action> {
    let set = observed.set;
    let limit = set.spec.revision_history_limit.unwrap_or(10);
    let Ok(limit) = usize::try_from(limit) else { return Vec::new() };
    let lives: Vec<&str> = members
        .pods()
        .filter_map(|pod| pod.metadata.labels.as_ref()?.get(REVISION_LABEL).map(String::as_str))
        .chain([choice.update.revision.as_str(), choice.current.revision.as_str()])
        .collect();
    let mut old: Vec<&ControllerRevision> = observed
        .revisions
        .iter()
        .filter(|revision| is_own(set, revision) && revision.metadata.deletion_timestamp.is_none())
        .filter(|revision| !lives.contains(&revision.metadata.name.as_deref().unwrap_or_default()))
        .collect();
    old.sort_by_key(|revision| revision.revision);
    let surplus = old.len().saturating_sub(limit);
    old.iter()
        .take(surplus)
        .map(|revision| Action::DeleteRevision {
            name: revision.metadata.name.clone().unwrap_or_default(),
        })
        .collect()
}
