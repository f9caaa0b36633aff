//! Which lists are merged, and by which key. As upstream: the `patchStrategy` and `patchMergeKey` tags of
//! `k8s.io/api/*/types.go`. Only types that lead to such a list are named; every other list is replaced whole.

/// What a field of a type is, for merging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// An object of this type.
    Object(&'static str),
    /// A list of objects of this type that is merged by this key.
    List(&'static str, &'static str),
    /// A list of objects of this type, or one of them, that is replaced whole.
    Atomic(&'static str),
    /// A list of plain values that is merged as a set.
    Set,
}

use Field::{Atomic, List, Object, Set};

/// Types, by the last part of their OpenAPI name, and their fields.
const TYPES: &[(&str, &[(&str, Field)])] = &[
    ("ObjectMeta", &[("finalizers", Set), ("ownerReferences", List("OwnerReference", "uid"))]),
    (
        "Pod",
        &[
            ("metadata", Object("ObjectMeta")),
            ("spec", Object("PodSpec")),
            ("status", Object("PodStatus")),
        ],
    ),
    ("PodTemplateSpec", &[("metadata", Object("ObjectMeta")), ("spec", Object("PodSpec"))]),
    (
        "PodSpec",
        &[
            ("containers", List("Container", "name")),
            ("initContainers", List("Container", "name")),
            ("ephemeralContainers", List("Container", "name")),
            ("volumes", List("Volume", "name")),
            ("imagePullSecrets", List("LocalObjectReference", "name")),
            ("hostAliases", List("HostAlias", "ip")),
            ("topologySpreadConstraints", List("TopologySpreadConstraint", "topologyKey")),
            ("schedulingGates", List("PodSchedulingGate", "name")),
            ("resourceClaims", List("PodResourceClaim", "name")),
            ("tolerations", Atomic("Toleration")),
        ],
    ),
    (
        "Container",
        &[
            ("env", List("EnvVar", "name")),
            ("ports", List("ContainerPort", "containerPort")),
            ("volumeMounts", List("VolumeMount", "mountPath")),
            ("volumeDevices", List("VolumeDevice", "devicePath")),
        ],
    ),
    (
        "PodStatus",
        &[
            ("conditions", List("Condition", "type")),
            ("podIPs", List("PodIP", "ip")),
            ("hostIPs", List("HostIP", "ip")),
        ],
    ),
    (
        "StatefulSet",
        &[
            ("metadata", Object("ObjectMeta")),
            ("spec", Object("StatefulSetSpec")),
            ("status", Object("WithConditions")),
        ],
    ),
    (
        "StatefulSetSpec",
        &[
            ("template", Object("PodTemplateSpec")),
            ("volumeClaimTemplates", Atomic("PersistentVolumeClaim")),
        ],
    ),
    ("WithConditions", &[("conditions", List("Condition", "type"))]),
    (
        "Service",
        &[
            ("metadata", Object("ObjectMeta")),
            ("spec", Object("ServiceSpec")),
            ("status", Object("WithConditions")),
        ],
    ),
    ("ServiceSpec", &[("ports", List("ServicePort", "port"))]),
    (
        "ServiceAccount",
        &[
            ("metadata", Object("ObjectMeta")),
            ("secrets", List("ObjectReference", "name")),
            ("imagePullSecrets", List("LocalObjectReference", "name")),
        ],
    ),
    (
        "Node",
        &[
            ("metadata", Object("ObjectMeta")),
            ("spec", Object("NodeSpec")),
            ("status", Object("NodeStatus")),
        ],
    ),
    ("NodeSpec", &[("podCIDRs", Set), ("taints", Atomic("Taint"))]),
    (
        "NodeStatus",
        &[("conditions", List("Condition", "type")), ("addresses", List("NodeAddress", "type"))],
    ),
    ("Namespace", &[("metadata", Object("ObjectMeta")), ("status", Object("WithConditions"))]),
    (
        "PersistentVolumeClaim",
        &[("metadata", Object("ObjectMeta")), ("status", Object("WithConditions"))],
    ),
    (
        "PodDisruptionBudget",
        &[
            ("metadata", Object("ObjectMeta")),
            ("spec", Object("PodDisruptionBudgetSpec")),
            ("status", Object("WithConditions")),
        ],
    ),
    ("PodDisruptionBudgetSpec", &[("selector", Atomic("LabelSelector"))]),
    ("ConfigMap", &[("metadata", Object("ObjectMeta"))]),
    ("Secret", &[("metadata", Object("ObjectMeta"))]),
    ("Endpoints", &[("metadata", Object("ObjectMeta"))]),
    ("EndpointSlice", &[("metadata", Object("ObjectMeta"))]),
    ("Event", &[("metadata", Object("ObjectMeta"))]),
    ("PersistentVolume", &[("metadata", Object("ObjectMeta"))]),
    ("StorageClass", &[("metadata", Object("ObjectMeta"))]),
    ("ControllerRevision", &[("metadata", Object("ObjectMeta"))]),
    ("Lease", &[("metadata", Object("ObjectMeta"))]),
];

/// What the field of a type is; `None` for plain fields.
pub fn field(definition: &str, name: &str) -> Option<Field> {
    let short = definition.rsplit('.').next().unwrap_or(definition);
    let (_, fields) = TYPES.iter().find(|(name, _)| *name == short)?;
    fields.iter().find(|(field, _)| *field == name).map(|(_, field)| *field)
}
