//! ConfigMap. As upstream: `pkg/apis/core/validation`, `pkg/registry/core/configmap`.

use super::parts::{AGE, ALL, NAME, PREPARE_PLAIN, column, fine_update, nothing};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{Kind, Names, Scope, Validate};
use crate::object::Object;
use serde_json::{Value, json};

/// All data of a ConfigMap or Secret together, in bytes.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "",
        version: "v1",
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short: &["cm"],
        categories: &[],
    },
    scope: Scope::Namespaced,
    subresources: &[],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::core::v1::ConfigMap>,
    default: nothing,
    prepare: PREPARE_PLAIN,
    validate: Validate {
        name: crate::metadata::dns_subdomain,
        create: validate,
        update: |new, old| [validate(new), immutable(new, old, &["data", "binaryData"])].concat(),
        update_status: fine_update,
    },
    columns: &[
        NAME,
        column("Data", 0, |object, _| json!(count(object, "/data") + count(object, "/binaryData"))),
        AGE,
    ],
    selectable_fields: &[],
    fields: &[],
    definition: "io.k8s.api.core.v1.ConfigMap",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::core::v1::ConfigMap>()),
};

pub(super) fn count(object: &Object, pointer: &str) -> usize {
    object.at(pointer).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

fn validate(object: &Object) -> Vec<FieldError> {
    let mut errors = keys(object, "data");
    errors.extend(keys(object, "binaryData"));
    let path = FieldPath::new("binaryData");
    for (key, _) in object.at("/binaryData").and_then(Value::as_object).into_iter().flatten() {
        if object.at("/data").is_some_and(|data| data.get(key).is_some()) {
            errors.push(FieldError::invalid(
                &path.key(key),
                key,
                "duplicate of key present in data",
            ));
        }
    }
    let text: usize = values(object, "/data").map(str::len).sum();
    if text.saturating_add(decoded_bytes(object, "/binaryData")) > MAX_BYTES {
        errors.push(FieldError::too_long(&FieldPath::default(), MAX_BYTES));
    }
    errors
}

/// How many bytes the base64 values of a map stand for.
pub(super) fn decoded_bytes(object: &Object, pointer: &str) -> usize {
    values(object, pointer)
        .map(|value| value.trim_end_matches('=').len().saturating_mul(3) / 4)
        .sum()
}

fn values<'a>(object: &'a Object, pointer: &str) -> impl Iterator<Item = &'a str> {
    object
        .at(pointer)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(_, value)| value.as_str())
}

/// What is wrong with a key: keys become names of files.
pub(super) fn key_errors(key: &str) -> Vec<&'static str> {
    let mut errors = Vec::new();
    if key.len() > 253 {
        errors.push("must be no more than 253 bytes");
    }
    if key.is_empty()
        || !key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        errors.push("a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')");
    }
    match key {
        "." => errors.push("must not be '.'"),
        ".." => errors.push("must not be '..'"),
        _ if key.starts_with("..") => errors.push("must not start with '..'"),
        _ => {}
    }
    errors
}

/// Errors of the keys of a map.
pub(super) fn keys(object: &Object, field: &str) -> Vec<FieldError> {
    let path = FieldPath::new(field);
    let map = object.at(&format!("/{field}")).and_then(Value::as_object);
    let errors = |key: &str| {
        key_errors(key)
            .into_iter()
            .map(|error| FieldError::invalid(&path.key(key), key, error))
            .collect::<Vec<_>>()
    };
    map.into_iter().flatten().flat_map(|(key, _)| errors(key)).collect()
}

/// What is immutable stays so, and so does its content.
pub(super) fn immutable(new: &Object, old: &Object, fields: &[&str]) -> Vec<FieldError> {
    if old.at("/immutable") != Some(&json!(true)) {
        return Vec::new();
    }
    let words = "field is immutable when `immutable` is set";
    let mut errors = Vec::new();
    if new.at("/immutable") != Some(&json!(true)) {
        errors.push(FieldError::forbidden(&FieldPath::new("immutable"), words));
    }
    for field in fields {
        let pointer = format!("/{field}");
        if new.at(&pointer) != old.at(&pointer) {
            errors.push(FieldError::forbidden(&FieldPath::new(field), words));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: Value) -> Object {
        Object::new(fields).unwrap()
    }

    fn said(errors: &[FieldError]) -> String {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn keys_are_names_of_files_and_the_whole_fits_a_mebibyte() {
        assert_eq!(
            said(&validate(&map(json!({"data": {"my.cnf": "x"}, "binaryData": {"b": "AAAA"}})))),
            ""
        );
        assert!(
            said(&validate(&map(json!({"data": {"a/b": "x"}})))).starts_with(
                "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of"
            )
        );
        assert_eq!(
            said(&validate(&map(json!({"data": {"a": "x"}, "binaryData": {"a": "AAAA"}})))),
            "binaryData[a]: Invalid value: \"a\": duplicate of key present in data"
        );
        assert_eq!(said(&validate(&map(json!({"data": {"a": "x".repeat(MAX_BYTES)}})))), "");
        assert!(
            said(&validate(&map(json!({"data": {"a": "x".repeat(MAX_BYTES + 1)}}))))
                .ends_with("Too long: may not be more than 1048576 bytes")
        );
    }

    #[test]
    fn what_is_immutable_stays() {
        let old = map(json!({"immutable": true, "data": {"a": "x"}}));
        assert_eq!(said(&immutable(&old, &old, &["data"])), "");
        assert_eq!(
            said(&immutable(&map(json!({"data": {}})), &old, &["data"])),
            "immutable: Forbidden: field is immutable when `immutable` is set; data: Forbidden: field is immutable when `immutable` is set"
        );
    }
}
