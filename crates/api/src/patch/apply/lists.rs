//! How lists and maps merge when a configuration is applied. As upstream: `x-kubernetes-list-type`,
//! `x-kubernetes-list-map-keys` and `x-kubernetes-map-type` of the OpenAPI document. A list that is not named here is
//! replaced whole; a map or structure that is not named here is merged.

/// How a list merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merging {
    /// Replaced whole.
    Atomic,
    /// Plain values, each once.
    Set,
    /// Objects, told apart by these fields.
    Keyed(&'static [&'static str]),
}

use Merging::{Keyed, Set};

const NAME: Merging = Keyed(&["name"]);
const TYPE: Merging = Keyed(&["type"]);
const PORTS: Merging = Keyed(&["containerPort", "protocol"]);

/// Types by the last part of their OpenAPI name, a field of each, and how it merges.
const LISTS: &[(&str, &str, Merging)] = &[
    ("ObjectMeta", "finalizers", Set),
    ("ObjectMeta", "ownerReferences", Keyed(&["uid"])),
    ("NamespaceStatus", "conditions", TYPE),
    ("NodeSpec", "podCIDRs", Set),
    ("NodeStatus", "addresses", TYPE),
    ("NodeStatus", "conditions", TYPE),
    ("PersistentVolumeClaimStatus", "conditions", TYPE),
    ("VolumeHealthStatus", "healthConditions", Keyed(&["status", "reason"])),
    ("PodSpec", "containers", NAME),
    ("PodSpec", "ephemeralContainers", NAME),
    ("PodSpec", "evictionResponders", NAME),
    ("PodSpec", "hostAliases", Keyed(&["ip"])),
    ("PodSpec", "imagePullSecrets", NAME),
    ("PodSpec", "initContainers", NAME),
    ("PodSpec", "resourceClaims", NAME),
    ("PodSpec", "schedulingGates", NAME),
    ("PodSpec", "topologySpreadConstraints", Keyed(&["topologyKey", "whenUnsatisfiable"])),
    ("PodSpec", "volumes", NAME),
    ("Container", "env", NAME),
    ("Container", "ports", PORTS),
    ("Container", "volumeDevices", Keyed(&["devicePath"])),
    ("Container", "volumeMounts", Keyed(&["mountPath"])),
    ("EphemeralContainer", "env", NAME),
    ("EphemeralContainer", "ports", PORTS),
    ("EphemeralContainer", "volumeDevices", Keyed(&["devicePath"])),
    ("EphemeralContainer", "volumeMounts", Keyed(&["mountPath"])),
    ("ResourceRequirements", "claims", NAME),
    ("ContainerRestartRuleOnExitCodes", "values", Set),
    ("VolumeMount", "bindMountOptions", Set),
    ("PodStatus", "conditions", TYPE),
    ("PodStatus", "nodeAllocatableResourceClaimStatuses", Keyed(&["resourceClaimName"])),
    ("PodStatus", "podIPs", Keyed(&["ip"])),
    ("PodStatus", "resourceClaimStatuses", NAME),
    ("PodStatus", "volumeHealth", NAME),
    ("PodVolumeHealth", "healthConditions", Keyed(&["status", "reason"])),
    ("ContainerStatus", "allocatedResourcesStatus", NAME),
    ("ContainerStatus", "volumeMounts", Keyed(&["mountPath"])),
    ("ResourceStatus", "resources", Keyed(&["resourceID"])),
    ("NodeAllocatableResourceClaimStatus", "containers", Set),
    ("NodeAllocatableResourceClaimStatus", "mapping", NAME),
    ("NodeAllocatableResourceClaimStatus", "overhead", NAME),
    ("ServiceAccount", "secrets", NAME),
    ("ServiceSpec", "ports", Keyed(&["port", "protocol"])),
    ("ServiceStatus", "conditions", TYPE),
    ("StatefulSetStatus", "conditions", TYPE),
    ("DeploymentStatus", "conditions", TYPE),
    ("ReplicaSetStatus", "conditions", TYPE),
    ("DaemonSetStatus", "conditions", TYPE),
    ("PodFailurePolicyOnExitCodesRequirement", "values", Set),
    ("UncountedTerminatedPods", "failed", Set),
    ("UncountedTerminatedPods", "succeeded", Set),
    ("PodDisruptionBudgetStatus", "conditions", TYPE),
    ("Endpoint", "addresses", Set),
];

/// Structures that are replaced whole.
const ATOMIC: &[&str] = &[
    "ConfigMapKeySelector",
    "EndpointAddress",
    "EndpointPort",
    "EvictionResponder",
    "FileKeySelector",
    "LabelSelector",
    "LocalObjectReference",
    "NodeSelector",
    "NodeSelectorTerm",
    "ObjectFieldSelector",
    "ObjectReference",
    "OwnerReference",
    "ResourceFieldSelector",
    "SecretKeySelector",
    "SecretReference",
    "TopologySelectorTerm",
    "TypedLocalObjectReference",
];

/// Maps that are replaced whole.
const ATOMIC_MAPS: &[(&str, &str)] = &[("PodSpec", "nodeSelector"), ("ServiceSpec", "selector")];

/// Structures whose key fields have no default: an element that leaves them all out is refused.
pub(super) const KEYS_WITHOUT_DEFAULT: &[&str] = &["ObjectReference"];

/// How the list at this field of a type (the last part of its OpenAPI name) merges.
pub fn merging(owner: &str, field: &str) -> Merging {
    LISTS
        .iter()
        .find(|(name, list, _)| (*name, *list) == (owner, field))
        .map_or(Merging::Atomic, |(_, _, merging)| *merging)
}

/// Whether a structure (the last part of its OpenAPI name) is replaced whole.
pub fn is_atomic(name: &str) -> bool {
    ATOMIC.contains(&name)
}

/// Whether the map at this field of a type is replaced whole.
pub fn is_atomic_map(owner: &str, field: &str) -> bool {
    ATOMIC_MAPS.contains(&(owner, field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn every_row_names_what_exists() {
        let document = crate::openapi::v2(crate::kinds::KINDS);
        let definitions = document["definitions"].as_object().unwrap();
        let short = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
        let found = |owner: &str| -> Option<&Value> {
            definitions.iter().find(|(name, _)| short(name) == owner).map(|(_, schema)| schema)
        };
        let mut rows = 0;
        for (owner, field, merging) in LISTS {
            // A type that no kind which is served today leads to.
            let Some(schema) = found(owner) else { continue };
            rows += 1;
            let property = &schema["properties"][*field];
            assert_eq!(property["type"], "array", "{owner}.{field}");
            if let Keyed(keys) = merging {
                let element = property["items"]["$ref"].as_str().map(&short).unwrap();
                for key in *keys {
                    let fields = &found(&element).unwrap()["properties"];
                    assert!(!fields[*key].is_null(), "{owner}.{field}: {key}");
                }
            }
        }
        assert!(rows > 30, "{rows}");
        for (owner, field) in ATOMIC_MAPS {
            assert_eq!(
                found(owner).unwrap()["properties"][*field]["type"],
                "object",
                "{owner}.{field}"
            );
        }
    }
}
