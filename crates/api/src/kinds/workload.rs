//! What kinds that run pods from a template share. As upstream: `pkg/apis/apps/validation/validation.go`.

use super::parts::column;
use crate::field_path::{FieldError, FieldPath};
use crate::kind::Column;
use crate::object::Object;
use crate::selector::label::LabelSelector;
use serde_json::{Value, json};

/// With `-o wide`.
pub(super) const CONTAINERS: Column =
    column("Containers", 1, |object, _| containers(object, "name"));
/// With `-o wide`.
pub(super) const IMAGES: Column = column("Images", 1, |object, _| containers(object, "image"));
/// With `-o wide`.
pub(super) const SELECTOR: Column = column("Selector", 1, |object, _| {
    let selector = object.at("/spec/selector").cloned();
    let selector = selector.and_then(|selector| serde_json::from_value(selector).ok());
    json!(LabelSelector::of(selector.as_ref()).to_string())
});

/// The names or images of the template's containers.
fn containers(object: &Object, field: &str) -> Value {
    let shown: Vec<&str> = object
        .list_at("/spec/template/spec/containers")
        .iter()
        .filter_map(|container| container[field].as_str())
        .collect();
    json!(shown.join(","))
}

/// Refuses a number below zero.
pub(super) fn not_negative(object: &Object, pointer: &str, errors: &mut Vec<FieldError>) {
    let number = object.int_at(pointer).unwrap_or(0);
    if number < 0 {
        let path = FieldPath::new(&pointer[1..].replace('/', "."));
        errors.push(FieldError::invalid(&path, number, "must be greater than or equal to 0"));
    }
}

/// The selector: given, readable, not empty, and matching the template. `what` is the kind as upstream words it.
pub(super) fn validate_selector(object: &Object, what: &str) -> Vec<FieldError> {
    let spec = FieldPath::new("spec");
    let path = spec.child("selector");
    let selector = object.at("/spec/selector").cloned().unwrap_or_default();
    let is_empty = |field: &str| {
        selector.get(field).is_none_or(|value| {
            value.as_object().is_none_or(|m| m.is_empty())
                && value.as_array().is_none_or(Vec::is_empty)
        })
    };
    if is_empty("matchLabels") && is_empty("matchExpressions") {
        return vec![FieldError::invalid(
            &path,
            &selector,
            &format!("empty selector is invalid for {what}"),
        )];
    }
    let mut errors =
        crate::metadata::validate_labels(selector.get("matchLabels"), &path.child("matchLabels"));
    let operators = ["In", "NotIn", "Exists", "DoesNotExist"];
    for (index, expression) in
        selector["matchExpressions"].as_array().into_iter().flatten().enumerate()
    {
        let operator = expression["operator"].as_str().unwrap_or_default();
        if !operators.contains(&operator) {
            errors.push(FieldError::invalid(
                &path.child("matchExpressions").index(index).child("operator"),
                operator,
                "not a valid selector operator",
            ));
        }
    }
    if errors.is_empty() {
        let typed = serde_json::from_value(selector).ok();
        let labels = object.at("/spec/template/metadata/labels");
        let matches =
            LabelSelector::of(typed.as_ref()).matches_lookup(|key| labels?.get(key)?.as_str());
        if !matches {
            errors.push(FieldError::invalid(
                &spec.child("template").child("metadata").child("labels"),
                labels.unwrap_or(&Value::Null),
                "`selector` does not match template `labels`",
            ));
        }
    }
    errors
}

/// Pods of a template that never end of themselves.
pub(super) fn validate_always_restarting(object: &Object, what: &str) -> Vec<FieldError> {
    let path = FieldPath::new("spec").child("template");
    let mut errors = crate::metadata::validate_labels(
        object.at("/spec/template/metadata/labels"),
        &path.child("labels"),
    );
    let restart = object.str_at("/spec/template/spec/restartPolicy");
    if restart != "Always" {
        errors.push(FieldError::not_supported(
            &path.child("spec").child("restartPolicy"),
            restart,
            &["Always"],
        ));
    }
    if object.at("/spec/template/spec/activeDeadlineSeconds").is_some() {
        errors.push(FieldError::forbidden(
            &path.child("spec").child("activeDeadlineSeconds"),
            &format!("activeDeadlineSeconds in {what} is not Supported"),
        ));
    }
    errors
}

/// A template that is new, or other than the stored one: what was accepted once stays acceptable.
pub(super) fn validate_new_template(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let template = new.at("/spec/template").unwrap_or(&Value::Null);
    if old.is_some_and(|old| old.at("/spec/template") == Some(template)) {
        return Vec::new();
    }
    super::pod::validate_template(template, &FieldPath::new("spec").child("template"), &[])
}

/// A number, or a share of the replicas. As upstream: `ValidatePositiveIntOrPercent`, `IsNotMoreThan100Percent`.
pub(super) fn validate_int_or_percent(
    value: &Value,
    path: &FieldPath,
    at_most_all: bool,
) -> Vec<FieldError> {
    match (value.as_i64(), value.as_str()) {
        (Some(number), _) if number < 0 => {
            vec![FieldError::invalid(path, number, "must be greater than or equal to 0")]
        }
        (_, Some(text)) => match text.strip_suffix('%').and_then(|digits| {
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u32>().ok())?
        }) {
            Some(101..) if at_most_all => {
                vec![FieldError::invalid(path, text, "must not be greater than 100%")]
            }
            Some(_) => Vec::new(),
            None => {
                vec![FieldError::invalid(path, text, "must be an integer or percentage (e.g '5%')")]
            }
        },
        _ => Vec::new(),
    }
}

/// Refuses another selector than the stored one.
pub(super) fn validate_fixed_selector(new: &Object, old: &Object) -> Option<FieldError> {
    (new.at("/spec/selector") != old.at("/spec/selector")).then(|| {
        FieldError::invalid(
            &FieldPath::new("spec").child("selector"),
            new.at("/spec/selector"),
            "field is immutable",
        )
    })
}

/// Refuses counters below zero, and counters above the ones that they are part of.
pub(super) fn validate_counters(
    new: &Object,
    counters: &[&str],
    at_most: &[(&str, &str, &str)],
) -> Vec<FieldError> {
    let count = |field: &str| new.int_at(&format!("/status/{field}")).unwrap_or(0);
    let mut errors = Vec::new();
    for field in counters {
        not_negative(new, &format!("/status/{field}"), &mut errors);
    }
    for (part, whole, words) in at_most {
        if count(part) > count(whole) {
            let path = FieldPath::new("status").child(part);
            errors.push(FieldError::invalid(&path, count(part), words));
        }
    }
    errors
}
