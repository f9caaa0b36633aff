//! Metadata: which names, labels and owners are legal, and what may not change.
//! As upstream: `k8s.io/apimachinery/pkg/util/validation` and `pkg/api/validation/objectmeta.go`.

use crate::field_path::{FieldError, FieldPath};
use crate::object::Object;
use serde_json::Value;

const DNS_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
/// All annotations of an object together, in bytes.
pub(crate) const ANNOTATIONS_MAX: usize = 256 * 1024;
/// How long the given part of a generated name may be: five characters follow.
const GENERATED_BASE_MAX: usize = 63 - 5;
/// The characters of generated suffixes: none that could make a word or look like another.
pub const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

fn edges_and_middle(text: &str, edge: fn(u8) -> bool, middle: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            edge(*first) && edge(*last) && bytes.iter().all(|b| middle(*b))
        }
        _ => false,
    }
}
fn lower_alphanumeric(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}
fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// An RFC 1123 label: at most 63 characters.
pub fn dns_label(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 63 {
        errors.push(too_long(63));
    }
    if !edges_and_middle(name, lower_alphanumeric, |b| lower_alphanumeric(b) || b == b'-') {
        errors.push(DNS_LABEL.to_owned());
    }
    errors
}

/// An RFC 1123 subdomain: labels joined by dots, at most 253 characters.
pub fn dns_subdomain(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 253 {
        errors.push(too_long(253));
    }
    let legal = |label: &str| {
        edges_and_middle(label, lower_alphanumeric, |b| lower_alphanumeric(b) || b == b'-')
    };
    if !name.split('.').all(legal) {
        errors.push(DNS_SUBDOMAIN.to_owned());
    }
    errors
}

/// An RFC 1035 label (names of Services).
pub fn dns_1035_label(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 63 {
        errors.push(too_long(63));
    }
    let legal = edges_and_middle(name, lower_alphanumeric, |b| lower_alphanumeric(b) || b == b'-');
    if !legal || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        errors.push(DNS_1035.to_owned());
    }
    errors
}

/// Anything that can be one segment of a path.
pub fn path_segment(name: &str) -> Vec<String> {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    ["/", "%"]
        .iter()
        .filter(|part| name.contains(**part))
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

/// A label key: an optional DNS prefix and a name.
pub fn qualified_name(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let parts: Vec<&str> = key.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(
                    dns_subdomain(prefix).into_iter().map(|error| format!("prefix part {error}")),
                );
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key must consist of alphanumeric characters, '-', '_' or '.', with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName'): {QUALIFIED}"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errors.push("name part must be no more than 63 bytes".to_owned());
    }
    if !edges_and_middle(name, |b| b.is_ascii_alphanumeric(), label_byte) {
        errors.push(QUALIFIED.to_owned());
    }
    errors
}

fn label_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')
}

/// A label value: at most 63 characters, possibly none.
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(too_long(63));
    }
    if !value.is_empty() && !edges_and_middle(value, |b| b.is_ascii_alphanumeric(), label_byte) {
        errors.push(LABEL_VALUE.to_owned());
    }
    errors
}

/// A name from `base` and five characters; `random` is any number.
pub fn generate_name(base: &str, random: u64) -> String {
    let mut end = base.len().min(GENERATED_BASE_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    let mut rest = random;
    for _ in 0..5 {
        name.push(SUFFIX_ALPHABET[(rest % 27) as usize] as char);
        rest /= 27;
    }
    name
}

/// Labels of an object or a template.
pub fn validate_labels(labels: Option<&Value>, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        errors
            .extend(qualified_name(key).iter().map(|error| FieldError::invalid(path, key, error)));
        let value = value.as_str().unwrap_or_default();
        errors
            .extend(label_value(value).iter().map(|error| FieldError::invalid(path, value, error)));
    }
    errors
}

fn validate_annotations(annotations: Option<&Value>, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    for (key, value) in annotations.and_then(Value::as_object).into_iter().flatten() {
        errors.extend(
            qualified_name(&key.to_lowercase())
                .iter()
                .map(|error| FieldError::invalid(path, key, error)),
        );
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_MAX));
    }
    errors
}

