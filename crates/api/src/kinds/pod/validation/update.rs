//! What may change of a pod. As upstream: `ValidatePodUpdate`.

use super::super::super::parts::{list, text};
use super::{INT32_MAX, create, range_words};
use crate::field_path::{FieldError, FieldPath};
use crate::object::Object;
use serde_json::{Value, json};

/// Of a changed pod: little may change.
pub(in super::super) fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = create(new);
    let path = FieldPath::new("spec");
    for (field, words) in [
        ("containers", "pod updates may not add or remove containers"),
        ("initContainers", "pod updates may not add or remove init containers"),
    ] {
        let pointer = format!("/spec/{field}");
        if new.list_at(&pointer).len() != old.list_at(&pointer).len() {
            errors.push(FieldError::forbidden(&path.child(field), words));
            return errors;
        }
    }
    validate_deadline(new, old, &path.child("activeDeadlineSeconds"), &mut errors);
    validate_gates(new, old, &path.child("schedulingGates"), &mut errors);
    validate_tolerations(new, old, &path.child("tolerations"), &mut errors);
    let gated = !old.list_at("/spec/schedulingGates").is_empty();
    if gated && !extends(new.at("/spec/nodeSelector"), old.at("/spec/nodeSelector")) {
        errors.push(FieldError::invalid(
            &path.child("nodeSelector"),
            new.at("/spec/nodeSelector"),
            "only additions are allowed to nodeSelector",
        ));
    }
    if fixed(new, gated, true) != fixed(old, gated, may_shorten(new, old)) {
        errors.push(FieldError::forbidden(
            &path,
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
             `spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
    errors
}

/// What of a pod's spec stays.
fn fixed(object: &Object, gated: bool, with_grace: bool) -> Value {
    let mut spec = object.at("/spec").cloned().unwrap_or_default();
    for list in ["containers", "initContainers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut)
        {
            container.insert("image".to_owned(), json!(""));
        }
    }
    if let Value::Object(fields) = &mut spec {
        for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
            fields.remove(field);
        }
        if gated {
            fields.remove("nodeSelector");
        }
        if !with_grace {
            fields.insert("terminationGracePeriodSeconds".to_owned(), json!(1));
        }
    }
    spec
}

/// Whether the time to end stays the stored one; if not, it may become 1 where it was negative.
fn may_shorten(new: &Object, old: &Object) -> bool {
    let seconds = |object: &Object| object.int_at("/spec/terminationGracePeriodSeconds");
    !(seconds(old).is_some_and(|seconds| seconds < 0) && seconds(new) == Some(1))
}

fn validate_deadline(new: &Object, old: &Object, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let seconds = |object: &Object| object.int_at("/spec/activeDeadlineSeconds");
    match (seconds(new), seconds(old)) {
        (Some(new), _) if !(0..=INT32_MAX).contains(&new) => {
            errors.push(FieldError::invalid(path, new, &range_words(0, INT32_MAX)))
        }
        (Some(new), Some(old)) if old < new => errors.push(FieldError::invalid(
            path,
            new,
            "must be less than or equal to previous value",
        )),
        (None, Some(_)) => errors.push(FieldError::invalid(
            path,
            Value::Null,
            "must not update from a positive integer to nil value",
        )),
        _ => {}
    }
}

fn validate_gates(new: &Object, old: &Object, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let before: Vec<&str> =
        old.list_at("/spec/schedulingGates").iter().map(|gate| text(gate, "name")).collect();
    for (index, gate) in new.list_at("/spec/schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        if !before.contains(&name) {
            errors.push(FieldError::forbidden(
                &path.index(index).child("name"),
                &format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            ));
        }
    }
}

fn validate_tolerations(
    new: &Object,
    old: &Object,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let spec = |object: &'_ Object| object.at("/spec").cloned().unwrap_or_default();
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Value::Object(fields) = &mut toleration {
            fields.remove("tolerationSeconds");
        }
        toleration
    };
    let after: Vec<Value> = list(&spec(new), "tolerations").iter().map(without_seconds).collect();
    if list(&spec(old), "tolerations")
        .iter()
        .any(|toleration| !after.contains(&without_seconds(toleration)))
    {
        errors.push(FieldError::forbidden(
            path,
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
}

/// Whether a map has everything that it had.
fn extends(new: Option<&Value>, old: Option<&Value>) -> bool {
    old.and_then(Value::as_object)
        .into_iter()
        .flatten()
        .all(|(key, value)| new.and_then(|new| new.get(key)) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(change: impl Fn(&mut Object)) -> String {
        let mut old = Object::new(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "i"}], "activeDeadlineSeconds": 5,
            "tolerations": [{"key": "a", "operator": "Exists"}], "schedulingGates": [{"name": "g"}], "nodeSelector": {"a": "b"}}})).unwrap();
        (super::super::super::KIND.default)(&mut old);
        let mut new = old.clone();
        change(&mut new);
        update(&new, &old).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn images_deadlines_and_additions_may_change() {
        assert_eq!(
            changed(|pod| pod.value_mut()["spec"]["containers"][0]["image"] = json!("j")),
            ""
        );
        assert_eq!(changed(|pod| pod.set("/spec/activeDeadlineSeconds", json!(4))), "");
        assert_eq!(
            changed(|pod| pod.set(
                "/spec/tolerations",
                json!([{"operator": "Exists"}, {"key": "a", "operator": "Exists"}])
            )),
            ""
        );
        assert_eq!(changed(|pod| pod.set("/spec/nodeSelector", json!({"a": "b", "c": "d"}))), "");
        assert_eq!(changed(|pod| pod.set("/spec/schedulingGates", json!([]))), "");
    }

    #[test]
    fn the_rest_of_a_pod_may_not_change() {
        assert!(changed(|pod| pod.set("/spec/hostname", json!("h"))).starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"));
        assert_eq!(
            changed(|pod| pod.set(
                "/spec/containers",
                json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i"}])
            ))
            .matches("pod updates may not add or remove containers")
            .count(),
            1
        );
        assert_eq!(
            changed(|pod| pod.set("/spec/tolerations", json!([{"operator": "Exists"}]))),
            "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
        );
        assert_eq!(
            changed(|pod| pod.set("/spec/activeDeadlineSeconds", json!(6))),
            "spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"
        );
        assert_eq!(
            changed(|pod| pod.set("/spec/schedulingGates", json!([{"name": "h"}]))),
            "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'h'"
        );
        assert_eq!(
            changed(|pod| pod.set("/spec/nodeSelector", json!({"a": "c"}))),
            "spec.nodeSelector: Invalid value: {\"a\":\"c\"}: only additions are allowed to nodeSelector"
        );
    }
}
