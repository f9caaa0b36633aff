//! ControllerRevision.

use super::parts::{AGE, ALL, NAME, PREPARE_PLAIN, column, fine, fine_update, nothing};
use crate::kind::{Kind, Names, Scope, Validate};
use crate::field_path::{FieldError, FieldPath};
use crate::object::Object;
use serde_json::{Value, json};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names { group: "apps", version: "v1", kind: "ControllerRevision", plural: "controllerrevisions", singular: "controllerrevision", short: &[], categories: &[] },
    scope: Scope::Namespaced,
    subresources: &[],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::apps::v1::ControllerRevision>,
    default: nothing,
    prepare: PREPARE_PLAIN,
    validate: Validate { name: crate::metadata::dns_subdomain, create: fine, update: update, update_status: fine_update },
    columns: &[NAME, column("Controller", 0, controller), column("Revision", 0, |object, _| json!(object.int_at("/revision").unwrap_or(0))), AGE],
    selectable_fields: &[],
    fields: &[],
    definition: "io.k8s.api.apps.v1.ControllerRevision",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::apps::v1::ControllerRevision>()),
};

fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    if new.at("/data") == old.at("/data") {
        return Vec::new();
    }
    vec![FieldError::invalid(&FieldPath::new("data"), new.at("/data"), "field is immutable")]
}

fn controller(object: &Object, _: jiff::Timestamp) -> Value {
    let owner = object.list_at("/metadata/ownerReferences").iter().find(|owner| owner["controller"] == true);
    json!(owner.map_or_else(|| "<none>".to_owned(), |owner| {
        let group = owner["apiVersion"].as_str().and_then(|v| v.split_once('/')).map_or(String::new(), |(group, _)| format!(".{group}"));
        let kind = owner["kind"].as_str().unwrap_or_default().to_lowercase();
        format!("{kind}{group}/{}", owner["name"].as_str().unwrap_or_default())
    }))
}
