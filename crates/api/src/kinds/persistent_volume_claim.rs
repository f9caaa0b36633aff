//! PersistentVolumeClaim. As upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation`.

use super::parts::{
    AGE, ALL, NAME, child, column, default_at, keep_status, list, or_unset, text,
    update_status_only,
};
use super::persistent_volume::add_finalizer;
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{FieldSupport, Kind, Names, Prepare, Scope, Subresource, Support, Validate};
use crate::object::Object;
use crate::quantity::Quantity;
use serde_json::{Value, json};

/// Modes of access and how tables shorten them.
const ACCESS_MODES: [(&str, &str); 4] = [
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
];

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "",
        version: "v1",
        kind: "PersistentVolumeClaim",
        plural: "persistentvolumeclaims",
        singular: "persistentvolumeclaim",
        short: &["pvc"],
        categories: &[],
    },
    scope: Scope::Namespaced,
    subresources: &[Subresource::Status],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::core::v1::PersistentVolumeClaim>,
    default: |object| default_claim(object.value_mut()),
    prepare: Prepare { create, update: keep_status, update_status: update_status_only },
    validate: Validate {
        name: crate::metadata::dns_subdomain,
        create: validate,
        update,
        update_status: |_, _| Vec::new(),
    },
    columns: &[
        NAME,
        column("Status", 0, |object, _| {
            json!(if object.is_terminating() {
                "Terminating"
            } else {
                object.str_at("/status/phase")
            })
        }),
        column("Volume", 0, |object, _| json!(object.str_at("/spec/volumeName"))),
        column("Capacity", 0, |object, _| {
            json!(if object.str_at("/spec/volumeName").is_empty() {
                ""
            } else {
                object.str_at("/status/capacity/storage")
            })
        }),
        column("Access Modes", 0, |object, _| {
            json!(if object.str_at("/spec/volumeName").is_empty() {
                String::new()
            } else {
                short_modes(object.list_at("/status/accessModes"))
            })
        }),
        column("StorageClass", 0, |object, _| json!(object.str_at("/spec/storageClassName"))),
        column("VolumeAttributesClass", 0, |object, _| {
            or_unset(object.str_at("/spec/volumeAttributesClassName"))
        }),
        AGE,
        column("VolumeMode", 1, |object, _| or_unset(object.str_at("/spec/volumeMode"))),
    ],
    selectable_fields: &[],
    fields: &[
        FieldSupport {
            path: "spec.dataSource",
            support: Support::StoredOnly,
            why: "no snapshots or clones yet",
        },
        FieldSupport {
            path: "spec.dataSourceRef",
            support: Support::StoredOnly,
            why: "no snapshots or clones yet",
        },
        FieldSupport {
            path: "spec.volumeAttributesClassName",
            support: Support::StoredOnly,
            why: "no driver has attributes",
        },
    ],
    definition: "io.k8s.api.core.v1.PersistentVolumeClaim",
    schema: |generator| {
        drop(generator.subschema_for::<k8s_openapi::api::core::v1::PersistentVolumeClaim>())
    },
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
    let shown: Vec<&str> = ACCESS_MODES
        .iter()
        .filter(|(long, _)| modes.iter().any(|mode| mode == long))
        .map(|(_, short)| *short)
        .collect();
    shown.join(",")
}

/// Errors of `accessModes`.
pub(super) fn access_modes(value: &Value, path: &FieldPath) -> Vec<FieldError> {
    let path = path.child("accessModes");
    let modes = list(value, "accessModes");
    let mut errors = Vec::new();
    if modes.is_empty() {
        errors.push(FieldError::required(&path, "at least 1 access mode is required"));
    }
    let known = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in modes.iter().filter_map(Value::as_str).filter(|mode| !known.contains(mode)) {
        errors.push(FieldError::not_supported(&path, mode, &known));
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        errors.push(FieldError::forbidden(
            &path,
            "may not use ReadWriteOncePod with other access modes",
        ));
    }
    errors
}

fn amount(object: &Object, pointer: &str) -> Option<Quantity> {
    Quantity::parse(object.str_at(pointer)).ok()
}

fn validate(object: &Object) -> Vec<FieldError> {
    validate_claim(object.value(), &FieldPath::new("spec"))
}

/// Errors of the spec of a claim, also of one in a template.
pub(super) fn validate_claim(claim: &Value, path: &FieldPath) -> Vec<FieldError> {
    let spec = claim.get("spec").unwrap_or(&Value::Null);
    let mut errors = access_modes(spec, path);
    let at = path.child("resources").key("storage");
    let requested =
        spec.pointer("/resources/requests/storage").and_then(Value::as_str).unwrap_or_default();
    match Quantity::parse(requested) {
        Err(_) => errors.push(FieldError::required(&at, "")),
        Ok(amount) if amount <= Quantity::ZERO => {
            errors.push(FieldError::invalid(&at, requested, "must be greater than zero"))
        }
        Ok(_) => {}
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        errors.extend(
            crate::metadata::dns_subdomain(class)
                .iter()
                .map(|error| FieldError::invalid(&path.child("storageClassName"), class, error)),
        );
    }
    let modes = ["Block", "Filesystem"];
    if !modes.contains(&text(spec, "volumeMode")) {
        errors.push(FieldError::not_supported(
            &path.child("volumeMode"),
            text(spec, "volumeMode"),
            &modes,
        ));
    }
    errors
}

