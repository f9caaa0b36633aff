//! Claims that no pod will come back for (G3).

use super::claims::object_of;
use super::scope::{Scope, mounts, names_claim};
use super::world::{World, duration, listed, name, object, ordinal, space, wanted};
use crate::finding::{Evidence, Finding, ObjectName, Severity, evidence};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

/// Claims of ordinals that their sets no longer want, and of sets that are gone.
pub(super) fn look(world: World<'_>, scope: &Scope<'_>) -> Vec<Finding> {
    if world.0.pods.is_none() || world.0.sets.is_none() {
        return Vec::new();
    }
    let unused: Vec<&PersistentVolumeClaim> =
        world.claims().iter().filter(|claim| is_unused(world, claim)).collect();
    let mut findings: Vec<Finding> = world
        .sets()
        .iter()
        .filter_map(|set| {
            let left: Vec<&PersistentVolumeClaim> = unused
                .iter()
                .copied()
                .filter(|claim| belongs(world, claim, set))
                .filter(|claim| scope.is_asked_or_all(set) || scope.has_claim(claim))
                .collect();
            (!left.is_empty()).then(|| after_scaling(world, set, &left))
        })
        .collect();
    if world.0.workloads.is_some() {
        let orphans: Vec<&PersistentVolumeClaim> = unused
            .iter()
            .copied()
            .filter(|claim| scope.has_claim(claim))
            .filter(|claim| looks_made_by_a_set(claim))
            .filter(|claim| !world.sets().iter().any(|set| places(claim, set).next().is_some()))
            .collect();
        let mut spaces: Vec<&str> = orphans.iter().map(|claim| space(&claim.metadata)).collect();
        spaces.sort_unstable();
        spaces.dedup();
        for here in spaces {
            let own: Vec<&PersistentVolumeClaim> =
                orphans.iter().copied().filter(|claim| space(&claim.metadata) == here).collect();
            findings.push(of_no_set(world, here, &own));
        }
    }
    findings
}

/// Ordinals at which a claim is one of a set's.
fn places<'a>(
    claim: &'a PersistentVolumeClaim,
    set: &'a StatefulSet,
) -> impl Iterator<Item = i64> + 'a {
    let templates = set.spec.volume_claim_templates.iter().flatten();
    templates.filter_map(move |template| {
        let same = claim.metadata.namespace == set.metadata.namespace;
        let prefix = format!("{}-{}", name(&template.metadata), name(&set.metadata));
        ordinal(&prefix, name(&claim.metadata)).filter(|_| same)
    })
}

/// Whether a claim is a set's, and no set wants it. A name may be that of two sets' claims: `data-foo` of `web` and
/// `data` of `foo-web` both make `data-foo-web-0`.
fn belongs(world: World<'_>, claim: &PersistentVolumeClaim, set: &StatefulSet) -> bool {
    let is_wanted =
        |set: &StatefulSet| places(claim, set).any(|ordinal| wanted(set).contains(&ordinal));
    places(claim, set).next().is_some()
        && set.metadata.deletion_timestamp.is_none()
        && !world.sets().iter().any(is_wanted)
}

fn is_unused(world: World<'_>, claim: &PersistentVolumeClaim) -> bool {
    let claim_name = name(&claim.metadata);
    let same = |other: &Option<String>| *other == claim.metadata.namespace;
    let owned = claim.metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
    let mounted =
        world.pods().iter().any(|pod| same(&pod.metadata.namespace) && mounts(pod, claim_name));
    let named = world.0.workloads.iter().flatten().any(|workload| {
        same(&workload.metadata.namespace)
            && workload.pod.as_ref().is_some_and(|pod| names_claim(pod, claim_name))
    }) || world.sets().iter().any(|set| {
        same(&set.metadata.namespace)
            && set.spec.template.spec.as_ref().is_some_and(|pod| names_claim(pod, claim_name))
    });
    claim.metadata.deletion_timestamp.is_none() && !owned && !mounted && !named
}

