//! Where in an object something is wrong: `spec.template.spec.containers[0].image`, and what is wrong there.

use std::fmt;

/// A path to a field. As upstream: `k8s.io/apimachinery/pkg/util/validation/field.Path`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldPath(String);

impl FieldPath {
    /// Starts a path at a top-level field, e.g. `spec`.
    pub fn new(name: &str) -> Self {
        FieldPath(name.to_owned())
    }
    /// The child field `name`.
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() {
            FieldPath(name.to_owned())
        } else {
            FieldPath(format!("{}.{name}", self.0))
        }
    }
    /// The element `index` of a list.
    pub fn index(&self, index: usize) -> Self {
        FieldPath(format!("{}[{index}]", self.0))
    }
    /// The entry `key` of a map.
    pub fn key(&self, key: &str) -> Self {
        FieldPath(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field: one cause of an `Invalid` status.
/// As upstream: `k8s.io/apimachinery/pkg/util/validation/field.Error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Where.
    pub path: String,
    /// `FieldValueRequired`, `FieldValueInvalid`, `FieldValueNotSupported`, `FieldValueForbidden`,
    /// `FieldValueDuplicate`, `FieldValueTooLong`, `FieldValueTooMany`, `FieldValueTypeInvalid`, `FieldValueNotFound`.
    pub reason: &'static str,
    /// The words after the path, e.g. `Invalid value: -1: must be greater than or equal to 0`.
    pub message: String,
}

impl FieldError {
    /// `Required value` with an optional detail.
    pub fn required(path: &FieldPath, detail: &str) -> Self {
        Self::build(path, "FieldValueRequired", join("Required value", detail))
    }
    /// `Invalid value: VALUE: detail`. Strings are quoted, as Go's `%q` and `%#v` do.
    pub fn invalid(path: &FieldPath, value: impl serde::Serialize, detail: &str) -> Self {
        Self::build(
            path,
            "FieldValueInvalid",
            join(&format!("Invalid value: {}", shown(value)), detail),
        )
    }
    /// `Invalid value: detail`, where the value says nothing. As upstream: `field.OmitValueType`.
    pub fn invalid_as_a_whole(path: &FieldPath, detail: &str) -> Self {
        Self::build(path, "FieldValueInvalid", join("Invalid value", detail))
    }
    /// `Unsupported value: "x": supported values: "a", "b"`.
    pub fn not_supported(
        path: &FieldPath,
        value: impl serde::Serialize,
        supported: &[&str],
    ) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let detail = if list.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", list.join(", "))
        };
        Self::build(
            path,
            "FieldValueNotSupported",
            join(&format!("Unsupported value: {}", shown(value)), &detail),
        )
    }
    /// `Forbidden: detail`.
    pub fn forbidden(path: &FieldPath, detail: &str) -> Self {
        Self::build(path, "FieldValueForbidden", join("Forbidden", detail))
    }
    /// `Duplicate value: VALUE`.
    pub fn duplicate(path: &FieldPath, value: impl serde::Serialize) -> Self {
        Self::build(path, "FieldValueDuplicate", format!("Duplicate value: {}", shown(value)))
    }
    /// `Too long: may not be more than MAX bytes`.
    pub fn too_long(path: &FieldPath, max: usize) -> Self {
        Self::build(
            path,
            "FieldValueTooLong",
            format!("Too long: may not be more than {max} bytes"),
        )
    }
    /// `Too many: COUNT: must have at most MAX items`.
    pub fn too_many(path: &FieldPath, count: usize, max: usize) -> Self {
        Self::build(
            path,
            "FieldValueTooMany",
            format!("Too many: {count}: must have at most {max} items"),
        )
    }
    /// `Not found: VALUE`.
    pub fn not_found(path: &FieldPath, value: impl serde::Serialize) -> Self {
        Self::build(path, "FieldValueNotFound", format!("Not found: {}", shown(value)))
    }
    fn build(path: &FieldPath, reason: &'static str, message: String) -> Self {
        FieldError { path: path.to_string(), reason, message }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

fn join(head: &str, detail: &str) -> String {
    if detail.is_empty() { head.to_owned() } else { format!("{head}: {detail}") }
}

fn shown(value: impl serde::Serialize) -> String {
    serde_json::to_string(&value).unwrap_or_else(|_| "null".to_owned())
}
