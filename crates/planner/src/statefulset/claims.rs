//! Claims: one per template and ordinal, by exact name. As upstream: `stateful_set_utils.go`, KEP-1847.

use super::identity::{self, controller};
use super::{Action, Observed, Problem};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// The set's claim templates.
pub(super) fn templates(set: &StatefulSet) -> impl Iterator<Item = &PersistentVolumeClaim> {
    set.spec.volume_claim_templates.iter().flatten()
}

/// The name of an ordinal's claim.
pub fn name(template: &PersistentVolumeClaim, set: &StatefulSet, ordinal: i64) -> String {
    format!(
        "{}-{}-{ordinal}",
        template.metadata.name.as_deref().unwrap_or_default(),
        identity::set_name(set)
    )
}

/// The claims that an ordinal wants.
pub(super) fn wanted(set: &StatefulSet, ordinal: i64) -> Vec<PersistentVolumeClaim> {
    templates(set)
        .map(|template| {
            let mut labels = template.metadata.labels.clone().unwrap_or_default();
            labels.extend(set.spec.selector.match_labels.clone().unwrap_or_default());
            let owners: Vec<OwnerReference> =
                if policy(set).0 { vec![set_reference(set)] } else { Vec::new() };
            PersistentVolumeClaim {
                metadata: ObjectMeta {
                    name: Some(name(template, set, ordinal)),
                    namespace: set.metadata.namespace.clone(),
                    labels: Some(labels),
                    annotations: template.metadata.annotations.clone(),
                    owner_references: (!owners.is_empty()).then_some(owners),
                    ..ObjectMeta::default()
                },
                spec: template.spec.clone(),
                status: None,
            }
        })
        .collect()
}

/// The claim of that name, if it exists.
pub(super) fn find<'a>(
    observed: &Observed<'a>,
    wanted: &PersistentVolumeClaim,
) -> Option<&'a PersistentVolumeClaim> {
    observed.claims.get(wanted.metadata.name.as_deref()?).copied()
}

/// Whether a claim is to go with a pod of this name that is no more (the pod is about to be made anew).
pub(super) fn belongs_to_a_dead_pod(claim: &PersistentVolumeClaim, pod: &str) -> bool {
    claim
        .metadata
        .owner_references
        .iter()
        .flatten()
        .any(|owner| owner.kind == "Pod" && owner.name == pod)
}

/// Whether a claim is to go with a former set of this name.
pub(super) fn belongs_to_a_dead_set(claim: &PersistentVolumeClaim, set: &StatefulSet) -> bool {
    claim.metadata.owner_references.iter().flatten().any(|owner| {
        owner.kind == "StatefulSet"
            && owner.name == identity::set_name(set)
            && Some(&owner.uid) != set.metadata.uid.as_ref()
    })
}

/// Whether claims go with the set, and with a scale-down.
fn policy(set: &StatefulSet) -> (bool, bool) {
    let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
    let deletes = |when: Option<&String>| when.is_some_and(|when| when == "Delete");
    (
        deletes(policy.and_then(|p| p.when_deleted.as_ref())),
        deletes(policy.and_then(|p| p.when_scaled.as_ref())),
    )
}

fn set_reference(set: &StatefulSet) -> OwnerReference {
    OwnerReference { block_owner_deletion: None, ..identity::controller_reference(set) }
}

/// Who should own the claims of a pod, where that differs from who does.
pub(super) fn ownership(
    observed: &Observed<'_>,
    ordinal: i64,
    pod: &Pod,
    condemned: bool,
) -> (Vec<Action>, Vec<Problem>) {
    let set = observed.set;
    let (with_set, with_scale) = policy(set);
    let (mut actions, mut problems) = (Vec::new(), Vec::new());
    for claim in templates(set).filter_map(|template| {
        let name = name(template, set, ordinal);
        observed.claims.get(name.as_str()).copied()
    }) {
        let set_uid = set.metadata.uid.clone().unwrap_or_default();
        let claim_name = claim.metadata.name.clone().unwrap_or_default();
        if controller(&claim.metadata)
            .is_some_and(|owner| owner.uid != set_uid && owner.uid != identity::uid(pod))
        {
            if with_set || with_scale {
                let message = format!(
                    "PersistentVolumeClaim {claim_name} has a conflicting OwnerReference that acts as a managing controller, the retention policy is ignored for this claim"
                );
                problems.push(Problem { reason: "ConflictingController", message });
            }
            continue;
        }
        let by_pod = condemned && with_scale;
        let by_set = with_set && !by_pod;
        let before = claim.metadata.owner_references.clone().unwrap_or_default();
        let mut owners: Vec<OwnerReference> = before
            .iter()
            .filter(|owner| {
                (by_pod || owner.uid != identity::uid(pod)) && (by_set || owner.uid != set_uid)
            })
            .cloned()
            .collect();
        if by_set && owners.iter().all(|owner| owner.uid != set_uid) {
            owners.push(set_reference(set));
        }
        if by_pod && owners.iter().all(|owner| owner.uid != identity::uid(pod)) {
            owners.push(OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: identity::name(pod).to_owned(),
                uid: identity::uid(pod).to_owned(),
                controller: Some(true),
                block_owner_deletion: None,
            });
        }
        if owners != before {
            actions.push(Action::UpdateClaimOwners {
                name: claim_name,
                uid: claim.metadata.uid.clone().unwrap_or_default(),
                owners,
            });
        }
    }
    (actions, problems)
}
