//! What kinds that make pods share: columns, selectors, shares of a number, fields that stay as they are.
//! As upstream: `pkg/apis/apps/validation/validation.go`.

use super::parts::{column, list, text};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::Column;
use crate::object::Object;
use crate::selector::label::LabelSelector;
use serde_json::{Value, json};

/// With `-o wide`.
pub(super) const CONTAINERS: Column = column("Containers", 1, |object, _| {
    containers(object, "/spec/template/spec/containers", "name")
});
/// With `-o wide`.
pub(super) const IMAGES: Column =
    column("Images", 1, |object, _| containers(object, "/spec/template/spec/containers", "image"));
/// With `-o wide`.
pub(super) const SELECTOR: Column =
    column("Selector", 1, |object, _| selector_cell(object.at("/spec/selector")));

/// A field of all containers at a pointer, joined by commas. As upstream: `layoutContainerCells`.
pub(super) fn containers(object: &Object, pointer: &str, field: &str) -> Value {
    let shown: Vec<&str> =
        object.list_at(pointer).iter().map(|container| text(container, field)).collect();
    json!(shown.join(","))
}

/// A map of labels as a cell. As upstream: `labels.FormatLabels`.
pub(super) fn labels_cell(labels: Option<&Value>) -> Value {
    let shown: Vec<String> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    super::parts::or_none(&shown.join(","))
}

/// A label selector as a cell. As upstream: `metav1.FormatLabelSelector`.
pub(super) fn selector_cell(selector: Option<&Value>) -> Value {
    let Some(selector) = selector else { return json!("<none>") };
    let labels = selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
    let mut shown: Vec<(String, String)> = labels
        .map(|(key, value)| (key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())))
        .collect();
    for expression in list(selector, "matchExpressions") {
        let key = text(expression, "key");
        let mut values: Vec<&str> =
            list(expression, "values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let words = match text(expression, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        };
        shown.push((key.to_owned(), words));
    }
    shown.sort_by(|a, b| a.0.cmp(&b.0));
    let shown: Vec<String> = shown.into_iter().map(|(_, words)| words).collect();
    super::parts::or_none(&shown.join(","))
}

