//! Reads a client's JSON as a typed Kubernetes object.

use crate::quantity::Quantity;
use crate::status_error::ApiError;
use serde_json::Value;

/// A client's object, read as its type.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object with everything unknown dropped, quantities in canonical form.
    pub value: Value,
    /// Dotted paths of the fields that the type does not know, e.g. `spec.replcas`, as upstream's
    /// strict decoding errors name them.
    pub unknown_fields: Vec<String>,
}

/// Below fields of these names stand amounts.
const AMOUNT_MAPS: [&str; 7] =
    ["limits", "requests", "capacity", "allocatable", "hard", "used", "allocatedResources"];
/// Fields of these names are amounts.
const AMOUNTS: [&str; 2] = ["sizeLimit", "divisor"];
/// Below fields of these names stand words of the users', whatever their keys are called.
const FREE: [&str; 5] = ["data", "stringData", "labels", "annotations", "matchLabels"];
/// Deeper objects are refused; nothing in the API nests like that.
const MAX_DEPTH: usize = 100;

/// Reads `value` as `T` and writes it back, so that only what `T` knows remains.
pub fn typed<T: serde::de::DeserializeOwned + serde::Serialize>(
    mut value: Value,
) -> Result<Decoded, ApiError> {
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    let version = value["apiVersion"].as_str().unwrap_or_default().to_owned();
    let refuse = |why: String| {
        ApiError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
        ))
    };
    drop_nulls(&mut value, 0).map_err(refuse)?;
    canonical_amounts(&mut value, false).map_err(refuse)?;
    let known: T = serde_path_to_error::deserialize(&value).map_err(|error| {
        let path = error.path().to_string();
        refuse(in_gos_words(&kind, &path, &error.into_inner().to_string()))
    })?;
    let known = serde_json::to_value(known).map_err(ApiError::internal)?;
    let mut unknown_fields = Vec::new();
    unknown(&value, &known, "", &mut unknown_fields);
    Ok(Decoded { value: known, unknown_fields })
}

/// In Go a null is the absence of a value.
fn drop_nulls(value: &mut Value, depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err("exceeded max depth".to_owned());
    }
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().try_for_each(|value| drop_nulls(value, depth + 1))
        }
        Value::Array(list) => list.iter_mut().try_for_each(|value| drop_nulls(value, depth + 1)),
        _ => Ok(()),
    }
}

/// Amounts may be written as numbers, and are kept in canonical form.
pub(crate) fn canonical_amounts(value: &mut Value, inside: bool) -> Result<(), String> {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut().filter(|(key, _)| !FREE.contains(&key.as_str())) {
                let amount = inside || AMOUNTS.contains(&key.as_str());
                match value {
                    Value::String(text) if amount => {
                        *value = Value::String(Quantity::parse(text)?.to_string())
                    }
                    Value::Number(number) if amount => {
                        *value = Value::String(Quantity::parse(&number.to_string())?.to_string())
                    }
                    _ => canonical_amounts(value, AMOUNT_MAPS.contains(&key.as_str()))?,
                }
            }
            Ok(())
        }
        Value::Array(list) => list.iter_mut().try_for_each(|value| canonical_amounts(value, false)),
        _ => Ok(()),
    }
}