/// A set gives its claims the labels of its selector, and a name that ends in an ordinal.
fn looks_made_by_a_set(claim: &PersistentVolumeClaim) -> bool {
    let labelled = claim.metadata.labels.as_ref().is_some_and(|labels| !labels.is_empty());
    let parts: Vec<&str> = name(&claim.metadata).rsplitn(2, '-').collect();
    let [number, rest] = parts.as_slice() else { return false };
    labelled
        && rest.contains('-')
        && ordinal(rest, name(&claim.metadata)).is_some()
        && !number.is_empty()
}

fn after_scaling(world: World<'_>, set: &StatefulSet, left: &[&PersistentVolumeClaim]) -> Finding {
    let (set_name, replicas) = (name(&set.metadata), wanted(set).count());
    let range = wanted(set);
    let pods = match replicas {
        0 => "has no pods".to_owned(),
        1 => format!("has only {set_name}-{}", range.start),
        _ => format!("has only {set_name}-{} to {set_name}-{}", range.start, range.end - 1),
    };
    told(world, object("StatefulSet", &set.metadata), left, format!("{} of {set_name} {} left over", count(left.len()), if left.len() == 1 { "is" } else { "are" }))
        .because(format!("{set_name} {pods}; a set that is scaled down keeps the claims of the others, so that their data are there if it is scaled up again."))
        .hint("Next time, persistentVolumeClaimRetentionPolicy: {whenScaled: Delete} in the set does that by itself")
}

fn of_no_set(world: World<'_>, here: &str, left: &[&PersistentVolumeClaim]) -> Finding {
    let object = match left {
        [one] => object_of(one),
        _ => ObjectName { kind: "Namespace", namespace: None, name: here.to_owned() },
    };
    told(world, object, left, format!("{} {} to no set, pod or workload", count(left.len()), if left.len() == 1 { "belongs" } else { "belong" }))
        .because("They have names and labels as a set gives them, and that set is gone: deleting a set keeps its claims, so that a new set of its name finds its data.")
}

fn count(claims: usize) -> String {
    if claims == 1 { "1 claim".to_owned() } else { format!("{claims} claims") }
}

fn told(
    world: World<'_>,
    object: ObjectName,
    left: &[&PersistentVolumeClaim],
    summary: String,
) -> Finding {
    let names: Vec<String> = left.iter().map(|claim| name(&claim.metadata).to_owned()).collect();
    let here = space(&left[0].metadata);
    let kept: Vec<String> = left
        .iter()
        .filter(|claim| is_retained(world, claim))
        .filter_map(|claim| claim.spec.as_ref()?.volume_name.clone())
        .collect();
    let finding = Finding::new("leftover-claims", Severity::Advice, object, summary)
        .seen_all(left.iter().map(|claim| shown(world, claim)))
        .step(
            "If nobody needs their data any more, delete them: the data are lost for good",
            format!("kubectl delete pvc -n {here} {}", names.join(" ")),
        );
    match kept.is_empty() {
        true => finding,
        false => finding.step(
            format!("The reclaim policy of {} is Retain: delete the volumes too, and what is on their disks", listed(&kept)),
            format!("kubectl delete pv {}", kept.join(" ")),
        ),
    }
}

fn is_retained(world: World<'_>, claim: &PersistentVolumeClaim) -> bool {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    world.0.volumes.iter().flatten().any(|volume| {
        wanted == Some(name(&volume.metadata))
            && volume
                .spec
                .as_ref()
                .and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref())
                == Some("Retain")
    })
}

fn shown(world: World<'_>, claim: &PersistentVolumeClaim) -> Evidence {
    let has = claim.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage"));
    let asks = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"));
    let size = has.or(asks).map_or("unknown size", |size| size.0.as_str());
    let age = duration(world.age(claim.metadata.creation_timestamp.as_ref()));
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or("none");
    evidence(
        format!("claim {}", name(&claim.metadata)),
        &format!("{size}, {age} old, volume {volume}"),
    )
}
