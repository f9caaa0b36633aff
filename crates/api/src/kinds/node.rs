//! Node. As upstream: `pkg/registry/core/node`, `pkg/printers/internalversion`.

use super::parts::{AGE, ALL, NAME, PREPARE_STATUS, column, fine, or_none, text};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{Kind, Names, Scope, SelectableField, Subresource, Validate};
use crate::object::Object;
use serde_json::{Value, json};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names { group: "", version: "v1", kind: "Node", plural: "nodes", singular: "node", short: &["no"], categories: &[] },
    scope: Scope::Cluster,
    subresources: &[Subresource::Status],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::core::v1::Node>,
    default,
    prepare: PREPARE_STATUS,
    validate: Validate { name: crate::metadata::dns_subdomain, create: fine, update: |new, _| taints(new), update_status: |_, _| Vec::new() },
    columns: &[
        NAME,
        column("Status", 0, |object, _| status(object)),
        column("Roles", 0, |object, _| roles(object)),
        AGE,
        column("Version", 0, |object, _| json!(object.str_at("/status/nodeInfo/kubeletVersion"))),
        column("Internal-IP", 1, |object, _| address(object, "InternalIP")),
        column("External-IP", 1, |object, _| address(object, "ExternalIP")),
        column("OS-Image", 1, |object, _| or_unknown(object.str_at("/status/nodeInfo/osImage"))),
        column("Kernel-Version", 1, |object, _| or_unknown(object.str_at("/status/nodeInfo/kernelVersion"))),
        column("Container-Runtime", 1, |object, _| or_unknown(object.str_at("/status/nodeInfo/containerRuntimeVersion"))),
    ],
    selectable_fields: &[SelectableField { name: "spec.unschedulable", value: |object| (object.at("/spec/unschedulable") == Some(&json!(true))).to_string() }],
    fields: &[],
    definition: "io.k8s.api.core.v1.Node",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::core::v1::Node>()),
};

fn default(object: &mut Object) {
    if object.at("/status/allocatable").is_none() {
        if let Some(capacity) = object.at("/status/capacity").cloned() {
            object.set("/status/allocatable", capacity);
        }
    }
}

fn or_unknown(words: &str) -> Value {
    json!(if words.is_empty() { "<unknown>" } else { words })
}

fn status(object: &Object) -> Value {
    let ready = object.list_at("/status/conditions").iter().find(|condition| text(condition, "type") == "Ready");
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
    let roles: Vec<&str> = labels.into_iter().flatten().filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/")).collect();
    or_none(&roles.join(","))
}

fn address(object: &Object, kind: &str) -> Value {
    let found = object.list_at("/status/addresses").iter().find(|address| text(address, "type") == kind);
    or_none(found.map_or("", |address| text(address, "address")))
}

fn taints(object: &Object) -> Vec<FieldError> {
    let path = FieldPath::new("spec").child("taints");
    let mut errors = Vec::new();
    for (index, taint) in object.list_at("/spec/taints").iter().enumerate() {
        let path = path.index(index);
        errors.extend(crate::metadata::qualified_name(text(taint, "key")).iter().map(|error| FieldError::invalid(&path.child("key"), text(taint, "key"), error)));
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if !effects.contains(&text(taint, "effect")) {
            errors.push(FieldError::not_supported(&path.child("effect"), text(taint, "effect"), &effects));
        }
    }
    errors
}