/// Collects what `given` has and `known` does not.
fn unknown(given: &Value, known: &Value, path: &str, found: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (key, value) in given {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match known.get(key) {
                    Some(known) => unknown(value, known, &path, found),
                    None => found.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                unknown(given, known, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

/// Says a serde error as Go's JSON decoder says it, as far as serde tells enough.
fn in_gos_words(kind: &str, path: &str, error: &str) -> String {
    let Some((given, expected)) =
        error.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "))
    else {
        return format!("{path}: {error}");
    };
    let given = match given.split_whitespace().next().unwrap_or_default() {
        "string" => "string",
        "integer" | "floating" => "number",
        "boolean" => "bool",
        "sequence" => "array",
        _ => "object",
    };
    let expected = match expected {
        "i32" => "int32",
        "i64" => "int64",
        "a boolean" => "bool",
        "a string" => "string",
        other => other.strip_prefix("struct ").unwrap_or(other),
    };
    let owner = match path.split('.').collect::<Vec<_>>()[..] {
        ["spec", _] => format!("{kind}Spec"),
        ["metadata", _] => "ObjectMeta".to_owned(),
        _ => kind.to_owned(),
    };
    format!("json: cannot unmarshal {given} into Go struct field {owner}.{path} of type {expected}")
}

/// Reads JSON and names the fields that stand twice in one object (the last one counts, as in Go).
///
/// An error says where the text stops being JSON.
pub fn parse_json(bytes: &[u8]) -> Result<(Value, Vec<String>), ApiError> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| {
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type Object): {error}"
        ))
    })?;
    let mut duplicates = Vec::new();
    let seen = serde::de::DeserializeSeed::deserialize(
        Duplicates { path: String::new(), found: &mut duplicates },
        &mut serde_json::Deserializer::from_slice(bytes),
    );
    debug_assert!(seen.is_ok(), "the same bytes were just read");
    Ok((value, duplicates))
}

struct Duplicates<'a> {
    path: String,
    found: &'a mut Vec<String>,
}

impl<'de> serde::de::DeserializeSeed<'de> for Duplicates<'_> {
    type Value = ();
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> serde::de::Visitor<'de> for Duplicates<'_> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        while list
            .next_element_seed(Duplicates {
                path: format!("{}[{index}]", self.path),
                found: self.found,
            })?
            .is_some()
        {
            index += 1;
        }
        Ok(())
    }
    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = std::collections::BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let path =
                if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            if !keys.insert(key) {
                self.found.push(path.clone());
            }
            map.next_value_seed(Duplicates { path, found: self.found })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::StatefulSet;
    use serde_json::json;

    fn set(spec: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}, "spec": spec})
    }

    #[test]
    fn unknown_fields_are_dropped_and_named() {
        let spec = json!({"serviceName": "s", "replcas": 3, "selector": {}, "template": {"spec": {"containers": [{"name": "a", "imagee": "b"}]}}});
        let decoded = typed::<StatefulSet>(set(spec)).unwrap();
        assert_eq!(
            decoded.unknown_fields,
            ["spec.replcas", "spec.template.spec.containers[0].imagee"]
        );
        assert!(decoded.value["spec"].get("replcas").is_none());
    }

    #[test]
    fn a_wrong_type_is_told_in_gos_words() {
        let error = typed::<StatefulSet>(set(json!({"replicas": "three"}))).unwrap_err();
        assert_eq!(error.code, 400);
        assert_eq!(
            error.message,
            "StatefulSet in version \"apps/v1\" cannot be handled as a StatefulSet: json: cannot unmarshal string into Go struct field \
             StatefulSetSpec.spec.replicas of type int32"
        );
    }

    #[test]
    fn amounts_may_be_numbers_and_become_canonical() {
        let spec = json!({"template": {"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}, "requests": {"cpu": 0.5}}}]}}});
        let decoded = typed::<StatefulSet>(set(spec)).unwrap();
        let resources =
            decoded.value.pointer("/spec/template/spec/containers/0/resources").unwrap();
        assert_eq!(
            resources,
            &json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})
        );
        assert_eq!(typed::<StatefulSet>(decoded.value.clone()).unwrap().value, decoded.value);
    }

    #[test]
    fn users_words_are_no_amounts() {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "labels": {"divisor": "x"}},
            "data": {"sizeLimit": "1024Mi", "divisor": "none"}});
        let decoded = typed::<k8s_openapi::api::core::v1::ConfigMap>(map.clone()).unwrap();
        assert_eq!(decoded.value, map);
    }

    #[test]
    fn duplicate_fields_are_named() {
        let (value, duplicates) =
            parse_json(br#"{"spec":{"a":1,"b":[{"c":1,"c":2}],"a":3}}"#).unwrap();
        assert_eq!(duplicates, ["spec.b[0].c", "spec.a"]);
        assert_eq!(value["spec"]["a"], 3);
    }

    #[test]
    fn deep_nesting_is_refused_not_crashed_upon() {
        let text = "[".repeat(100_000);
        assert!(parse_json(text.as_bytes()).is_err());
    }
}
