//! StorageClass.

use super::parts::{AGE, ALL, NAME, PREPARE_PLAIN, column, default_at, fine_update};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::Column;
use crate::kind::{FieldSupport, Kind, Names, Scope, Support, Validate};
use crate::object::Object;
use serde_json::{Value, json};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "storage.k8s.io",
        version: "v1",
        kind: "StorageClass",
        plural: "storageclasses",
        singular: "storageclass",
        short: &["sc"],
        categories: &[],
    },
    scope: Scope::Cluster,
    subresources: &[],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::storage::v1::StorageClass>,
    default,
    prepare: PREPARE_PLAIN,
    validate: Validate {
        name: crate::metadata::dns_subdomain,
        create: validate,
        update,
        update_status: fine_update,
    },
    columns: &[
        Column { cell: |object, _| name(object), ..NAME },
        column("Provisioner", 0, |object, _| json!(object.str_at("/provisioner"))),
        column("ReclaimPolicy", 0, |object, _| json!(object.str_at("/reclaimPolicy"))),
        column("VolumeBindingMode", 0, |object, _| json!(object.str_at("/volumeBindingMode"))),
        column("AllowVolumeExpansion", 0, |object, _| {
            json!(object.at("/allowVolumeExpansion") == Some(&json!(true)))
        }),
        AGE,
    ],
    selectable_fields: &[],
    fields: &[
        FieldSupport {
            path: "mountOptions",
            support: Support::StoredOnly,
            why: "directories are bind-mounted",
        },
        FieldSupport {
            path: "allowedTopologies",
            support: Support::StoredOnly,
            why: "a volume is made where its first pod runs",
        },
    ],
    definition: "io.k8s.api.storage.v1.StorageClass",
    schema: |generator| {
        drop(generator.subschema_for::<k8s_openapi::api::storage::v1::StorageClass>())
    },
};

/// Marks the class of claims that name none.
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

fn default(object: &mut Object) {
    default_at(object.value_mut(), "reclaimPolicy", json!("Delete"));
    default_at(object.value_mut(), "volumeBindingMode", json!("Immediate"));
}

fn name(object: &Object) -> Value {
    let marked = [DEFAULT_CLASS, "storageclass.beta.kubernetes.io/is-default-class"]
        .iter()
        .any(|mark| object.annotation(mark) == Some("true"));
    json!(format!("{}{}", object.name(), if marked { " (default)" } else { "" }))
}

fn validate(object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let provisioner = object.str_at("/provisioner");
    let path = FieldPath::new("provisioner");
    if provisioner.is_empty() {
        errors.push(FieldError::required(&path, ""));
    } else {
        errors.extend(
            crate::metadata::qualified_name(&provisioner.to_lowercase())
                .iter()
                .map(|error| FieldError::invalid(&path, provisioner, error)),
        );
    }
    for (field, supported) in [
        ("reclaimPolicy", ["Delete", "Retain"]),
        ("volumeBindingMode", ["Immediate", "WaitForFirstConsumer"]),
    ] {
        let value = object.str_at(&format!("/{field}"));
        if value.is_empty() {
            errors.push(FieldError::required(&FieldPath::new(field), ""));
        } else if !supported.contains(&value) {
            errors.push(FieldError::not_supported(&FieldPath::new(field), value, &supported));
        }
    }
    errors
}

fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = validate(new);
    for field in ["parameters", "provisioner", "reclaimPolicy"] {
        let pointer = format!("/{field}");
        if new.at(&pointer) != old.at(&pointer) {
            errors.push(FieldError::forbidden(
                &FieldPath::new(field),
                &format!("updates to {field} are forbidden."),
            ));
        }
    }
    if new.at("/volumeBindingMode") != old.at("/volumeBindingMode") {
        errors.push(FieldError::invalid(
            &FieldPath::new("volumeBindingMode"),
            new.str_at("/volumeBindingMode"),
            "field is immutable",
        ));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(change: impl Fn(&mut Object)) -> Object {
        let mut object = Object::new(
            json!({"metadata": {"name": "standard"}, "provisioner": "example.com/local"}),
        )
        .unwrap();
        default(&mut object);
        change(&mut object);
        object
    }

    fn said(errors: &[FieldError]) -> String {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn what_made_volumes_stays() {
        assert_eq!(said(&validate(&class(|_| {}))), "");
        assert_eq!(
            said(&update(
                &class(|class| class.set("/allowVolumeExpansion", json!(true))),
                &class(|_| {})
            )),
            ""
        );
        assert_eq!(
            said(&update(
                &class(|class| class.set("/parameters", json!({"a": "b"}))),
                &class(|_| {})
            )),
            "parameters: Forbidden: updates to parameters are forbidden."
        );
        assert_eq!(
            said(&update(
                &class(|class| class.set("/reclaimPolicy", json!("Retain"))),
                &class(|_| {})
            )),
            "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden."
        );
        assert_eq!(
            said(&update(
                &class(|class| class.set("/volumeBindingMode", json!("WaitForFirstConsumer"))),
                &class(|_| {})
            )),
            "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable"
        );
    }

    #[test]
    fn the_default_class_is_marked() {
        assert_eq!(name(&class(|_| {})), json!("standard"));
        assert_eq!(
            name(
                &class(|class| class.set("/metadata/annotations", json!({DEFAULT_CLASS: "true"})))
            ),
            json!("standard (default)")
        );
    }
}
