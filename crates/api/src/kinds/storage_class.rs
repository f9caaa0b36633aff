//! StorageClass.

use super::parts::{AGE, ALL, NAME, PREPARE_PLAIN, column, default_at, fine_update};
use crate::kind::{Kind, Names, Scope, Validate};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::Column;
use crate::object::Object;
use serde_json::{Value, json};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names { group: "storage.k8s.io", version: "v1", kind: "StorageClass", plural: "storageclasses", singular: "storageclass", short: &["sc"], categories: &[] },
    scope: Scope::Cluster,
    subresources: &[],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::storage::v1::StorageClass>,
    default,
    prepare: PREPARE_PLAIN,
    validate: Validate { name: crate::metadata::dns_subdomain, create: validate, update: update, update_status: fine_update },
    columns: &[Column { cell: |object, _| name(object), ..NAME }, column("Provisioner", 0, |object, _| json!(object.str_at("/provisioner"))), column("ReclaimPolicy", 0, |object, _| json!(object.str_at("/reclaimPolicy"))), column("VolumeBindingMode", 0, |object, _| json!(object.str_at("/volumeBindingMode"))), column("AllowVolumeExpansion", 0, |object, _| json!(object.at("/allowVolumeExpansion") == Some(&json!(true)))), AGE],
    selectable_fields: &[],
    fields: &[],
    definition: "io.k8s.api.storage.v1.StorageClass",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::storage::v1::StorageClass>()),
};

/// Marks the class of claims that name none.
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

fn default(object: &mut Object) {
    default_at(object.value_mut(), "reclaimPolicy", json!("Delete"));
    default_at(object.value_mut(), "volumeBindingMode", json!("Immediate"));
}

fn name(object: &Object) -> Value {
    let mark = if object.annotation(DEFAULT_CLASS) == Some("true") { " (default)" } else { "" };
    json!(format!("{}{mark}", object.name()))
}

fn validate(object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if object.str_at("/provisioner").is_empty() {
        errors.push(FieldError::required(&FieldPath::new("provisioner"), ""));
    }
    for (field, supported) in [("reclaimPolicy", ["Delete", "Retain"]), ("volumeBindingMode", ["Immediate", "WaitForFirstConsumer"])] {
        let value = object.str_at(&format!("/{field}"));
        if !supported.contains(&value) {
            errors.push(FieldError::not_supported(&FieldPath::new(field), value, &supported));
        }
    }
    errors
}

fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = validate(new);
    for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        let pointer = format!("/{field}");
        if new.at(&pointer) != old.at(&pointer) {
            errors.push(FieldError::forbidden(&FieldPath::new(field), &format!("updates to {field} are forbidden.")));
        }
    }
    errors
}
