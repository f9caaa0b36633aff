//! PersistentVolumeClaim. As upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation`.

use super::parts::{AGE, ALL, NAME, child, column, default_at, keep_status, or_unset, update_status_only};
use super::persistent_volume::add_finalizer;
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{FieldSupport, Kind, Names, Prepare, Scope, Subresource, Support, Validate};
use crate::object::Object;
use crate::quantity::Quantity;
use serde_json::{Value, json};

/// Modes of access and how tables shorten them.
const ACCESS_MODES: [(&str, &str); 4] =
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];

/// The kind.
pub const KIND: Kind = Kind {
    names: Names { group: "", version: "v1", kind: "PersistentVolumeClaim", plural: "persistentvolumeclaims", singular: "persistentvolumeclaim", short: &["pvc"], categories: &[] },
    scope: Scope::Namespaced,
    subresources: &[Subresource::Status],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::core::v1::PersistentVolumeClaim>,
    default: |object| default_claim(object.value_mut()),
    prepare: Prepare { create, update: keep_status, update_status: update_status_only },
    validate: Validate { name: crate::metadata::dns_subdomain, create: |object| validate(object, &FieldPath::new("spec")), update, update_status: |_, _| Vec::new() },
    columns: &[
        NAME,
        column("Status", 0, |object, _| json!(if object.is_terminating() { "Terminating" } else { object.str_at("/status/phase") })),
        column("Volume", 0, |object, _| json!(object.str_at("/spec/volumeName"))),
        column("Capacity", 0, |object, _| json!(if object.str_at("/spec/volumeName").is_empty() { "" } else { object.str_at("/status/capacity/storage") })),
        column("Access Modes", 0, |object, _| json!(if object.str_at("/spec/volumeName").is_empty() { String::new() } else { short_modes(object.list_at("/status/accessModes")) })),
        column("StorageClass", 0, |object, _| json!(object.str_at("/spec/storageClassName"))),
        column("VolumeAttributesClass", 0, |object, _| or_unset(object.str_at("/spec/volumeAttributesClassName"))),
        AGE,
        column("VolumeMode", 1, |object, _| or_unset(object.str_at("/spec/volumeMode"))),
    ],
    selectable_fields: &[],
    fields: &[
        FieldSupport { path: "spec.dataSource", support: Support::StoredOnly, why: "no snapshots or clones yet" },
        FieldSupport { path: "spec.dataSourceRef", support: Support::StoredOnly, why: "no snapshots or clones yet" },
        FieldSupport { path: "spec.volumeAttributesClassName", support: Support::StoredOnly, why: "no driver has attributes" },
    ],
    definition: "io.k8s.api.core.v1.PersistentVolumeClaim",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::core::v1::PersistentVolumeClaim>()),
};

/// Defaults of a claim, also of one in a template.
pub(super) fn default_claim(claim: &mut Value) {
    default_at(child(claim, "spec"), "volumeMode", json!("Filesystem"));
    default_at(child(claim, "status"), "phase", json!("Pending"));
}

fn create(object: &mut Object) {
    object.set("/status", json!({"phase": "Pending"}));
    add_finalizer(object, "kubernetes.io/pvc-protection");
}

/// `RWO,RWX`.
pub(super) fn short_modes(modes: &[Value]) -> String {
    let shown: Vec<&str> = ACCESS_MODES.iter().filter(|(long, _)| modes.iter().any(|mode| mode == long)).map(|(_, short)| *short).collect();
    shown.join(",")
}

/// Errors of `accessModes`.
pub(super) fn access_modes(object: &Object, spec: &FieldPath) -> Vec<FieldError> {
    let path = spec.child("accessModes");
    let modes = object.list_at("/spec/accessModes");
    let mut errors = Vec::new();
    if modes.is_empty() {
        errors.push(FieldError::required(&path, "at least 1 access mode is required"));
    }
    let known: Vec<&str> = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"].to_vec();
    for mode in modes.iter().filter_map(Value::as_str).filter(|mode| !known.contains(mode)) {
        errors.push(FieldError::not_supported(&path, mode, &known));
    }
    errors
}

fn storage(object: &Object) -> Option<Quantity> {
    Quantity::parse(object.str_at("/spec/resources/requests/storage")).ok()
}

fn validate(object: &Object, spec: &FieldPath) -> Vec<FieldError> {
    let mut errors = access_modes(object, spec);
    let path = spec.child("resources");
    match storage(object) {
        None => errors.push(FieldError::required(&path.key("storage"), "")),
        Some(amount) if amount <= Quantity::ZERO => {
            errors.push(FieldError::invalid(&path.key("storage"), object.str_at("/spec/resources/requests/storage"), "must be greater than zero"));
        }
        Some(_) => {}
    }
    let modes = ["Block", "Filesystem"];
    if !modes.contains(&object.str_at("/spec/volumeMode")) {
        errors.push(FieldError::not_supported(&spec.child("volumeMode"), object.str_at("/spec/volumeMode"), &modes));
    }
    errors
}

fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let path = FieldPath::new("spec");
    let mut errors = validate(new, &path);
    // What may change: the request (growing only), and what the binder sets once.
    let mut as_before = new.clone();
    if let Some(resources) = old.at("/spec/resources") {
        as_before.set("/spec/resources", resources.clone());
    }
    if old.str_at("/spec/volumeName").is_empty() {
        as_before.remove("/spec/volumeName");
    }
    if old.at("/spec/storageClassName").is_none() {
        as_before.remove("/spec/storageClassName");
    }
    if as_before.at("/spec") != old.at("/spec") {
        errors.push(FieldError::forbidden(&path, "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"));
    }
    if storage(new) < storage(old) {
        errors.push(FieldError::forbidden(&path.child("resources").child("requests").child("storage"), "field can not be less than status.capacity"));
    }
    errors
}
