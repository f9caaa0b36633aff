//! ControllerRevision.

use super::parts::{AGE, ALL, NAME, PREPARE_PLAIN, column, fine_update, nothing};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{Kind, Names, Scope, Validate};
use crate::object::Object;
use serde_json::{Value, json};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "apps",
        version: "v1",
        kind: "ControllerRevision",
        plural: "controllerrevisions",
        singular: "controllerrevision",
        short: &[],
        categories: &[],
    },
    scope: Scope::Namespaced,
    subresources: &[],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::apps::v1::ControllerRevision>,
    default: nothing,
    prepare: PREPARE_PLAIN,
    validate: Validate {
        name: crate::metadata::dns_subdomain,
        create: validate,
        update,
        update_status: fine_update,
    },
    columns: &[
        NAME,
        column("Controller", 0, controller),
        column("Revision", 0, |object, _| json!(object.int_at("/revision").unwrap_or(0))),
        AGE,
    ],
    selectable_fields: &[],
    fields: &[],
    definition: "io.k8s.api.apps.v1.ControllerRevision",
    schema: |generator| {
        drop(generator.subschema_for::<k8s_openapi::api::apps::v1::ControllerRevision>())
    },
};

fn validate(object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if object.at("/data").is_none() {
        errors.push(FieldError::required(&FieldPath::new("data"), "data is mandatory"));
    }
    if let Some(revision) = object.int_at("/revision").filter(|revision| *revision < 0) {
        errors.push(FieldError::invalid(
            &FieldPath::new("revision"),
            revision,
            "must be greater than or equal to 0",
        ));
    }
    errors
}

/// A revision may move to another number, but what it holds stays.
fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = validate(new);
    if new.at("/data") != old.at("/data") {
        errors.push(FieldError::invalid(
            &FieldPath::new("data"),
            new.at("/data"),
            "field is immutable",
        ));
    }
    errors
}

fn controller(object: &Object, _: jiff::Timestamp) -> Value {
    let owner = object
        .list_at("/metadata/ownerReferences")
        .iter()
        .find(|owner| owner["controller"] == true);
    json!(owner.map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let group = owner["apiVersion"]
                .as_str()
                .and_then(|v| v.split_once('/'))
                .map_or(String::new(), |(group, _)| format!(".{group}"));
            let kind = owner["kind"].as_str().unwrap_or_default().to_lowercase();
            format!("{kind}{group}/{}", owner["name"].as_str().unwrap_or_default())
        }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(change: impl Fn(&mut Object)) -> Object {
        let mut object = Object::new(json!({"revision": 1, "data": {"spec": 1},
            "metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true}]}})).unwrap();
        change(&mut object);
        object
    }

    #[test]
    fn a_revision_keeps_its_data_but_not_its_number() {
        assert_eq!(update(&revision(|r| r.set("/revision", json!(5))), &revision(|_| {})), []);
        assert_eq!(
            update(&revision(|r| r.set("/data", json!({}))), &revision(|_| {}))[0].to_string(),
            "data: Invalid value: {}: field is immutable"
        );
        assert_eq!(
            validate(&revision(|r| drop(r.remove("/data"))))[0].to_string(),
            "data: Required value: data is mandatory"
        );
    }

    #[test]
    fn the_controller_is_named_with_its_kind_and_group() {
        assert_eq!(
            controller(&revision(|_| {}), jiff::Timestamp::UNIX_EPOCH),
            json!("statefulset.apps/web")
        );
    }
}
