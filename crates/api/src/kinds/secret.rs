//! Secret. As upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/v1/conversion.go`.

use super::config_map::{MAX_BYTES, count, decoded_bytes, immutable, keys};
use super::parts::{AGE, ALL, NAME, PREPARE_PLAIN, column, fine_update};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{Kind, Names, Scope, SelectableField, Validate};
use crate::object::Object;
use serde_json::{Value, json};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "",
        version: "v1",
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        short: &[],
        categories: &[],
    },
    scope: Scope::Namespaced,
    subresources: &[],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::core::v1::Secret>,
    default,
    prepare: PREPARE_PLAIN,
    validate: Validate {
        name: crate::metadata::dns_subdomain,
        create: validate,
        update,
        update_status: fine_update,
    },
    columns: &[
        NAME,
        column("Type", 0, |object, _| json!(object.str_at("/type"))),
        column("Data", 0, |object, _| json!(count(object, "/data"))),
        AGE,
    ],
    selectable_fields: &[SelectableField {
        name: "type",
        value: |object| object.str_at("/type").to_owned(),
    }],
    fields: &[],
    definition: "io.k8s.api.core.v1.Secret",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::core::v1::Secret>()),
};

/// Names the account that a token is for.
const ACCOUNT: &str = "kubernetes.io/service-account.name";

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
            let bytes =
                k8s_openapi::ByteString(text.as_str().unwrap_or_default().as_bytes().to_vec());
            object.value_mut()["data"][key] = serde_json::to_value(bytes).unwrap_or_default();
        }
    }
}

fn validate(object: &Object) -> Vec<FieldError> {
    let path = FieldPath::new("data");
    let mut errors = keys(object, "data");
    if decoded_bytes(object, "/data") > MAX_BYTES {
        errors.push(FieldError::too_long(&path, MAX_BYTES));
    }
    let has = |key: &str| object.at("/data").is_some_and(|data| data.get(key).is_some());
    let needed: &[&str] = match object.str_at("/type") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        // Either will do.
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            &["username", "password"]
        }
        "kubernetes.io/service-account-token"
            if object.annotation(ACCOUNT).unwrap_or_default().is_empty() =>
        {
            errors.push(FieldError::required(
                &FieldPath::new("metadata").child("annotations").key(ACCOUNT),
                "",
            ));
            &[]
        }
        _ => &[],
    };
    errors.extend(
        needed.iter().filter(|key| !has(key)).map(|key| FieldError::required(&path.key(key), "")),
    );
    errors
}

fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = validate(new);
    if new.str_at("/type") != old.str_at("/type") {
        errors.push(FieldError::invalid(
            &FieldPath::new("type"),
            new.str_at("/type"),
            "field is immutable",
        ));
    }
    errors.extend(immutable(new, old, &["data"]));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(fields: Value) -> Object {
        let mut object = Object::new(fields).unwrap();
        default(&mut object);
        object
    }

    fn said(errors: &[FieldError]) -> String {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    /// E3.
    #[test]
    fn text_becomes_data_and_wins_over_it() {
        let object =
            secret(json!({"data": {"a": "eA==", "b": "eA=="}, "stringData": {"a": "secret"}}));
        assert_eq!(
            object.value(),
            &json!({"metadata": {}, "type": "Opaque", "data": {"a": "c2VjcmV0", "b": "eA=="}})
        );
    }

    #[test]
    fn a_type_asks_for_its_keys() {
        assert_eq!(
            said(&validate(&secret(json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}})))),
            "data[tls.key]: Required value"
        );
        assert_eq!(
            said(&validate(&secret(
                json!({"type": "kubernetes.io/basic-auth", "data": {"username": ""}})
            ))),
            ""
        );
        assert_eq!(
            said(&update(&secret(json!({})), &secret(json!({"type": "mine"})))),
            "type: Invalid value: \"Opaque\": field is immutable"
        );
    }
}