/// What is wrong with how a selector is written. As upstream: `ValidateLabelSelector`.
pub(super) fn validate_selector(selector: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut errors =
        crate::metadata::validate_labels(selector.get("matchLabels"), &path.child("matchLabels"));
    for (index, expression) in list(selector, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let count = list(expression, "values").len();
        match text(expression, "operator") {
            "In" | "NotIn" if count == 0 => errors.push(FieldError::required(
                &path.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if count > 0 => errors.push(FieldError::forbidden(
                &path.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(
                &path.child("operator"),
                other,
                "not a valid selector operator",
            )),
        }
        let key = text(expression, "key");
        errors.extend(
            crate::metadata::qualified_name(key)
                .iter()
                .map(|error| FieldError::invalid(&path.child("key"), key, error)),
        );
        for (index, value) in list(expression, "values").iter().enumerate() {
            let (value, path) =
                (value.as_str().unwrap_or_default(), path.child("values").index(index));
            let found = crate::metadata::label_value(value);
            errors.extend(found.iter().map(|error| FieldError::invalid(&path, value, error)));
        }
    }
    errors
}

/// Whether a selector, as JSON, matches labels, as JSON. One that cannot be read matches nothing.
pub(super) fn selects(selector: Option<&Value>, labels: Option<&Value>) -> bool {
    let typed = selector.cloned().and_then(|selector| serde_json::from_value(selector).ok());
    LabelSelector::of(typed.as_ref()).matches_lookup(|key| labels?.get(key)?.as_str())
}

/// The error of a template whose pods its own selector would not find.
pub(super) fn validate_selects_template(object: &Object) -> Option<FieldError> {
    let labels = object.at("/spec/template/metadata/labels");
    (!selects(object.at("/spec/selector"), labels)).then(|| {
        FieldError::invalid(
            &FieldPath::new("spec").child("template").child("metadata").child("labels"),
            labels.unwrap_or(&Value::Null),
            "`selector` does not match template `labels`",
        )
    })
}

/// The error of a number below zero.
pub(super) fn not_negative(value: &Value, field: &str, path: &FieldPath) -> Option<FieldError> {
    let number = value.get(field).and_then(Value::as_i64).filter(|number| *number < 0)?;
    Some(FieldError::invalid(&path.child(field), number, "must be greater than or equal to 0"))
}

/// The error of a field below `spec` that differs from the stored one. As upstream: `ValidateImmutableField`.
pub(super) fn unchanged(new: &Object, old: &Object, field: &str) -> Option<FieldError> {
    let pointer = format!("/spec/{field}");
    let path = FieldPath::new("spec").child(field);
    (new.at(&pointer) != old.at(&pointer))
        .then(|| FieldError::invalid(&path, new.at(&pointer), "field is immutable"))
}

/// What is wrong with a number or a share in percent. As upstream: `ValidatePositiveIntOrPercent`.
pub(super) fn validate_any_share(value: &Value, path: &FieldPath) -> Vec<FieldError> {
    match (value.as_i64(), value.as_str().map(percent)) {
        (Some(number), _) if number < 0 => {
            vec![FieldError::invalid(path, number, "must be greater than or equal to 0")]
        }
        (_, Some(None)) => vec![FieldError::invalid(
            path,
            value,
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
        )],
        _ => Vec::new(),
    }
}

/// The same of a share that cannot be more than the whole. As upstream: also `IsNotMoreThan100Percent`.
pub(super) fn validate_share(value: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = validate_any_share(value, path);
    if value.as_str().and_then(percent).is_some_and(|share| share > 100) {
        errors.push(FieldError::invalid(path, value, "must not be greater than 100%"));
    }
    errors
}

/// Whether a number or a share is none at all.
pub(super) fn is_zero(value: Option<&Value>) -> bool {
    value.is_none_or(|value| match (value.as_i64(), value.as_str()) {
        (Some(number), _) => number == 0,
        (_, Some(text)) => percent(text).unwrap_or(0) == 0,
        _ => true,
    })
}

fn percent(text: &str) -> Option<u32> {
    let digits = text.strip_suffix('%')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u32::MAX))
}

/// The error of a number below zero at a pointer.
pub(super) fn not_negative_at(object: &Object, pointer: &str, errors: &mut Vec<FieldError>) {
    let number = object.int_at(pointer).unwrap_or(0);
    if number < 0 {
        let path = FieldPath::new(&pointer[1..].replace('/', "."));
        errors.push(FieldError::invalid(&path, number, "must be greater than or equal to 0"));
    }
}

/// The selector of a kind that must have one: given, readable, not empty, and matching the template. `what` is the
/// kind as upstream words it.
pub(super) fn validate_own_selector(object: &Object, what: &str) -> Vec<FieldError> {
    let path = FieldPath::new("spec").child("selector");
    let selector = object.at("/spec/selector").cloned().unwrap_or_default();
    let is_empty = list(&selector, "matchExpressions").is_empty()
        && selector.get("matchLabels").and_then(Value::as_object).is_none_or(|map| map.is_empty());
    if is_empty {
        let why = format!("empty selector is invalid for {what}");
        return vec![FieldError::invalid(&path, &selector, &why)];
    }
    let errors = validate_selector(&selector, &path);
    if errors.is_empty() { validate_selects_template(object).into_iter().collect() } else { errors }
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

/// What is wrong with a status: counters below zero, counters above the ones that they are part of, and a count of
/// collisions that goes back.
pub(super) fn validate_counters(
    new: &Object,
    old: &Object,
    counters: &[&str],
    at_most: &[(&str, &str, &str)],
) -> Vec<FieldError> {
    let status = FieldPath::new("status");
    let count = |object: &Object, field: &str| object.int_at(&format!("/status/{field}"));
    let of_new = |field: &str| count(new, field).unwrap_or(0);
    let mut errors = Vec::new();
    for field in counters {
        not_negative_at(new, &format!("/status/{field}"), &mut errors);
    }
    for (part, whole, words) in at_most {
        if of_new(part) > of_new(whole) {
            errors.push(FieldError::invalid(&status.child(part), of_new(part), words));
        }
    }
    let collisions = of_new("collisionCount");
    if count(old, "collisionCount").is_some_and(|before| collisions < before) {
        let path = status.child("collisionCount");
        errors.push(FieldError::invalid(&path, collisions, "cannot be decremented"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_shown_as_upstream_shows_them() {
        assert_eq!(selector_cell(None), json!("<none>"));
        assert_eq!(selector_cell(Some(&json!({}))), json!("<none>"));
        let selector = json!({"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["y", "x"]}, {"key": "e", "operator": "DoesNotExist"}, {"key": "d", "operator": "Exists"}]});
        assert_eq!(selector_cell(Some(&selector)), json!("a=1,b=2,c in (x,y),d,!e"));
        assert_eq!(labels_cell(Some(&json!({"disk": "ssd"}))), json!("disk=ssd"));
        assert_eq!(labels_cell(None), json!("<none>"));
    }

    #[test]
    fn bad_selectors_are_refused_in_upstreams_words() {
        let refused = |expression: Value| {
            let selector = json!({"matchExpressions": [expression]});
            let errors = validate_selector(&selector, &FieldPath::new("s"));
            errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(refused(json!({"key": "a", "operator": "In", "values": ["b"]})), "");
        assert_eq!(
            refused(json!({"key": "a", "operator": "In"})),
            "s.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
        );
        assert_eq!(
            refused(json!({"key": "a", "operator": "Exists", "values": ["b"]})),
            "s.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        );
        assert_eq!(
            refused(json!({"key": "a", "operator": "Is"})),
            "s.matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator"
        );
    }

    #[test]
    fn shares_are_numbers_or_percents() {
        let refused = |value: Value| {
            let errors = validate_share(&value, &FieldPath::new("m"));
            errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(refused(json!(0)), "");
        assert_eq!(refused(json!("100%")), "");
        assert_eq!(refused(json!(-1)), "m: Invalid value: -1: must be greater than or equal to 0");
        assert_eq!(
            refused(json!("101%")),
            "m: Invalid value: \"101%\": must not be greater than 100%"
        );
        assert!(refused(json!("many")).contains("a valid percent string must be"));
        assert!(is_zero(None) && is_zero(Some(&json!("0%"))) && !is_zero(Some(&json!("1%"))));
    }
}