fn validate_owners(object: &Object, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut controllers = Vec::new();
    for (index, owner) in object.list_at("/metadata/ownerReferences").iter().enumerate() {
        let path = path.index(index);
        let text = |field: &str| owner[field].as_str().unwrap_or_default();
        if text("apiVersion").is_empty() {
            errors.push(FieldError::invalid(
                &path.child("apiVersion"),
                "",
                "version must not be empty",
            ));
        }
        for field in ["kind", "name", "uid"] {
            if text(field).is_empty() {
                errors.push(FieldError::invalid(
                    &path.child(field),
                    "",
                    &format!("{field} must not be empty"),
                ));
            }
        }
        if owner["controller"] == true {
            controllers.push(format!("{}/{}", text("kind"), text("name")));
        }
    }
    if let [first, second, ..] = &controllers[..] {
        errors.push(FieldError::invalid(path, object.at("/metadata/ownerReferences"), &format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
        )));
    }
    errors
}

/// What is wrong with the metadata of a new object. `legal_name` is the kind's rule.
pub fn validate_create(object: &Object, legal_name: fn(&str) -> Vec<String>) -> Vec<FieldError> {
    let path = FieldPath::new("metadata");
    let mut errors = Vec::new();
    let generate = object.str_at("/metadata/generateName");
    if !generate.is_empty() {
        // The given part may end where a name may not: the suffix follows.
        let probe = format!("{}a", generate);
        errors.extend(
            legal_name(&probe)
                .iter()
                .map(|error| FieldError::invalid(&path.child("generateName"), generate, error)),
        );
    }
    if object.name().is_empty() {
        errors.push(FieldError::required(&path.child("name"), "name or generateName is required"));
    } else {
        errors.extend(
            legal_name(object.name())
                .iter()
                .map(|error| FieldError::invalid(&path.child("name"), object.name(), error)),
        );
    }
    errors.extend(validate_common(object, &path));
    errors
}

fn validate_common(object: &Object, path: &FieldPath) -> Vec<FieldError> {
    let metadata = object.metadata();
    let mut errors = Vec::new();
    if object.generation() < 0 {
        errors.push(FieldError::invalid(
            &path.child("generation"),
            object.generation(),
            "must be greater than or equal to 0",
        ));
    }
    errors.extend(validate_labels(metadata.get("labels"), &path.child("labels")));
    errors.extend(validate_annotations(metadata.get("annotations"), &path.child("annotations")));
    errors.extend(validate_owners(object, &path.child("ownerReferences")));
    for (index, finalizer) in object.finalizers().iter().enumerate() {
        errors.extend(qualified_name(finalizer).iter().map(|error| {
            FieldError::invalid(&path.child("finalizers").index(index), finalizer, error)
        }));
    }
    errors
}

/// What is wrong with the metadata of a changed object.
pub fn validate_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let path = FieldPath::new("metadata");
    let mut errors = validate_common(new, &path);
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        let pointer = format!("/metadata/{field}");
        if new.at(&pointer) != old.at(&pointer) {
            errors.push(FieldError::invalid(
                &path.child(field),
                new.at(&pointer),
                "field is immutable",
            ));
        }
    }
    if old.is_terminating() {
        let before = old.finalizers();
        let added: Vec<&str> =
            new.finalizers().into_iter().filter(|finalizer| !before.contains(finalizer)).collect();
        if !added.is_empty() {
            errors.push(FieldError::forbidden(&path.child("finalizers"), &format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            )));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_legal_or_not_as_rfc_1123_says() {
        assert!(dns_label("web-0").is_empty());
        assert!(dns_subdomain("a.b-c.d").is_empty());
        assert_eq!(dns_label("Web"), [DNS_LABEL]);
        assert_eq!(dns_label(""), [DNS_LABEL]);
        assert_eq!(dns_label(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert_eq!(dns_subdomain("a..b"), [DNS_SUBDOMAIN]);
        assert_eq!(dns_1035_label("0a"), [DNS_1035]);
        assert!(qualified_name("apps.kubernetes.io/pod-index").is_empty());
        assert!(!qualified_name("a/b/c").is_empty());
        assert!(label_value("").is_empty());
        assert!(!label_value("-a").is_empty());
    }

    #[test]
    fn generated_names_keep_their_base_and_fit() {
        assert_eq!(generate_name("web-", 0), "web-bbbbb");
        assert_eq!(generate_name(&"ü".repeat(60), u64::MAX).chars().count(), 29 + 5);
    }

    #[test]
    fn an_object_has_one_controller() {
        let owner = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": name, "controller": true});
        let object = Object::new(
            json!({"metadata": {"name": "a", "ownerReferences": [owner("b"), owner("c")]}}),
        )
        .unwrap();
        let errors = validate_create(&object, dns_subdomain);
        assert!(
            errors[0].message.contains("Found \"true\" in references for Pod/b and Pod/c"),
            "{errors:?}"
        );
    }
}
