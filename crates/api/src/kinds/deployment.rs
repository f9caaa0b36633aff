//! Deployment. As upstream: `pkg/apis/apps/v1/defaults.go`, `pkg/apis/apps/validation`, `pkg/registry/apps/deployment`.

use super::parts::{
    AGE, ALL, NAME, PREPARE_SPEC, child, column, default_at, update_spec, update_status_only,
};
use super::{pod, workload};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{Kind, Names, Prepare, Scope, Subresource, Validate};
use crate::object::Object;
use serde_json::{Value, json};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "apps",
        version: "v1",
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short: &["deploy"],
        categories: &["all"],
    },
    scope: Scope::Namespaced,
    subresources: &[
        Subresource::Status,
        Subresource::Scale {
            spec_replicas: "/spec/replicas",
            status_replicas: "/status/replicas",
            selector: "/spec/selector",
        },
    ],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::apps::v1::Deployment>,
    default,
    prepare: Prepare {
        create: PREPARE_SPEC.create,
        update: prepare_update,
        update_status: prepare_status,
    },
    validate: Validate {
        name: crate::metadata::dns_subdomain,
        create: |object| {
            let mut errors = validate(object);
            errors.extend(workload::validate_new_template(object, None));
            errors
        },
        update: |new, old| {
            let mut errors = validate(new);
            errors.extend(workload::validate_new_template(new, Some(old)));
            errors.extend(workload::unchanged(new, old, "selector"));
            errors
        },
        update_status: validate_status,
    },
    columns: &[
        NAME,
        column("Ready", 0, |object, _| {
            json!(format!(
                "{}/{}",
                object.int_at("/status/readyReplicas").unwrap_or(0),
                object.int_at("/spec/replicas").unwrap_or(0)
            ))
        }),
        column("Up-to-date", 0, |object, _| {
            json!(object.int_at("/status/updatedReplicas").unwrap_or(0))
        }),
        column("Available", 0, |object, _| {
            json!(object.int_at("/status/availableReplicas").unwrap_or(0))
        }),
        AGE,
        workload::CONTAINERS,
        workload::IMAGES,
        workload::SELECTOR,
    ],
    selectable_fields: &[],
    fields: pod::TEMPLATE_FIELDS,
    definition: "io.k8s.api.apps.v1.Deployment",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::apps::v1::Deployment>()),
};

fn default(object: &mut Object) {
    let spec = child(object.value_mut(), "spec");
    default_at(spec, "replicas", json!(1));
    default_at(spec, "revisionHistoryLimit", json!(10));
    default_at(spec, "progressDeadlineSeconds", json!(600));
    let strategy = child(spec, "strategy");
    default_at(strategy, "type", json!("RollingUpdate"));
    if strategy["type"] == "RollingUpdate" {
        let rolling = child(strategy, "rollingUpdate");
        default_at(rolling, "maxUnavailable", json!("25%"));
        default_at(rolling, "maxSurge", json!("25%"));
    }
    pod::default_template(child(spec, "template"));
}

/// A changed annotation is a new generation too: it is copied to the newest ReplicaSet.
fn prepare_update(new: &mut Object, old: &Object) {
    update_spec(new, old);
    if new.at("/metadata/annotations") != old.at("/metadata/annotations") {
        new.set("/metadata/generation", json!(old.generation() + 1));
    }
}

/// The status alone, and as everywhere the annotations; labels stay.
fn prepare_status(new: &mut Object, old: &Object) {
    update_status_only(new, old);
    match old.at("/metadata/labels") {
        Some(labels) => new.set("/metadata/labels", labels.clone()),
        None => drop(new.remove("/metadata/labels")),
    }
}

fn validate(object: &Object) -> Vec<FieldError> {
    let spec = FieldPath::new("spec");
    let mut errors = Vec::new();
    for pointer in ["/spec/replicas", "/spec/minReadySeconds", "/spec/revisionHistoryLimit"] {
        workload::not_negative_at(object, pointer, &mut errors);
    }
    errors.extend(workload::validate_own_selector(object, "deployment"));
    errors.extend(workload::validate_always_restarting(object, "ReplicaSet"));
    errors.extend(validate_strategy(object, &spec.child("strategy")));
    if let Some(deadline) = object.int_at("/spec/progressDeadlineSeconds") {
        workload::not_negative_at(object, "/spec/progressDeadlineSeconds", &mut errors);
        if deadline <= object.int_at("/spec/minReadySeconds").unwrap_or(0) {
            errors.push(FieldError::invalid(
                &spec.child("progressDeadlineSeconds"),
                deadline,
                "must be greater than minReadySeconds",
            ));
        }
    }
    errors
}

