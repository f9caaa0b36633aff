//! DaemonSet. As upstream: `pkg/apis/apps/v1/defaults.go`, `pkg/apis/apps/validation`, `pkg/registry/apps/daemonset`.

use super::parts::{
    AGE, ALL, NAME, child, column, default_at, drop_status, update_spec, update_status_only,
};
use super::pod;
use super::workload::{
    containers, is_zero, labels_cell, not_negative, selector_cell, unchanged, validate_counters,
    validate_selector, validate_selects_template, validate_share,
};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{Column, Kind, Names, Prepare, Scope, Subresource, Validate};
use crate::object::Object;
use serde_json::{Value, json};

/// On a DaemonSet: how often its template was changed. As upstream: `DeprecatedTemplateGeneration`.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "apps",
        version: "v1",
        kind: "DaemonSet",
        plural: "daemonsets",
        singular: "daemonset",
        short: &["ds"],
        categories: &["all"],
    },
    scope: Scope::Namespaced,
    subresources: &[Subresource::Status],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::apps::v1::DaemonSet>,
    default,
    prepare: Prepare { create, update: prepare_update, update_status: update_status_only },
    validate: Validate {
        name: crate::metadata::dns_subdomain,
        create: validate_create,
        update,
        update_status: validate_status,
    },
    columns: &[
        NAME,
        counter("Desired", |object, _| count(object, "desiredNumberScheduled")),
        counter("Current", |object, _| count(object, "currentNumberScheduled")),
        counter("Ready", |object, _| count(object, "numberReady")),
        counter("Up-to-date", |object, _| count(object, "updatedNumberScheduled")),
        counter("Available", |object, _| count(object, "numberAvailable")),
        column("Node Selector", 0, |object, _| {
            labels_cell(object.at("/spec/template/spec/nodeSelector"))
        }),
        AGE,
        column("Containers", 1, |object, _| containers(object, CONTAINERS, "name")),
        column("Images", 1, |object, _| containers(object, CONTAINERS, "image")),
        column("Selector", 1, |object, _| selector_cell(object.at("/spec/selector"))),
    ],
    selectable_fields: &[],
    fields: pod::TEMPLATE_FIELDS,
    definition: "io.k8s.api.apps.v1.DaemonSet",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::apps::v1::DaemonSet>()),
};

const CONTAINERS: &str = "/spec/template/spec/containers";

const fn counter(name: &'static str, cell: fn(&Object, jiff::Timestamp) -> Value) -> Column {
    Column { kind: "integer", ..column(name, 0, cell) }
}

fn count(object: &Object, field: &str) -> Value {
    json!(object.int_at(&format!("/status/{field}")).unwrap_or(0))
}

fn default(object: &mut Object) {
    let spec = child(object.value_mut(), "spec");
    default_at(spec, "revisionHistoryLimit", json!(10));
    let strategy = child(spec, "updateStrategy");
    if super::parts::text(strategy, "type").is_empty() {
        strategy["type"] = json!("RollingUpdate");
    }
    if strategy["type"] == "RollingUpdate" {
        let rolling = child(strategy, "rollingUpdate");
        default_at(rolling, "maxUnavailable", json!(1));
        default_at(rolling, "maxSurge", json!(0));
    }
    pod::default_template(child(spec, "template"));
    // These counters are always present, as upstream's type writes them.
    let status = child(object.value_mut(), "status");
    for counter in
        ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"]
    {
        default_at(status, counter, json!(0));
    }
}

fn create(object: &mut Object) {
    drop_status(object);
    object.set("/metadata/generation", json!(1));
    set_template_generation(object, 1);
}

fn prepare_update(new: &mut Object, old: &Object) {
    update_spec(new, old);
    let before = old
        .annotation(TEMPLATE_GENERATION)
        .and_then(|number| number.parse::<i64>().ok())
        .unwrap_or(0);
    let step = i64::from(new.at("/spec/template") != old.at("/spec/template"));
    set_template_generation(new, before.saturating_add(step));
}

fn set_template_generation(object: &mut Object, number: i64) {
    let annotations = child(child(object.value_mut(), "metadata"), "annotations");
    annotations[TEMPLATE_GENERATION] = json!(number.to_string());
}

