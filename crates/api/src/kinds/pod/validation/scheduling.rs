//! What is wrong with where a pod may run.

use super::super::super::parts::{list, text};
use crate::field_path::{FieldError, FieldPath};
use crate::metadata;
use serde_json::Value;

/// Errors of node selector, node affinity, tolerations and gates.
pub(super) fn validate(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    errors.extend(metadata::validate_labels(spec.get("nodeSelector"), &path.child("nodeSelector")));
    if let Some(affinity) = spec.pointer("/affinity/nodeAffinity") {
        validate_node_affinity(affinity, &path.child("affinity").child("nodeAffinity"), errors);
    }
    validate_tolerations(spec, path, errors);
    let mut names = Vec::new();
    for (index, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let path = path.child("schedulingGates").index(index);
        let name = text(gate, "name");
        errors.extend(
            metadata::qualified_name(name)
                .iter()
                .map(|error| FieldError::invalid(&path, name, error)),
        );
        if names.contains(&name) {
            errors.push(FieldError::duplicate(&path, name));
        }
        names.push(name);
    }
    if !names.is_empty() && !text(spec, "nodeName").is_empty() {
        errors.push(FieldError::forbidden(
            &path.child("nodeName"),
            "cannot be set until all schedulingGates have been cleared",
        ));
    }
}

fn validate_node_affinity(affinity: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(required) = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") {
        validate_node_selector(
            required,
            &path.child("requiredDuringSchedulingIgnoredDuringExecution"),
            errors,
        );
    }
    for (index, preferred) in
        list(affinity, "preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate()
    {
        let path = path.child("preferredDuringSchedulingIgnoredDuringExecution").index(index);
        let weight = preferred["weight"].as_i64().unwrap_or(0);
        if !(1..=100).contains(&weight) {
            errors.push(FieldError::invalid(
                &path.child("weight"),
                weight,
                "must be in the range 1-100",
            ));
        }
        validate_term(
            preferred.get("preference").unwrap_or(&Value::Null),
            &path.child("preference"),
            errors,
        );
    }
}

/// Errors of a node selector: of pods, and of volumes.
pub(in super::super::super) fn validate_node_selector(
    selector: &Value,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let path = path.child("nodeSelectorTerms");
    let terms = list(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(FieldError::required(&path, "must have at least one node selector term"));
    }
    for (index, term) in terms.iter().enumerate() {
        validate_term(term, &path.index(index), errors);
    }
}

fn validate_term(term: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, expression) in list(term, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let count = list(expression, "values").len();
        match text(expression, "operator") {
            "In" | "NotIn" if count == 0 => errors.push(FieldError::required(
                &path.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if count > 0 => {
                errors.push(FieldError::forbidden(
                    &path.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ));
            }
            "Gt" | "Lt" if count != 1 => errors.push(FieldError::required(
                &path.child("values"),
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.push(FieldError::invalid(
                &path.child("operator"),
                other,
                "not a valid selector operator",
            )),
        }
        let key = text(expression, "key");
        errors.extend(
            metadata::qualified_name(key)
                .iter()
                .map(|error| FieldError::invalid(&path.child("key"), key, error)),
        );
    }
    for (index, field) in list(term, "matchFields").iter().enumerate() {
        let path = path.child("matchFields").index(index);
        if !["In", "NotIn"].contains(&text(field, "operator")) {
            errors.push(FieldError::invalid(
                &path.child("operator"),
                text(field, "operator"),
                "not a valid selector operator",
            ));
        } else if list(field, "values").len() != 1 {
            errors.push(FieldError::required(
                &path.child("values"),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            ));
        }
        if text(field, "key") != "metadata.name" {
            errors.push(FieldError::invalid(
                &path.child("key"),
                text(field, "key"),
                "not a valid field selector key",
            ));
        }
    }
}

fn validate_tolerations(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, toleration) in list(spec, "tolerations").iter().enumerate() {
        let path = path.child("tolerations").index(index);
        let (operator, key, value) =
            (text(toleration, "operator"), text(toleration, "key"), text(toleration, "value"));
        let effect = text(toleration, "effect");
        if !key.is_empty() {
            errors.extend(
                metadata::qualified_name(key)
                    .iter()
                    .map(|error| FieldError::invalid(&path.child("key"), key, error)),
            );
        }
        if key.is_empty() && operator != "Exists" {
            errors.push(FieldError::invalid(&path.child("operator"), operator, "operator must be Exists when `key` is empty, which means \"match all values and all keys\""));
        }
        if toleration.get("tolerationSeconds").is_some_and(|seconds| !seconds.is_null())
            && effect != "NoExecute"
        {
            errors.push(FieldError::invalid(
                &path.child("effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            ));
        }
        match operator {
            "" | "Equal" => errors.extend(
                metadata::label_value(value)
                    .iter()
                    .map(|error| FieldError::invalid(&path.child("operator"), value, error)),
            ),
            "Exists" if !value.is_empty() => {
                errors.push(FieldError::invalid(
                    &path.child("operator"),
                    toleration,
                    "value must be empty when `operator` is 'Exists'",
                ));
            }
            "Exists" => {}
            other => errors.push(FieldError::not_supported(
                &path.child("operator"),
                other,
                &["Equal", "Exists"],
            )),
        }
        let effects = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
        if !effect.is_empty() && !effects.contains(&effect) {
            errors.push(FieldError::not_supported(&path.child("effect"), effect, &effects));
        }
    }
}
