//! Namespace. As upstream: `pkg/registry/core/namespace`.

use super::parts::{AGE, NAME, column, fine, fine_update, keep_status, update_status_only};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{Kind, Names, Prepare, Scope, SelectableField, Subresource, Validate};
use crate::object::Object;
use serde_json::json;

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "",
        version: "v1",
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        short: &["ns"],
        categories: &[],
    },
    scope: Scope::Cluster,
    subresources: &[Subresource::Status, Subresource::Finalize],
    verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::core::v1::Namespace>,
    default,
    prepare: Prepare { create, update, update_status: update_status_only },
    validate: Validate {
        name: crate::metadata::dns_label,
        create: fine,
        update: fine_update,
        update_status: validate_status,
    },
    columns: &[NAME, column("Status", 0, |object, _| json!(object.str_at("/status/phase"))), AGE],
    selectable_fields: &[SelectableField {
        name: "status.phase",
        value: |object| object.str_at("/status/phase").to_owned(),
    }],
    fields: &[],
    definition: "io.k8s.api.core.v1.Namespace",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::core::v1::Namespace>()),
};

fn default(object: &mut Object) {
    let name = object.name().to_owned();
    if !name.is_empty() && object.label("kubernetes.io/metadata.name") != Some(&name) {
        if object.at("/metadata/labels").is_none() {
            object.set("/metadata/labels", json!({}));
        }
        object.value_mut()["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(name);
    }
}

fn create(object: &mut Object) {
    object.set("/status", json!({"phase": "Active"}));
    let mut finalizers = object.list_at("/spec/finalizers").to_vec();
    if !finalizers.contains(&json!("kubernetes")) {
        finalizers.push(json!("kubernetes"));
    }
    object.set("/spec/finalizers", json!(finalizers));
}

/// A phase says whether the namespace goes.
fn validate_status(new: &Object, old: &Object) -> Vec<FieldError> {
    // As upstream, in capitals.
    let path = FieldPath::new("status").child("Phase");
    match (old.is_terminating(), new.str_at("/status/phase")) {
        (false, phase) if phase != "Active" => vec![FieldError::invalid(
            &path,
            phase,
            "may only be 'Active' if `deletionTimestamp` is empty",
        )],
        (true, phase) if phase != "Terminating" => vec![FieldError::invalid(
            &path,
            phase,
            "may only be 'Terminating' if `deletionTimestamp` is not empty",
        )],
        _ => Vec::new(),
    }
}

/// The spec has finalizers only, which change by `/finalize`.
fn update(new: &mut Object, old: &Object) {
    keep_status(new, old);
    if let Some(spec) = old.at("/spec") {
        new.set("/spec", spec.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_namespace_is_active_named_in_its_labels_and_waits_for_its_content() {
        let mut object = Object::new(json!({"metadata": {"name": "team"}})).unwrap();
        default(&mut object);
        create(&mut object);
        assert_eq!(
            object.value(),
            &json!({
                "metadata": {"name": "team", "labels": {"kubernetes.io/metadata.name": "team"}}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}
            })
        );
    }

    #[test]
    fn the_phase_follows_from_deletion() {
        let namespace = |phase: &str, terminating: bool| {
            let mut object = Object::new(json!({"status": {"phase": phase}})).unwrap();
            if terminating {
                object.set("/metadata/deletionTimestamp", json!("1970-01-01T00:00:00Z"));
            }
            object
        };
        let refused = |phase: &str, terminating: bool| {
            validate_status(&namespace(phase, terminating), &namespace("", terminating)).len()
        };
        assert_eq!(
            (
                refused("Active", false),
                refused("Terminating", true),
                refused("Terminating", false),
                refused("Active", true)
            ),
            (0, 0, 1, 1)
        );
    }
}