fn validate_strategy(object: &Object, path: &FieldPath) -> Vec<FieldError> {
    let rolling = object.at("/spec/strategy/rollingUpdate");
    let at = path.child("rollingUpdate");
    match (object.str_at("/spec/strategy/type"), rolling) {
        ("Recreate", None) => Vec::new(),
        ("Recreate", Some(_)) => vec![FieldError::forbidden(
            &at,
            "may not be specified when strategy `type` is 'Recreate'",
        )],
        ("RollingUpdate", None) => {
            vec![FieldError::required(&at, "this should be defaulted and never be nil")]
        }
        ("RollingUpdate", Some(rolling)) => {
            let of = |field: &str| rolling.get(field).unwrap_or(&Value::Null);
            let (unavailable, surge) = (of("maxUnavailable"), of("maxSurge"));
            let mut errors = workload::validate_share(unavailable, &at.child("maxUnavailable"));
            errors.extend(workload::validate_any_share(surge, &at.child("maxSurge")));
            if workload::is_zero(Some(unavailable)) && workload::is_zero(Some(surge)) {
                errors.push(FieldError::invalid(
                    &at.child("maxUnavailable"),
                    unavailable,
                    "may not be 0 when `maxSurge` is 0",
                ));
            }
            errors
        }
        (other, _) => vec![FieldError::not_supported(
            &path.child("type"),
            other,
            &["Recreate", "RollingUpdate"],
        )],
    }
}

fn validate_status(new: &Object, old: &Object) -> Vec<FieldError> {
    const WHOLE: &str = "cannot be greater than status.replicas";
    workload::validate_counters(
        new,
        old,
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ],
        &[
            ("updatedReplicas", "replicas", WHOLE),
            ("readyReplicas", "replicas", WHOLE),
            ("availableReplicas", "replicas", WHOLE),
            ("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas"),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(change: impl FnOnce(&mut Object)) -> Object {
        let mut object = Object::new(json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})).unwrap();
        change(&mut object);
        default(&mut object);
        object
    }

    fn refused(change: impl FnOnce(&mut Object)) -> Vec<String> {
        let object = deployment(change);
        (KIND.validate.create)(&object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let object = deployment(|_| {});
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}});
        assert_eq!(object.at("/spec/strategy"), Some(&strategy));
        assert_eq!(object.int_at("/spec/progressDeadlineSeconds"), Some(600));
        assert_eq!(refused(|_| {}), [""; 0]);
        let recreate =
            deployment(|object| object.set("/spec/strategy", json!({"type": "Recreate"})));
        assert_eq!(recreate.at("/spec/strategy/rollingUpdate"), None);
    }

    #[test]
    fn mistakes_are_named_in_upstreams_words() {
        for (pointer, value, words) in [
            (
                "/spec/selector",
                json!({}),
                "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
            ),
            (
                "/spec/strategy",
                json!({"type": "Blue"}),
                "spec.strategy.type: Unsupported value: \"Blue\": supported values: \"Recreate\", \"RollingUpdate\"",
            ),
            (
                "/spec/strategy",
                json!({"type": "Recreate", "rollingUpdate": {}}),
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            ),
            (
                "/spec/strategy",
                json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ),
            (
                "/spec/strategy",
                json!({"rollingUpdate": {"maxSurge": "much"}}),
                "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"much\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
            ),
            (
                "/spec/strategy",
                json!({"rollingUpdate": {"maxUnavailable": "101%"}}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ),
            (
                "/spec/progressDeadlineSeconds",
                json!(0),
                "spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds",
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("Never"),
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ),
        ] {
            assert_eq!(refused(|object| object.set(pointer, value)), [words]);
        }
    }

    #[test]
    fn the_selector_is_fixed_and_annotations_count_as_a_generation() {
        let mut old = deployment(|_| {});
        (KIND.prepare.create)(&mut old);
        let mut new = old.clone();
        new.set("/spec/selector/matchLabels/app", json!("other"));
        new.set("/spec/template/metadata/labels/app", json!("other"));
        let errors = (KIND.validate.update)(&new, &old);
        assert_eq!(
            errors[0].to_string(),
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"other\"}}: field is immutable"
        );
        let mut annotated = old.clone();
        annotated.set("/metadata/annotations", json!({"a": "b"}));
        (KIND.prepare.update)(&mut annotated, &old);
        assert_eq!(annotated.generation(), 2);
    }

    #[test]
    fn a_status_that_cannot_be_is_refused() {
        let said = deployment(|object| {
            object
                .set("/status", json!({"replicas": 1, "readyReplicas": 1, "availableReplicas": 2}));
        });
        let errors = validate_status(&said, &deployment(|_| {}));
        let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas"
            ]
        );
    }
}
