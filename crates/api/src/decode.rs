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
    // Through text: an error tells its place in it, and so its path, which nobody has to keep track of where there is none.
    let text = serde_json::to_vec(&value).map_err(ApiError::internal)?;
    let known: T = serde_json::from_slice(&text).map_err(|error| {
        let path = path_at(&text, error.column());
        let words = error.to_string();
        let words = words.rsplit_once(" at line 1 column ").map_or(&*words, |(words, _)| words);
        refuse(in_gos_words(&kind, &path, words))
    })?;
    let known = serde_json::to_value(known).map_err(ApiError::internal)?;
    let mut unknown_fields = Vec::new();
    unknown(&value, &known, &Path::Root, &mut unknown_fields);
    Ok(Decoded { value: known, unknown_fields })
}

/// Where in an object something stands: `spec.containers[0].image`. Written only when somebody asks.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Element(&'a Path<'a>, usize),
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Element(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// The path of the value that is being read, or about to be, when so many bytes of JSON (without spaces) are read.
fn path_at(text: &[u8], bytes: usize) -> String {
    /// An object that is being read, with its latest key, or a list.
    enum Level {
        Object(String),
        List(usize),
    }
    let mut levels: Vec<Level> = Vec::new();
    let mut text = text.iter().take(bytes).copied();
    // A string is a key if an object is open and no colon came yet.
    let mut awaits_key = false;
    while let Some(byte) = text.next() {
        match byte {
            b'{' => levels.push(Level::Object(String::new())),
            b'[' => levels.push(Level::List(0)),
            b'}' | b']' => drop(levels.pop()),
            b':' => awaits_key = false,
            b',' => {
                if let Some(Level::List(index)) = levels.last_mut() {
                    *index += 1;
                }
            }
            b'"' => {
                let mut string = vec![b'"'];
                while let Some(byte) = text.next() {
                    string.push(byte);
                    match byte {
                        b'\\' => string.extend(text.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
                if let (true, Some(Level::Object(key))) = (awaits_key, levels.last_mut()) {
                    // Cut off within the key: the object around it is the place.
                    *key = serde_json::from_slice(&string).unwrap_or_default();
                }
            }
            _ => {}
        }
        if matches!(byte, b'{' | b',') {
            awaits_key = matches!(levels.last(), Some(Level::Object(_)));
        }
    }
    let mut path = String::new();
    for level in levels {
        match level {
            Level::Object(key) if key.is_empty() => {}
            Level::Object(key) if path.is_empty() => path = key,
            Level::Object(key) => path = format!("{path}.{key}"),
            Level::List(index) => path = format!("{path}[{index}]"),
        }
    }
    path
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
fn unknown(given: &Value, known: &Value, path: &Path<'_>, found: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (key, value) in given {
                let path = Path::Field(path, key);
                match known.get(key) {
                    Some(known) => unknown(value, known, &path, found),
                    None => found.push(path.to_string()),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                unknown(given, known, &Path::Element(path, index), found);
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
    let mut twice = Vec::new();
    let mut text = serde_json::Deserializer::from_slice(bytes);
    let value = serde::de::DeserializeSeed::deserialize(
        Reading { path: &Path::Root, twice: &mut twice },
        &mut text,
    );
    value.and_then(|value| text.end().map(|()| (value, twice))).map_err(|error| {
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type Object): {error}"
        ))
    })
}

/// Reads a value that stands at `path`.
struct Reading<'a> {
    path: &'a Path<'a>,
    twice: &'a mut Vec<String>,
}

impl<'de> serde::de::DeserializeSeed<'de> for Reading<'_> {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> serde::de::Visitor<'de> for Reading<'_> {
    type Value = Value;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        loop {
            let path = &Path::Element(self.path, elements.len());
            match list.next_element_seed(Reading { path, twice: self.twice })? {
                Some(element) => elements.push(element),
                None => return Ok(Value::Array(elements)),
            }
        }
    }
    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = serde_json::Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = Path::Field(self.path, &key);
            if fields.contains_key(&key) {
                self.twice.push(path.to_string());
            }
            let value = map.next_value_seed(Reading { path: &path, twice: self.twice })?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
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
    fn what_cannot_be_read_is_named_by_its_path() {
        let path = |spec: Value| {
            let message = typed::<StatefulSet>(set(spec)).unwrap_err().message;
            let (_, path) = message.split_once("StatefulSet.").unwrap_or(("", &message));
            path.to_owned()
        };
        let containers = |container: Value| json!({"template": {"spec": {"initContainers": [{"name": "i", "args": ["a", "b"]}], "containers": [{"name": "a"}, container]}}});
        for (wrong, told) in [
            (containers(json!("b")), "spec.template.spec.containers[1] of type "),
            (containers(json!([])), "spec.template.spec.containers[1] of type "),
            (
                containers(json!({"image": {}})),
                "spec.template.spec.containers[1].image of type string",
            ),
            (
                containers(json!({"image": 7, "args": []})),
                "spec.template.spec.containers[1].image of type string",
            ),
            (
                containers(json!({"tty": "yes"})),
                "spec.template.spec.containers[1].tty of type bool",
            ),
            (
                containers(json!({"args": ["a\\\"{[", {}]})),
                "spec.template.spec.containers[1].args[1] of type string",
            ),
            (containers(json!({"args": {}})), "spec.template.spec.containers[1].args of type "),
            (
                json!({"selector": {"matchLabels": {"a\"b": "c", "d": true}}}),
                "spec.selector.matchLabels.d of type string",
            ),
        ] {
            assert!(path(wrong.clone()).starts_with(told), "{wrong}: {}", path(wrong.clone()));
        }
        let missing = path(containers(json!({"ports": [{"name": "p", "containerPort": []}]})));
        assert!(
            missing.contains("spec.template.spec.containers[1].ports[0].containerPort"),
            "{missing}"
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
        let text = br#"{"a":[null,true,-1,1.5,18446744073709551615,"\u00e4",{}]}"#;
        assert_eq!(parse_json(text).unwrap(), (serde_json::from_slice(text).unwrap(), Vec::new()));
        let error = parse_json(br#"{"a":1} x"#).unwrap_err().message;
        assert!(error.ends_with("trailing characters at line 1 column 9"), "{error}");
    }

    #[test]
    fn deep_nesting_is_refused_not_crashed_upon() {
        let text = "[".repeat(100_000);
        assert!(parse_json(text.as_bytes()).is_err());
    }
}
