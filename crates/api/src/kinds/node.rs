//! Node. As upstream: `pkg/registry/core/node`, `pkg/printers/internalversion`.

use super::parts::{
    AGE, ALL, NAME, column, keep_status, nothing, or_none, text, update_status_only,
};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{Kind, Names, Prepare, Scope, SelectableField, Subresource, Validate};
use crate::object::Object;
use serde_json::{Value, json};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "",
        version: "v1",
        kind: "Node",
        plural: "nodes",
        singular: "node",
        short: &["no"],
        categories: &[],
    },
    scope: Scope::Cluster,
    subresources: &[Subresource::Status],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::core::v1::Node>,
    default,
    // A node agent registers with its status.
    prepare: Prepare { create: nothing, update: keep_status, update_status: update_status_only },
    validate: Validate {
        name: crate::metadata::dns_subdomain,
        create: taints,
        update,
        update_status: |_, _| Vec::new(),
    },
    columns: &[
        NAME,
        column("Status", 0, |object, _| status(object)),
        column("Roles", 0, |object, _| roles(object)),
        AGE,
        column("Version", 0, |object, _| json!(object.str_at("/status/nodeInfo/kubeletVersion"))),
        column("Internal-IP", 1, |object, _| address(object, "InternalIP")),
        column("External-IP", 1, |object, _| address(object, "ExternalIP")),
        column("OS-Image", 1, |object, _| or_unknown(object.str_at("/status/nodeInfo/osImage"))),
        column("Kernel-Version", 1, |object, _| {
            or_unknown(object.str_at("/status/nodeInfo/kernelVersion"))
        }),
        column("Container-Runtime", 1, |object, _| {
            or_unknown(object.str_at("/status/nodeInfo/containerRuntimeVersion"))
        }),
    ],
    selectable_fields: &[SelectableField {
        name: "spec.unschedulable",
        value: |object| (object.at("/spec/unschedulable") == Some(&json!(true))).to_string(),
    }],
    fields: &[],
    definition: "io.k8s.api.core.v1.Node",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::core::v1::Node>()),
};

fn default(object: &mut Object) {
    if let (None, Some(capacity)) =
        (object.at("/status/allocatable"), object.at("/status/capacity").cloned())
    {
        object.set("/status/allocatable", capacity);
    }
}

fn or_unknown(words: &str) -> Value {
    json!(if words.is_empty() { "<unknown>" } else { words })
}

fn status(object: &Object) -> Value {
    let ready = object
        .list_at("/status/conditions")
        .iter()
        .find(|condition| text(condition, "type") == "Ready");
    let mut words = vec![match ready.map(|condition| text(condition, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if object.at("/spec/unschedulable") == Some(&json!(true)) {
        words.push("SchedulingDisabled");
    }
    json!(words.join(","))
}

fn roles(object: &Object) -> Value {
    let labels = object.at("/metadata/labels").and_then(Value::as_object);
    let role =
        |(key, value): (&'_ String, &Value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role.to_owned()),
            None => value.as_str().filter(|_| key == "kubernetes.io/role").map(str::to_owned),
        };
    let roles: std::collections::BTreeSet<String> =
        labels.into_iter().flatten().filter_map(role).filter(|role| !role.is_empty()).collect();
    let roles: Vec<String> = roles.into_iter().collect();
    or_none(&roles.join(","))
}

fn address(object: &Object, kind: &str) -> Value {
    let found =
        object.list_at("/status/addresses").iter().find(|address| text(address, "type") == kind);
    or_none(found.map_or("", |address| text(address, "address")))
}

fn taints(object: &Object) -> Vec<FieldError> {
    let path = FieldPath::new("spec").child("taints");
    let (mut errors, mut seen) = (Vec::new(), Vec::new());
    for (index, taint) in object.list_at("/spec/taints").iter().enumerate() {
        let path = path.index(index);
        let (key, value, effect) =
            (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        errors.extend(
            crate::metadata::qualified_name(key)
                .iter()
                .map(|error| FieldError::invalid(&path.child("key"), key, error)),
        );
        errors.extend(
            crate::metadata::label_value(value)
                .iter()
                .map(|error| FieldError::invalid(&path.child("value"), value, error)),
        );
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if effect.is_empty() {
            errors.push(FieldError::required(&path.child("effect"), ""));
        } else if !effects.contains(&effect) {
            errors.push(FieldError::not_supported(&path.child("effect"), effect, &effects));
        }
        if seen.contains(&(key, effect)) {
            errors.push(FieldError::duplicate(&path, taint));
        }
        seen.push((key, effect));
    }
    errors
}

/// What names a node to others stays.
fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = taints(new);
    let spec = FieldPath::new("spec");
    let changed = |field: &str| {
        let pointer = format!("/spec/{field}");
        old.at(&pointer).is_some() && new.at(&pointer) != old.at(&pointer)
    };
    if changed("podCIDRs") {
        errors.push(FieldError::forbidden(
            &spec.child("podCIDRs"),
            "node updates may not change podCIDR except from \"\" to valid",
        ));
    }
    if changed("providerID") {
        errors.push(FieldError::forbidden(
            &spec.child("providerID"),
            "node updates may not change providerID except from \"\" to valid",
        ));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_tells_whether_it_is_ready_and_what_for() {
        let shown = |ready: &str| {
            let node = Object::new(json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "edge"}},
                "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": ready}]}})).unwrap();
            (status(&node), roles(&node))
        };
        assert_eq!(shown("True"), (json!("Ready,SchedulingDisabled"), json!("control-plane,edge")));
        assert_eq!(shown("Unknown").0, json!("NotReady,SchedulingDisabled"));
        assert_eq!(status(&Object::new(json!({})).unwrap()), json!("Unknown"));
    }

    #[test]
    fn a_taint_has_an_effect_and_stands_once() {
        let node = |taints: Value| {
            super::taints(&Object::new(json!({"spec": {"taints": taints}})).unwrap())
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        };
        assert_eq!(
            node(
                json!([{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}])
            ),
            ""
        );
        assert_eq!(
            node(json!([{"key": "a", "effect": "Maybe"}])),
            "spec.taints[0].effect: Unsupported value: \"Maybe\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\""
        );
        assert!(
            node(
                json!([{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}])
            )
            .starts_with("spec.taints[1]: Duplicate value")
        );
    }
}
