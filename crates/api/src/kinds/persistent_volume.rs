//! PersistentVolume. As upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation`.

use super::parts::{
    AGE, ALL, NAME, child, column, default_at, keep_status, or_unset, text, update_status_only,
};
use super::persistent_volume_claim::{access_modes, short_modes};
use super::pod::{validate_host_path, validate_node_selector};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{FieldSupport, Kind, Names, Prepare, Scope, Subresource, Support, Validate};
use crate::object::Object;
use crate::quantity::Quantity;
use serde_json::{Value, json};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "",
        version: "v1",
        kind: "PersistentVolume",
        plural: "persistentvolumes",
        singular: "persistentvolume",
        short: &["pv"],
        categories: &[],
    },
    scope: Scope::Cluster,
    subresources: &[Subresource::Status],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::core::v1::PersistentVolume>,
    default,
    prepare: Prepare { create, update: keep_status, update_status: update_status_only },
    validate: Validate {
        name: crate::metadata::dns_subdomain,
        create: validate,
        update,
        update_status: |_, _| Vec::new(),
    },
    columns: &[
        NAME,
        column("Capacity", 0, |object, _| json!(object.str_at("/spec/capacity/storage"))),
        column("Access Modes", 0, |object, _| {
            json!(short_modes(object.list_at("/spec/accessModes")))
        }),
        column("Reclaim Policy", 0, |object, _| {
            json!(object.str_at("/spec/persistentVolumeReclaimPolicy"))
        }),
        column("Status", 0, |object, _| {
            json!(if object.is_terminating() {
                "Terminating"
            } else {
                object.str_at("/status/phase")
            })
        }),
        column("Claim", 0, |object, _| claim(object)),
        column("StorageClass", 0, |object, _| json!(object.str_at("/spec/storageClassName"))),
        column("VolumeAttributesClass", 0, |object, _| {
            or_unset(object.str_at("/spec/volumeAttributesClassName"))
        }),
        column("Reason", 0, |object, _| json!(object.str_at("/status/reason"))),
        AGE,
        column("VolumeMode", 1, |object, _| or_unset(object.str_at("/spec/volumeMode"))),
    ],
    selectable_fields: &[],
    fields: &[
        FieldSupport {
            path: "spec.awsElasticBlockStore",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.azureDisk",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.azureFile",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.cephfs",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.cinder",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.csi",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.fc",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.flexVolume",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.flocker",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.gcePersistentDisk",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.glusterfs",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.iscsi",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.nfs",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.photonPersistentDisk",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.portworxVolume",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.quobyte",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.rbd",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.scaleIO",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.storageos",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.vsphereVolume",
            support: Support::StoredOnly,
            why: "no driver for this type of volume yet",
        },
        FieldSupport {
            path: "spec.mountOptions",
            support: Support::StoredOnly,
            why: "directories are bind-mounted",
        },
        FieldSupport {
            path: "spec.volumeAttributesClassName",
            support: Support::StoredOnly,
            why: "no driver has attributes",
        },
    ],
    definition: "io.k8s.api.core.v1.PersistentVolume",
    schema: |generator| {
        drop(generator.subschema_for::<k8s_openapi::api::core::v1::PersistentVolume>())
    },
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
    let (namespace, name) =
        (object.str_at("/spec/claimRef/namespace"), object.str_at("/spec/claimRef/name"));
    json!(if name.is_empty() { String::new() } else { format!("{namespace}/{name}") })
}

/// The fields that say where a volume is.
const SOURCES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

fn validate(object: &Object) -> Vec<FieldError> {
    let spec = FieldPath::new("spec");
    let mut errors = access_modes(object.at("/spec").unwrap_or(&Value::Null), &spec);
    validate_capacity(object, &spec.child("capacity"), &mut errors);
    let policies = ["Delete", "Recycle", "Retain"];
    let policy = object.str_at("/spec/persistentVolumeReclaimPolicy");
    if !policies.contains(&policy) {
        errors.push(FieldError::not_supported(
            &spec.child("persistentVolumeReclaimPolicy"),
            policy,
            &policies,
        ));
    }
    let modes = ["Block", "Filesystem"];
    if !modes.contains(&object.str_at("/spec/volumeMode")) {
        errors.push(FieldError::not_supported(
            &spec.child("volumeMode"),
            object.str_at("/spec/volumeMode"),
            &modes,
        ));
    }
    let class = object.str_at("/spec/storageClassName");
    if !class.is_empty() {
        errors.extend(
            crate::metadata::dns_subdomain(class)
                .iter()
                .map(|error| FieldError::invalid(&spec.child("storageClassName"), class, error)),
        );
    }
    validate_source(object, &spec, &mut errors);
    if let Some(required) = object.at("/spec/nodeAffinity/required") {
        validate_node_selector(
            required,
            &spec.child("nodeAffinity").child("required"),
            &mut errors,
        );
    } else if object.at("/spec/nodeAffinity").is_some() {
        errors.push(FieldError::required(
            &spec.child("nodeAffinity").child("required"),
            "must specify required node constraints",
        ));
    }
    errors
}