fn validate(object: &Object) -> Vec<FieldError> {
    let path = FieldPath::new("spec");
    let spec = object.at("/spec").unwrap_or(&Value::Null);
    let selector = object.at("/spec/selector").cloned().unwrap_or_default();
    let mut errors = validate_selector(&selector, &path.child("selector"));
    errors.extend(validate_selects_template(object));
    if selector_is_empty(&selector) {
        errors.push(FieldError::invalid(
            &path.child("selector"),
            &selector,
            "empty selector is invalid for daemonset",
        ));
    }
    let template = path.child("template").child("spec");
    let restart = object.str_at("/spec/template/spec/restartPolicy");
    if restart != "Always" {
        errors.push(FieldError::not_supported(
            &template.child("restartPolicy"),
            restart,
            &["Always"],
        ));
    }
    if object.at("/spec/template/spec/activeDeadlineSeconds").is_some() {
        errors.push(FieldError::forbidden(
            &template.child("activeDeadlineSeconds"),
            "activeDeadlineSeconds in DaemonSet is not Supported",
        ));
    }
    errors.extend(not_negative(spec, "minReadySeconds", &path));
    errors.extend(validate_strategy(object, &path.child("updateStrategy")));
    errors.extend(not_negative(spec, "revisionHistoryLimit", &path));
    errors
}

fn selector_is_empty(selector: &Value) -> bool {
    ["matchLabels", "matchExpressions"].iter().all(|field| {
        selector.get(field).is_none_or(|value| {
            value.as_object().is_none_or(|map| map.is_empty())
                && value.as_array().is_none_or(Vec::is_empty)
        })
    })
}

fn validate_strategy(object: &Object, path: &FieldPath) -> Vec<FieldError> {
    match object.str_at("/spec/updateStrategy/type") {
        "OnDelete" => Vec::new(),
        "RollingUpdate" => match object.at("/spec/updateStrategy/rollingUpdate") {
            Some(rolling) => validate_rolling(rolling, &path.child("rollingUpdate")),
            None => vec![FieldError::required(&path.child("rollingUpdate"), "")],
        },
        _ => vec![FieldError::not_supported(
            path,
            object.at("/spec/updateStrategy"),
            &["RollingUpdate", "OnDelete"],
        )],
    }
}

fn validate_rolling(rolling: &Value, path: &FieldPath) -> Vec<FieldError> {
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    let mut errors = Vec::new();
    for (field, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
        errors
            .extend(value.into_iter().flat_map(|value| validate_share(value, &path.child(field))));
    }
    match (is_zero(unavailable), is_zero(surge)) {
        (false, false) => errors.push(FieldError::invalid(
            &path.child("maxSurge"),
            surge,
            "may not be set when maxUnavailable is non-zero",
        )),
        (true, true) => errors.push(FieldError::required(
            &path.child("maxUnavailable"),
            "cannot be 0 when maxSurge is 0",
        )),
        _ => {}
    }
    errors
}

fn validate_template(object: &Object) -> Vec<FieldError> {
    let template = object.at("/spec/template").unwrap_or(&Value::Null);
    let path = FieldPath::new("spec").child("template");
    let mut errors = crate::metadata::validate_labels(
        template.pointer("/metadata/labels"),
        &path.child("labels"),
    );
    errors.extend(pod::validate_template(template, &path, &[]));
    errors
}

fn validate_create(object: &Object) -> Vec<FieldError> {
    let mut errors = validate(object);
    errors.extend(validate_template(object));
    errors
}

fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = validate(new);
    // What was accepted once stays acceptable; only a new template is looked at.
    if new.at("/spec/template") != old.at("/spec/template") {
        errors.extend(validate_template(new));
    }
    errors.extend(unchanged(new, old, "selector"));
    errors
}

