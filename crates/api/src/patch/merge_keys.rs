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
    (
        "Deployment",
        &[
            ("metadata", Object("ObjectMeta")),
            ("spec", Object("DeploymentSpec")),
            ("status", Object("WithConditions")),
        ],
    ),
    ("DeploymentSpec", &[("template", Object("PodTemplateSpec"))]),
    (
        "ReplicaSet",
        &[
            ("metadata", Object("ObjectMeta")),
            ("spec", Object("ReplicaSetSpec")),
            ("status", Object("WithConditions")),
        ],
    ),
    ("ReplicaSetSpec", &[("template", Object("PodTemplateSpec"))]),
    (
        "DaemonSet",
        &[
            ("metadata", Object("ObjectMeta")),
            ("spec", Object("DaemonSetSpec")),
            ("status", Object("WithConditions")),
        ],
    ),
    ("DaemonSetSpec", &[("template", Object("PodTemplateSpec"))]),
    (
        "Job",
        &[
            ("metadata", Object("ObjectMeta")),
            ("spec", Object("JobSpec")),
            ("status", Object("WithConditions")),
        ],
    ),
    ("JobSpec", &[("template", Object("PodTemplateSpec"))]),
    ("CronJob", &[("metadata", Object("ObjectMeta")), ("spec", Object("CronJobSpec"))]),
    ("CronJobSpec", &[("jobTemplate", Object("JobTemplateSpec"))]),
    ("JobTemplateSpec", &[("metadata", Object("ObjectMeta")), ("spec", Object("JobSpec"))]),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A kind that is forgotten here would have its lists replaced by every `kubectl set image`.
    #[test]
    fn every_kind_is_merged_down_to_the_containers_of_its_template() {
        for kind in crate::kinds::KINDS {
            let name = kind.names.kind;
            assert_eq!(
                field(kind.definition, "metadata"),
                Some(Object("ObjectMeta")),
                "{name} is not in the table"
            );
            let document = crate::openapi::v2(&[*kind]);
            let mut way: Vec<(String, &str, String)> = Vec::new();
            let mut definition = kind.definition.to_owned();
            for step in ["spec", "jobTemplate", "spec", "template", "spec"] {
                let property = &document["definitions"][&definition]["properties"][step];
                let reference = [&property["$ref"], &property["allOf"][0]["$ref"]];
                let next = reference.into_iter().find_map(|reference| reference.as_str());
                let Some(next) = next.and_then(|next| next.rsplit('/').next()) else { continue };
                way.push((definition.clone(), step, next.to_owned()));
                next.clone_into(&mut definition);
            }
            if definition.ends_with(".PodSpec") {
                for (from, step, to) in way {
                    let short = to.rsplit('.').next().unwrap_or_default();
                    let found = field(&from, step).map(|field| format!("{field:?}"));
                    assert_eq!(found, Some(format!("Object({short:?})")), "{name}: {from}.{step}");
                }
            }
        }
    }
}
