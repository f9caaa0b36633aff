//! Which volume a claim gets. As upstream: `pkg/controller/volume/persistentvolume` (T124-T126).

use api::quantity::Quantity;
use api::selector::label::LabelSelector;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

/// The node that a claim is provisioned for.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Who provisioned a volume.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The binding was made by a controller, not asked for.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The binding is complete.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

/// The storage among amounts; zero if there is none.
pub fn storage(
    amounts: Option<
        &std::collections::BTreeMap<
            String,
            k8s_openapi::apimachinery::pkg::api::resource::Quantity,
        >,
    >,
) -> Quantity {
    amounts
        .and_then(|amounts| amounts.get("storage"))
        .and_then(|amount| Quantity::parse(&amount.0).ok())
        .unwrap_or(Quantity::ZERO)
}

/// What a claim asks for.
pub fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    storage(
        claim
            .spec
            .as_ref()
            .and_then(|spec| spec.resources.as_ref())
            .and_then(|resources| resources.requests.as_ref()),
    )
}

/// What a volume has.
pub fn capacity(volume: &PersistentVolume) -> Quantity {
    storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()))
}

/// Whether a volume is promised to a claim: by name, and by uid where one is given.
pub fn is_reserved_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|reference| {
        let same_uid = reference
            .uid
            .as_ref()
            .is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref());
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && same_uid
    })
}

/// Whether a volume is bound to this very claim.
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    is_reserved_for(volume, claim)
        && volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()?.uid.as_ref())
            == claim.metadata.uid.as_ref()
}

fn fits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(has), Some(wants)) = (volume.spec.as_ref(), claim.spec.as_ref()) else {
        return false;
    };
    let modes = wants
        .access_modes
        .iter()
        .flatten()
        .all(|mode| has.access_modes.iter().flatten().any(|other| other == mode));
    let volume_mode = has.volume_mode.as_deref().unwrap_or("Filesystem")
        == wants.volume_mode.as_deref().unwrap_or("Filesystem");
    modes
        && volume_mode
        && capacity(volume) >= requested(claim)
        && volume.metadata.deletion_timestamp.is_none()
}

/// The volume that a claim gets: one promised to it, else the smallest free one that satisfies it.
pub fn choose<'a>(
    claim: &PersistentVolumeClaim,
    volumes: &[&'a PersistentVolume],
) -> Option<&'a PersistentVolume> {
    let spec = claim.spec.as_ref()?;
    if let Some(name) = spec.volume_name.as_deref().filter(|name| !name.is_empty()) {
        let named = volumes.iter().find(|volume| volume.metadata.name.as_deref() == Some(name))?;
        let free = named.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none());
        return (free || is_reserved_for(named, claim)).then_some(*named);
    }
    // A pre-bound pair is not asked for its class.
    if let Some(promised) = volumes
        .iter()
        .filter(|volume| is_reserved_for(volume, claim))
        .min_by_key(|volume| capacity(volume))
    {
        return Some(promised);
    }
    let class = spec.storage_class_name.as_deref().unwrap_or_default();
    let selector = spec.selector.as_ref().map(|selector| LabelSelector::of(Some(selector)));
    volumes
        .iter()
        .copied()
        .filter(|volume| {
            volume.spec.as_ref().is_some_and(|spec| {
                spec.claim_ref.is_none()
                    && spec.storage_class_name.as_deref().unwrap_or_default() == class
            })
        })
        .filter(|volume| {
            selector
                .as_ref()
                .is_none_or(|selector| selector.matches_optional(volume.metadata.labels.as_ref()))
        })
        .filter(|volume| fits(volume, claim))
        .min_by_key(|volume| capacity(volume))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn volume(name: &str, size: &str, spec: Value) -> PersistentVolume {
        let mut whole = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "s"});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": whole})).unwrap()
    }

    fn chosen(spec: Value, volumes: &[PersistentVolume]) -> Option<String> {
        let mut whole = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "s", "resources": {"requests": {"storage": "5Gi"}}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let claim: PersistentVolumeClaim = serde_json::from_value(
            json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": whole}),
        )
        .unwrap();
        let volumes: Vec<&PersistentVolume> = volumes.iter().collect();
        choose(&claim, &volumes).and_then(|volume| volume.metadata.name.clone())
    }

    /// T125, T126, C5.
    #[test]
    fn the_smallest_that_satisfies_or_the_promised_one() {
        let free = [
            volume("small", "1Gi", json!({})),
            volume("big", "50Gi", json!({})),
            volume("right", "10Gi", json!({})),
            volume("other", "6Gi", json!({"storageClassName": "t"})),
        ];
        assert_eq!(chosen(json!({}), &free).as_deref(), Some("right"));
        assert_eq!(chosen(json!({"accessModes": ["ReadWriteMany"]}), &free), None);
        let promised = [
            free[2].clone(),
            volume(
                "mine",
                "1Gi",
                json!({"storageClassName": "x", "claimRef": {"name": "c", "namespace": "n"}}),
            ),
        ];
        assert_eq!(chosen(json!({}), &promised).as_deref(), Some("mine"));
        let used = [volume(
            "used",
            "10Gi",
            json!({"claimRef": {"name": "c", "namespace": "n", "uid": "old"}}),
        )];
        assert_eq!(chosen(json!({}), &used), None, "another's data is never handed out");
        assert_eq!(chosen(json!({"volumeName": "big"}), &free).as_deref(), Some("big"));
    }
}
