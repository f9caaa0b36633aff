//! Secret. As upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/v1/conversion.go`.

use super::config_map::{MAX_BYTES, count, immutable, keys};
use super::parts::{AGE, ALL, NAME, PREPARE_PLAIN, column, fine_update};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{Kind, Names, Scope, SelectableField, Validate};
use crate::object::Object;
use serde_json::{Value, json};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names { group: "", version: "v1", kind: "Secret", plural: "secrets", singular: "secret", short: &[], categories: &[] },
    scope: Scope::Namespaced,
    subresources: &[],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::core::v1::Secret>,
    default,
    prepare: PREPARE_PLAIN,
    validate: Validate { name: crate::metadata::dns_subdomain, create: validate, update, update_status: fine_update },
    columns: &[NAME, column("Type", 0, |object, _| json!(object.str_at("/type"))), column("Data", 0, |object, _| json!(count(object, "/data"))), AGE],
    selectable_fields: &[SelectableField { name: "type", value: |object| object.str_at("/type").to_owned() }],
    fields: &[],
    definition: "io.k8s.api.core.v1.Secret",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::core::v1::Secret>()),
};

/// `stringData` is for writing only: it becomes `data`.
fn default(object: &mut Object) {
    if object.str_at("/type").is_empty() {
        object.set("/type", json!("Opaque"));
    }
    if let Some(Value::Object(texts)) = object.remove("/stringData") {
        for (key, text) in texts {
            if object.at("/data").is_none() {
                object.set("/data", json!({}));
            }
            let bytes = k8s_openapi::ByteString(text.as_str().unwrap_or_default().as_bytes().to_vec());
            object.value_mut()["data"][key] = serde_json::to_value(bytes).unwrap_or_default();
        }
    }
}

fn validate(object: &Object) -> Vec<FieldError> {
    let mut errors = keys(object, "data");
    let size: usize = object.at("/data").and_then(Value::as_object).into_iter().flatten().map(|(_, value)| value.as_str().map_or(0, |v| v.len() / 4 * 3)).sum();
    if size > MAX_BYTES {
        errors.push(FieldError::too_long(&FieldPath::new("data"), MAX_BYTES));
    }
    errors
}

fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = validate(new);
    if new.str_at("/type") != old.str_at("/type") {
        errors.push(FieldError::invalid(&FieldPath::new("type"), new.str_at("/type"), "field is immutable"));
    }
    errors.extend(immutable(new, old, &["data"]));
    errors
}