/// What may change: the request of a bound claim, and what the binder sets once.
fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let path = FieldPath::new("spec");
    let mut errors = validate(new);
    let mut as_before = new.clone();
    let bound = |object: &Object| object.str_at("/status/phase") == "Bound";
    let mut free = Vec::new();
    if bound(new) && bound(old) {
        free.extend(["/spec/resources/requests", "/spec/volumeAttributesClassName"]);
    }
    if old.str_at("/spec/volumeName").is_empty() {
        free.push("/spec/volumeName");
    }
    if old.at("/spec/storageClassName").is_none() {
        free.push("/spec/storageClassName");
    }
    for pointer in free {
        match old.at(pointer) {
            Some(value) => as_before.set(pointer, value.clone()),
            None => drop(as_before.remove(pointer)),
        }
    }
    if as_before.at("/spec") != old.at("/spec") {
        errors.push(FieldError::forbidden(&path, "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"));
    }
    let requested = "/spec/resources/requests/storage";
    let shrinks = amount(new, requested) < amount(old, requested);
    // A failed growth may be taken back, but not below what there is.
    if shrinks && amount(new, requested) <= amount(old, "/status/capacity/storage") {
        errors.push(FieldError::forbidden(
            &path.child("resources").child("requests").child("storage"),
            "field can not be less than status.capacity",
        ));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(change: impl Fn(&mut Object)) -> Object {
        let mut object = Object::new(json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}})).unwrap();
        default_claim(object.value_mut());
        change(&mut object);
        object
    }

    fn said(errors: &[FieldError]) -> String {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_claim_says_how_much_and_how() {
        assert_eq!(said(&validate(&claim(|_| {}))), "");
        assert_eq!(
            said(&validate(&claim(|claim| claim.set("/spec/accessModes", json!([]))))),
            "spec.accessModes: Required value: at least 1 access mode is required"
        );
        assert_eq!(
            said(&validate(&claim(|claim| claim.set("/spec/resources", json!({}))))),
            "spec.resources[storage]: Required value"
        );
        assert_eq!(
            said(&validate(&claim(
                |claim| claim.set("/spec/resources/requests/storage", json!("0"))
            ))),
            "spec.resources[storage]: Invalid value: \"0\": must be greater than zero"
        );
    }

    #[test]
    fn a_claim_grows_once_it_is_bound_and_changes_in_nothing_else() {
        let fixed = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        let size = |size: &'static str, phase: &'static str| {
            claim(move |claim| {
                claim.set("/spec/resources/requests/storage", json!(size));
                claim.set("/status", json!({"phase": phase, "capacity": {"storage": "2Gi"}}));
            })
        };
        assert_eq!(said(&update(&size("3Gi", "Bound"), &size("2Gi", "Bound"))), "");
        assert_eq!(said(&update(&size("3Gi", "Pending"), &size("2Gi", "Pending"))), fixed);
        assert_eq!(
            said(&update(&size("1Gi", "Bound"), &size("2Gi", "Bound"))),
            "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
        );
        assert_eq!(
            said(&update(
                &claim(|claim| claim.set("/spec/volumeName", json!("v"))),
                &claim(|_| {})
            )),
            ""
        );
        assert_eq!(
            said(&update(
                &claim(|_| {}),
                &claim(|claim| claim.set("/spec/volumeName", json!("v")))
            )),
            fixed
        );
    }

    #[test]
    fn a_table_shows_what_a_bound_claim_got() {
        let cell = |claim: &Object, name: &str| {
            KIND.columns
                .iter()
                .find(|column| column.name == name)
                .map(|column| (column.cell)(claim, jiff::Timestamp::UNIX_EPOCH))
                .unwrap()
        };
        let pending = claim(|claim| claim.set("/status/capacity", json!({"storage": "2Gi"})));
        assert_eq!(cell(&pending, "Capacity"), "");
        let bound = claim(|claim| {
            claim.set("/spec/volumeName", json!("v"));
            claim.set("/status", json!({"phase": "Bound", "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"]}));
        });
        assert_eq!(
            (
                cell(&bound, "Capacity"),
                cell(&bound, "Access Modes"),
                cell(&bound, "VolumeAttributesClass")
            ),
            (json!("2Gi"), json!("RWO,RWX"), json!("<unset>"))
        );
    }
}
