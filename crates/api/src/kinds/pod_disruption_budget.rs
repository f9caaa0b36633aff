//! PodDisruptionBudget. As upstream: `pkg/apis/policy/validation`, `pkg/registry/policy/poddisruptionbudget`.

use super::parts::{AGE, ALL, NAME, PREPARE_SPEC, child, column, default_at};
use super::workload::{validate_counters, validate_selector, validate_share};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{Column, Kind, Names, Scope, Subresource, Validate};
use crate::object::Object;
use serde_json::{Value, json};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "policy",
        version: "v1",
        kind: "PodDisruptionBudget",
        plural: "poddisruptionbudgets",
        singular: "poddisruptionbudget",
        short: &["pdb"],
        categories: &[],
    },
    scope: Scope::Namespaced,
    subresources: &[Subresource::Status],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::policy::v1::PodDisruptionBudget>,
    default,
    prepare: PREPARE_SPEC,
    validate: Validate {
        name: crate::metadata::dns_subdomain,
        create: validate,
        update: |new, _| validate(new),
        update_status: validate_status,
    },
    columns: &[
        NAME,
        column("Min Available", 0, |object, _| amount(object, "/spec/minAvailable")),
        column("Max Unavailable", 0, |object, _| amount(object, "/spec/maxUnavailable")),
        Column {
            kind: "integer",
            ..column("Allowed Disruptions", 0, |object, _| {
                json!(object.int_at("/status/disruptionsAllowed").unwrap_or(0))
            })
        },
        AGE,
    ],
    selectable_fields: &[],
    fields: &[],
    definition: "io.k8s.api.policy.v1.PodDisruptionBudget",
    schema: |generator| {
        drop(generator.subschema_for::<k8s_openapi::api::policy::v1::PodDisruptionBudget>());
    },
};

fn amount(object: &Object, pointer: &str) -> Value {
    match object.at(pointer) {
        None => json!("N/A"),
        Some(Value::String(text)) => json!(text),
        Some(number) => json!(number.to_string()),
    }
}

/// The counters, as upstream's type always writes them.
const COUNTERS: [&str; 4] =
    ["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"];

fn default(object: &mut Object) {
    let status = child(object.value_mut(), "status");
    for counter in COUNTERS {
        default_at(status, counter, json!(0));
    }
}

fn validate(object: &Object) -> Vec<FieldError> {
    let path = FieldPath::new("spec");
    let mut errors = Vec::new();
    let [minimum, maximum] = ["minAvailable", "maxUnavailable"]
        .map(|field| (field, object.at(&format!("/spec/{field}"))));
    if minimum.1.is_some() && maximum.1.is_some() {
        errors.push(FieldError::invalid(
            &path,
            object.at("/spec"),
            "minAvailable and maxUnavailable cannot be both set",
        ));
    }
    for (field, value) in [minimum, maximum] {
        errors.extend(value.into_iter().flat_map(|v| validate_share(v, &path.child(field))));
    }
    if let Some(selector) = object.at("/spec/selector") {
        errors.extend(validate_selector(selector, &path.child("selector")));
    }
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    if let Some(policy) = object.at("/spec/unhealthyPodEvictionPolicy").and_then(Value::as_str)
        && !policies.contains(&policy)
    {
        let path = path.child("unhealthyPodEvictionPolicy");
        errors.push(FieldError::not_supported(&path, policy, &policies));
    }
    errors
}

fn validate_status(new: &Object, old: &Object) -> Vec<FieldError> {
    validate_counters(new, old, &COUNTERS, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(spec: Value) -> Object {
        let mut object = Object::new(json!({"metadata": {"name": "b"}, "spec": spec})).unwrap();
        default(&mut object);
        object
    }

    fn words(spec: Value) -> Vec<String> {
        validate(&budget(spec)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_budget_is_one_of_two_amounts_and_a_readable_selector() {
        for good in [
            json!({"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}),
            json!({"maxUnavailable": "100%", "unhealthyPodEvictionPolicy": "AlwaysAllow"}),
            json!({"selector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}),
        ] {
            assert_eq!(words(good), [""; 0]);
        }
        assert_eq!(
            words(
                json!({"minAvailable": -1, "maxUnavailable": "101%", "unhealthyPodEvictionPolicy": "Never"})
            ),
            [
                "spec: Invalid value: {\"maxUnavailable\":\"101%\",\"minAvailable\":-1,\"unhealthyPodEvictionPolicy\":\"Never\"}: minAvailable and maxUnavailable cannot be both set",
                "spec.minAvailable: Invalid value: -1: must be greater than or equal to 0",
                "spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
                "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
            ]
        );
        assert_eq!(
            words(
                json!({"selector": {"matchExpressions": [{"key": "a", "operator": "In"}, {"key": "a", "operator": "Exists", "values": ["b"]}, {"key": "a", "operator": "Is"}]}})
            ),
            [
                "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                "spec.selector.matchExpressions[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                "spec.selector.matchExpressions[2].operator: Invalid value: \"Is\": not a valid selector operator",
            ]
        );
    }

    #[test]
    fn what_is_not_said_is_not_available() {
        let budget = budget(json!({"minAvailable": 2}));
        let cells: Vec<Value> = KIND.columns[1..4]
            .iter()
            .map(|c| (c.cell)(&budget, jiff::Timestamp::UNIX_EPOCH))
            .collect();
        assert_eq!(cells, [json!("2"), json!("N/A"), json!(0)]);
    }
}
