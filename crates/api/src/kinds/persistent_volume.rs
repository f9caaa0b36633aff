//! PersistentVolume. As upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation`.

use super::parts::{AGE, ALL, NAME, child, column, default_at, or_unset, update_status_only, keep_status};
use super::persistent_volume_claim::{access_modes, short_modes};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{Kind, Names, Prepare, Scope, Subresource, Support, FieldSupport, Validate};
use crate::object::Object;
use serde_json::{Value, json};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names { group: "", version: "v1", kind: "PersistentVolume", plural: "persistentvolumes", singular: "persistentvolume", short: &["pv"], categories: &[] },
    scope: Scope::Cluster,
    subresources: &[Subresource::Status],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::core::v1::PersistentVolume>,
    default,
    prepare: Prepare { create, update: keep_status, update_status: update_status_only },
    validate: Validate { name: crate::metadata::dns_subdomain, create: validate, update, update_status: |_, _| Vec::new() },
    columns: &[
        NAME,
        column("Capacity", 0, |object, _| json!(object.str_at("/spec/capacity/storage"))),
        column("Access Modes", 0, |object, _| json!(short_modes(object.list_at("/spec/accessModes")))),
        column("Reclaim Policy", 0, |object, _| json!(object.str_at("/spec/persistentVolumeReclaimPolicy"))),
        column("Status", 0, |object, _| json!(if object.is_terminating() { "Terminating" } else { object.str_at("/status/phase") })),
        column("Claim", 0, |object, _| claim(object)),
        column("StorageClass", 0, |object, _| json!(object.str_at("/spec/storageClassName"))),
        column("VolumeAttributesClass", 0, |object, _| or_unset(object.str_at("/spec/volumeAttributesClassName"))),
        column("Reason", 0, |object, _| json!(object.str_at("/status/reason"))),
        AGE,
        column("VolumeMode", 1, |object, _| or_unset(object.str_at("/spec/volumeMode"))),
    ],
    selectable_fields: &[],
    fields: &[
        FieldSupport { path: "spec.csi", support: Support::StoredOnly, why: "no CSI drivers yet" },
        FieldSupport { path: "spec.nfs", support: Support::StoredOnly, why: "network volumes are not mounted yet" },
        FieldSupport { path: "spec.iscsi", support: Support::StoredOnly, why: "network volumes are not mounted yet" },
        FieldSupport { path: "spec.mountOptions", support: Support::StoredOnly, why: "directories are bind-mounted" },
        FieldSupport { path: "spec.volumeAttributesClassName", support: Support::StoredOnly, why: "no driver has attributes" },
    ],
    definition: "io.k8s.api.core.v1.PersistentVolume",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::core::v1::PersistentVolume>()),
};

fn default(object: &mut Object) {
    let spec = child(object.value_mut(), "spec");
    default_at(spec, "persistentVolumeReclaimPolicy", json!("Retain"));
    default_at(spec, "volumeMode", json!("Filesystem"));
    if let Some(path) = spec.get_mut("hostPath") {
        default_at(path, "type", json!(""));
    }
}

fn create(object: &mut Object) {
    object.set("/status", json!({"phase": "Pending"}));
    add_finalizer(object, "kubernetes.io/pv-protection");
}

/// Adds a finalizer that is not there yet.
pub(super) fn add_finalizer(object: &mut Object, name: &str) {
    let mut finalizers = object.list_at("/metadata/finalizers").to_vec();
    if !finalizers.contains(&json!(name)) {
        finalizers.push(json!(name));
        object.set("/metadata/finalizers", json!(finalizers));
    }
}

fn claim(object: &Object) -> Value {
    let (namespace, name) = (object.str_at("/spec/claimRef/namespace"), object.str_at("/spec/claimRef/name"));
    json!(if name.is_empty() { String::new() } else { format!("{namespace}/{name}") })
}

/// The fields that say where a volume is.
const SOURCES: [&str; 12] = ["hostPath", "local", "nfs", "csi", "iscsi", "fc", "rbd", "cephfs", "awsElasticBlockStore", "gcePersistentDisk", "azureDisk", "azureFile"];

fn validate(object: &Object) -> Vec<FieldError> {
    let spec = FieldPath::new("spec");
    let mut errors = access_modes(object.at("/spec").unwrap_or(&Value::Null), &spec);
    if object.str_at("/spec/capacity/storage").is_empty() {
        errors.push(FieldError::required(&spec.child("capacity"), ""));
    }
    let policies = ["Delete", "Recycle", "Retain"];
    if !policies.contains(&object.str_at("/spec/persistentVolumeReclaimPolicy")) {
        errors.push(FieldError::not_supported(&spec.child("persistentVolumeReclaimPolicy"), object.str_at("/spec/persistentVolumeReclaimPolicy"), &policies));
    }
    let given = SOURCES.iter().filter(|source| object.at(&format!("/spec/{source}")).is_some()).count();
    if given == 0 {
        errors.push(FieldError::required(&spec, "must specify a volume type"));
    } else if given > 1 {
        errors.push(FieldError::forbidden(&spec, "may not specify more than 1 volume type"));
    }
    for source in ["hostPath", "local"] {
        let path = object.str_at(&format!("/spec/{source}/path"));
        let at = spec.child(source).child("path");
        if object.at(&format!("/spec/{source}")).is_some() && path.is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else if path.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(&at, path, "must not contain '..'"));
        }
    }
    if object.at("/spec/local").is_some() && object.at("/spec/nodeAffinity/required").is_none() {
        errors.push(FieldError::required(&spec.child("nodeAffinity"), "Local volume requires node affinity"));
    }
    errors
}

fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = validate(new);
    let changed = SOURCES.iter().any(|source| {
        let pointer = format!("/spec/{source}");
        new.at(&pointer) != old.at(&pointer)
    });
    if changed {
        errors.push(FieldError::forbidden(&FieldPath::new("spec.persistentvolumesource"), "spec.persistentvolumesource is immutable after creation"));
    }
    if new.at("/spec/volumeMode") != old.at("/spec/volumeMode") {
        errors.push(FieldError::invalid(&FieldPath::new("spec").child("volumeMode"), new.at("/spec/volumeMode"), "field is immutable"));
    }
    errors
}
