//! [`Object`]: a JSON object with typed access to its metadata.

use serde_json::{Map, Value, json};

/// A Kubernetes object as JSON: always a JSON object, always with a `metadata` object.
#[derive(Debug, Clone, PartialEq)]
pub struct Object(Value);

impl Object {
    /// Wraps a JSON object; anything else is handed back.
    pub fn new(mut value: Value) -> Result<Self, Value> {
        match &mut value {
            Value::Object(map) => {
                if !map.get("metadata").is_some_and(Value::is_object) {
                    map.insert("metadata".into(), json!({}));
                }
                Ok(Object(value))
            }
            _ => Err(value),
        }
    }
    /// The whole object.
    pub fn value(&self) -> &Value {
        &self.0
    }
    /// The whole object, to change.
    pub fn value_mut(&mut self) -> &mut Value {
        &mut self.0
    }
    /// Unwraps the JSON.
    pub fn into_value(self) -> Value {
        self.0
    }
    /// The value at a JSON pointer, e.g. `/spec/replicas`. `None` when absent or null.
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        self.0.pointer(pointer).filter(|v| !v.is_null())
    }
    /// The string at a JSON pointer; empty when absent or no string.
    pub fn str_at(&self, pointer: &str) -> &str {
        self.at(pointer).and_then(Value::as_str).unwrap_or("")
    }
    /// The integer at a JSON pointer.
    pub fn int_at(&self, pointer: &str) -> Option<i64> {
        self.at(pointer).and_then(Value::as_i64)
    }
    /// The elements of the list at a JSON pointer; empty when absent.
    pub fn list_at(&self, pointer: &str) -> &[Value] {
        self.at(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
    /// Sets the value at a JSON pointer made of field names, creating objects on the way.
    pub fn set(&mut self, pointer: &str, value: Value) {
        let mut here = &mut self.0;
        for field in pointer.split('/').skip(1) {
            if !here.is_object() {
                *here = json!({});
            }
            here = &mut here[field];
        }
        *here = value;
    }
    /// Removes the field at a JSON pointer made of field names and returns it.
    pub fn remove(&mut self, pointer: &str) -> Option<Value> {
        let (parent, field) = pointer.rsplit_once('/')?;
        self.0.pointer_mut(parent)?.as_object_mut()?.remove(field)
    }
    /// `metadata`.
    pub fn metadata(&self) -> &Map<String, Value> {
        static EMPTY: std::sync::OnceLock<Map<String, Value>> = std::sync::OnceLock::new();
        self.0["metadata"].as_object().unwrap_or_else(|| EMPTY.get_or_init(Map::new))
    }
    /// `metadata.name`; empty when absent.
    pub fn name(&self) -> &str {
        self.str_at("/metadata/name")
    }
    /// `metadata.namespace`; empty when absent.
    pub fn namespace(&self) -> &str {
        self.str_at("/metadata/namespace")
    }
    /// `metadata.uid`; empty when absent.
    pub fn uid(&self) -> &str {
        self.str_at("/metadata/uid")
    }
    /// `metadata.resourceVersion`; empty when absent.
    pub fn resource_version(&self) -> &str {
        self.str_at("/metadata/resourceVersion")
    }
    /// `metadata.generation`; 0 when absent.
    pub fn generation(&self) -> i64 {
        self.int_at("/metadata/generation").unwrap_or(0)
    }
    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata().get("labels")?.get(key)?.as_str()
    }
    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata().get("annotations")?.get(key)?.as_str()
    }
    /// Whether `metadata.deletionTimestamp` is set.
    pub fn is_terminating(&self) -> bool {
        self.at("/metadata/deletionTimestamp").is_some()
    }
    /// `metadata.finalizers`.
    pub fn finalizers(&self) -> Vec<&str> {
        self.list_at("/metadata/finalizers").iter().filter_map(Value::as_str).collect()
    }
}
