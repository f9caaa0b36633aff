//! Which volume a claim could have, and why not (G1).

use super::claims::Case;
use super::world::{name, space};
use crate::finding::{Evidence, Step, evidence, step};
use api::quantity::Quantity;
use api::selector::label::LabelSelector;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

/// How many volumes are explained.
const MOST: usize = 10;

impl Case<'_> {
    /// What it asks for, in a line.
    pub(super) fn wish(&self) -> String {
        let modes =
            self.claim.spec.as_ref().and_then(|spec| spec.access_modes.clone()).unwrap_or_default();
        let selector = self.claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let selector = selector.map_or(String::new(), |selector| {
            format!(", selector {}", LabelSelector::of(Some(selector)))
        });
        format!(
            "asks for {}, {}, class {:?}{selector}",
            self.size(),
            modes.join("+"),
            self.class().unwrap_or_default()
        )
    }

    pub(super) fn size(&self) -> Quantity {
        let requests =
            self.claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
        requests
            .and_then(|requests| requests.get("storage"))
            .and_then(|size| Quantity::parse(&size.0).ok())
            .unwrap_or(Quantity::ZERO)
    }

    /// Each volume with why it does not fit.
    pub(super) fn explained(&self) -> Vec<Evidence> {
        let volumes = self.world.0.volumes.as_deref().unwrap_or_default();
        volumes
            .iter()
            .take(MOST)
            .map(|volume| {
                evidence(
                    format!("volume {}", name(&volume.metadata)),
                    &format!("does not fit: {}", self.unfit(volume).join(", ")),
                )
            })
            .collect()
    }

    /// Why a volume does not fit; empty if it does.
    pub(super) fn unfit(&self, volume: &PersistentVolume) -> Vec<String> {
        let (Some(has), Some(wants)) = (&volume.spec, &self.claim.spec) else { return Vec::new() };
        if let Some(owner) = taken(volume, self.claim) {
            return vec![format!("it belongs to {owner}")];
        }
        if volume.metadata.deletion_timestamp.is_some() {
            return vec!["it is being deleted".to_owned()];
        }
        if has.claim_ref.is_some() {
            return Vec::new(); // Promised to this very claim; a pre-bound pair is not asked for more.
        }
        let mut reasons = Vec::new();
        let class = has.storage_class_name.as_deref().unwrap_or_default();
        if class != self.class().unwrap_or_default() {
            reasons.push(format!(
                "its class is {class:?}, not {:?}",
                self.class().unwrap_or_default()
            ));
        }
        let size = has
            .capacity
            .as_ref()
            .and_then(|all| all.get("storage"))
            .and_then(|size| Quantity::parse(&size.0).ok())
            .unwrap_or(Quantity::ZERO);
        if size < self.size() {
            reasons.push(format!("it has {size}, not {}", self.size()));
        }
        let modes = has.access_modes.as_deref().unwrap_or_default();
        for mode in wants.access_modes.iter().flatten().filter(|mode| !modes.contains(mode)) {
            reasons.push(format!("it has not the access mode {mode}"));
        }
        let (mode, wanted) = (
            has.volume_mode.as_deref().unwrap_or("Filesystem"),
            wants.volume_mode.as_deref().unwrap_or("Filesystem"),
        );
        if mode != wanted {
            reasons.push(format!("it is a {mode}, not a {wanted}"));
        }
        if let Some(selector) = &wants.selector {
            let selector = LabelSelector::of(Some(selector));
            if !selector.matches_optional(volume.metadata.labels.as_ref()) {
                reasons.push(format!("its labels do not match the claim's selector {selector}"));
            }
        }
        reasons
    }

    pub(super) fn by_hand(&self, sentence: &str) -> Step {
        let volume = format!("{}-{}", space(&self.claim.metadata), self.claim_name());
        step(sentence, self.volume_manifest(&volume))
    }

    /// A volume for this claim alone.
    pub(super) fn volume_manifest(&self, volume: &str) -> String {
        let modes =
            self.claim.spec.as_ref().and_then(|spec| spec.access_modes.clone()).unwrap_or_default();
        let (space, claim) = (space(&self.claim.metadata), self.claim_name());
        format!(
            "kubectl apply -f - <<'END'\napiVersion: v1\nkind: PersistentVolume\nmetadata:\n  name: {volume}\nspec:\n  capacity:\n    storage: {}\n  accessModes: [{}]\n  storageClassName: \"{}\"\n  persistentVolumeReclaimPolicy: Retain\n  claimRef:\n    namespace: {space}\n    name: {claim}\n  hostPath:\n    path: /var/lib/volumes/{volume}\n    type: DirectoryOrCreate\nEND",
            self.size(),
            modes.join(", "),
            self.class().unwrap_or_default()
        )
    }
}

/// Whose a volume is, if it is another's.
pub(super) fn taken(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<String> {
    let owner = volume.spec.as_ref()?.claim_ref.as_ref()?;
    let same = owner.name == claim.metadata.name
        && owner.namespace == claim.metadata.namespace
        && owner
            .uid
            .as_ref()
            .is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref());
    let phase =
        volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let gone =
        if phase == "Released" { ", which is gone; its data are kept (Released)" } else { "" };
    (!same).then(|| {
        format!(
            "claim {}/{}{gone}",
            owner.namespace.as_deref().unwrap_or_default(),
            owner.name.as_deref().unwrap_or_default()
        )
    })
}