fn validate_capacity(object: &Object, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let capacity = object.at("/spec/capacity").and_then(Value::as_object);
    if capacity.is_none_or(serde_json::Map::is_empty) {
        errors.push(FieldError::required(path, ""));
    } else if capacity
        .is_some_and(|capacity| capacity.len() > 1 || !capacity.contains_key("storage"))
    {
        errors.push(FieldError::not_supported(path, capacity, &["storage"]));
    }
    let amount = object.str_at("/spec/capacity/storage");
    if Quantity::parse(amount).is_ok_and(|amount| amount <= Quantity::ZERO) {
        errors.push(FieldError::invalid(&path.key("storage"), amount, "must be greater than zero"));
    }
}

fn validate_source(object: &Object, spec: &FieldPath, errors: &mut Vec<FieldError>) {
    let given: Vec<&str> = SOURCES
        .into_iter()
        .filter(|source| object.at(&format!("/spec/{source}")).is_some())
        .collect();
    if given.is_empty() {
        errors.push(FieldError::required(spec, "must specify a volume type"));
    }
    for source in given.iter().skip(1) {
        errors.push(FieldError::forbidden(
            &spec.child(source),
            "may not specify more than 1 volume type",
        ));
    }
    if let Some(source) = object.at("/spec/hostPath") {
        validate_host_path(source, &spec.child("hostPath"), errors);
        if object.str_at("/spec/hostPath/path") == "/"
            && object.str_at("/spec/persistentVolumeReclaimPolicy") == "Recycle"
        {
            errors.push(FieldError::forbidden(
                &spec.child("persistentVolumeReclaimPolicy"),
                "may not be 'recycle' for a hostPath mount of '/'",
            ));
        }
    }
    if let Some(source) = object.at("/spec/local") {
        let (path, at) = (text(source, "path"), spec.child("local").child("path"));
        if path.is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else if path.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(&at, path, "must not contain '..'"));
        }
        if object.at("/spec/nodeAffinity").is_none() {
            errors.push(FieldError::required(
                &spec.child("nodeAffinity"),
                "Local volume requires node affinity",
            ));
        }
    }
}

fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = validate(new);
    let spec = FieldPath::new("spec");
    let changed = |field: &str| {
        let pointer = format!("/spec/{field}");
        new.at(&pointer) != old.at(&pointer)
    };
    if SOURCES.iter().any(|source| changed(source)) {
        errors.push(FieldError::forbidden(
            &spec.child("persistentvolumesource"),
            "spec.persistentvolumesource is immutable after creation",
        ));
    }
    if changed("volumeMode") {
        errors.push(FieldError::invalid(
            &spec.child("volumeMode"),
            new.at("/spec/volumeMode"),
            "field is immutable",
        ));
    }
    if old.at("/spec/nodeAffinity").is_some() && changed("nodeAffinity") {
        errors.push(FieldError::invalid(
            &spec.child("nodeAffinity"),
            new.at("/spec/nodeAffinity"),
            "field is immutable, except for updating from beta label to GA",
        ));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(change: impl Fn(&mut Object)) -> Object {
        let mut object = Object::new(json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}}})).unwrap();
        default(&mut object);
        change(&mut object);
        object
    }

    fn said(errors: &[FieldError]) -> String {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_volume_says_where_it_is_and_how_much() {
        assert_eq!(said(&validate(&volume(|_| {}))), "");
        assert_eq!(
            said(&validate(&volume(|volume| drop(volume.remove("/spec/hostPath"))))),
            "spec: Required value: must specify a volume type"
        );
        assert_eq!(
            said(&validate(&volume(|volume| volume.set("/spec/hostPath/path", json!("/a/../b"))))),
            "spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"
        );
        assert_eq!(
            said(&validate(&volume(|volume| volume.set("/spec/capacity", json!({}))))),
            "spec.capacity: Required value"
        );
        assert_eq!(
            said(&validate(&volume(|volume| volume.set("/spec/local", json!({"path": "/x"}))))),
            "spec.local: Forbidden: may not specify more than 1 volume type; spec.nodeAffinity: Required value: Local volume requires node affinity"
        );
    }

    #[test]
    fn where_a_volume_is_stays_and_who_has_it_does_not() {
        assert_eq!(
            said(&update(
                &volume(|volume| volume.set("/spec/claimRef", json!({"name": "c"}))),
                &volume(|_| {})
            )),
            ""
        );
        assert_eq!(
            said(&update(
                &volume(|volume| volume.set("/spec/hostPath/path", json!("/other"))),
                &volume(|_| {})
            )),
            "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"
        );
    }

    #[test]
    fn a_new_volume_is_protected() {
        let object = volume(|volume| {
            create(volume);
            create(volume);
        });
        assert_eq!(
            (object.finalizers(), object.str_at("/status/phase")),
            (vec!["kubernetes.io/pv-protection"], "Pending")
        );
    }
}