fn validate_status(new: &Object, old: &Object) -> Vec<FieldError> {
    let counters = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    validate_counters(new, old, &counters, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(change: impl Fn(&mut Object)) -> Object {
        let mut object = Object::new(json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent", "namespace": "default"}, "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}})).unwrap();
        change(&mut object);
        let mut object = Object::new((KIND.decode)(object.into_value()).unwrap().value).unwrap();
        default(&mut object);
        object
    }

    fn refused(change: impl Fn(&mut Object)) -> String {
        validate_create(&set(change)).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_daemon_set_gets_upstreams_defaults() {
        let object = set(|_| {});
        assert_eq!(
            object.at("/spec/updateStrategy"),
            Some(
                &json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
            )
        );
        assert_eq!(object.int_at("/spec/revisionHistoryLimit"), Some(10));
        let on_delete =
            set(|object| object.set("/spec/updateStrategy", json!({"type": "OnDelete"})));
        assert_eq!(on_delete.at("/spec/updateStrategy"), Some(&json!({"type": "OnDelete"})));
    }

    #[test]
    fn bad_daemon_sets_are_refused_in_upstreams_words() {
        assert_eq!(refused(|_| {}), "");
        for (pointer, value, words) in [
            (
                "/spec/selector",
                json!({}),
                "spec.selector: Invalid value: {}: empty selector is invalid for daemonset",
            ),
            (
                "/spec/selector",
                json!({"matchLabels": {"app": "other"}}),
                "spec.template.metadata.labels: Invalid value: {\"app\":\"agent\"}: `selector` does not match template `labels`",
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("Never"),
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ),
            (
                "/spec/template/spec/activeDeadlineSeconds",
                json!(5),
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported",
            ),
            (
                "/spec/minReadySeconds",
                json!(-1),
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "/spec/updateStrategy/rollingUpdate",
                json!({"maxUnavailable": 1, "maxSurge": 1}),
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
            ),
            (
                "/spec/updateStrategy/rollingUpdate",
                json!({"maxUnavailable": 0}),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
            ),
            (
                "/spec/updateStrategy/rollingUpdate",
                json!({"maxUnavailable": "200%"}),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"200%\": must not be greater than 100%",
            ),
            (
                "/spec/updateStrategy",
                json!({"type": "Recreate"}),
                "spec.updateStrategy: Unsupported value: {\"type\":\"Recreate\"}: supported values: \"RollingUpdate\", \"OnDelete\"",
            ),
        ] {
            assert_eq!(refused(|object| object.set(pointer, value.clone())), words);
        }
    }

    #[test]
    fn the_selector_stays_as_it_is() {
        let other = set(|object| {
            object.set("/spec/selector/matchLabels", json!({"app": "agent", "tier": "x"}));
            object.set("/spec/template/metadata/labels", json!({"app": "agent", "tier": "x"}));
        });
        let errors = update(&other, &set(|_| {}));
        assert_eq!(errors.len(), 1);
        assert!(errors[0].to_string().ends_with("field is immutable"), "{errors:?}");
    }

    #[test]
    fn changes_of_the_template_are_counted_whatever_the_client_says() {
        let mut old = set(|_| {});
        create(&mut old);
        assert_eq!((old.generation(), old.annotation(TEMPLATE_GENERATION)), (1, Some("1")));
        let changed = |pointer: &str, value: Value| {
            let mut new = old.clone();
            new.set(pointer, value);
            prepare_update(&mut new, &old);
            (new.generation(), new.annotation(TEMPLATE_GENERATION).map(str::to_owned))
        };
        assert_eq!(changed("/spec/minReadySeconds", json!(5)), (2, Some("1".into())));
        assert_eq!(changed("/spec/template/spec/hostNetwork", json!(true)), (2, Some("2".into())));
        assert_eq!(
            changed("/metadata/annotations", json!({TEMPLATE_GENERATION: "9"})),
            (1, Some("1".into()))
        );
    }

    #[test]
    fn a_status_that_cannot_be_is_refused() {
        let with = |status: Value| set(|object| object.set("/status", status.clone()));
        let errors =
            validate_status(&with(json!({"numberReady": -1})), &with(json!({"collisionCount": 2})));
        let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "status.numberReady: Invalid value: -1: must be greater than or equal to 0",
                "status.collisionCount: Invalid value: 0: cannot be decremented"
            ]
        );
    }
}
