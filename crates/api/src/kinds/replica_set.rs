//! ReplicaSet. As upstream: `pkg/apis/apps/v1/defaults.go`, `pkg/apis/apps/validation`, `pkg/registry/apps/replicaset`.

use super::parts::{AGE, ALL, NAME, PREPARE_SPEC, child, column, default_at};
use super::{pod, workload};
use crate::field_path::FieldError;
use crate::kind::{Kind, Names, Scope, Subresource, Validate};
use crate::object::Object;
use serde_json::json;

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "apps",
        version: "v1",
        kind: "ReplicaSet",
        plural: "replicasets",
        singular: "replicaset",
        short: &["rs"],
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
    decode: crate::decode::typed::<k8s_openapi::api::apps::v1::ReplicaSet>,
    default,
    prepare: PREPARE_SPEC,
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
        column("Desired", 0, |object, _| json!(object.int_at("/spec/replicas").unwrap_or(0))),
        column("Current", 0, |object, _| json!(object.int_at("/status/replicas").unwrap_or(0))),
        column("Ready", 0, |object, _| json!(object.int_at("/status/readyReplicas").unwrap_or(0))),
        AGE,
        workload::CONTAINERS,
        workload::IMAGES,
        workload::SELECTOR,
    ],
    selectable_fields: &[crate::kind::SelectableField {
        name: "status.replicas",
        value: |object| object.int_at("/status/replicas").unwrap_or(0).to_string(),
    }],
    fields: pod::TEMPLATE_FIELDS,
    definition: "io.k8s.api.apps.v1.ReplicaSet",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::apps::v1::ReplicaSet>()),
};

fn default(object: &mut Object) {
    let spec = child(object.value_mut(), "spec");
    default_at(spec, "replicas", json!(1));
    pod::default_template(child(spec, "template"));
    // Always present, as upstream's type writes it.
    default_at(child(object.value_mut(), "status"), "replicas", json!(0));
}

fn validate(object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for pointer in ["/spec/replicas", "/spec/minReadySeconds"] {
        workload::not_negative_at(object, pointer, &mut errors);
    }
    // Upstream names the deployment here.
    errors.extend(workload::validate_own_selector(object, "deployment"));
    errors.extend(workload::validate_always_restarting(object, "ReplicaSet"));
    errors
}

fn validate_status(new: &Object, old: &Object) -> Vec<FieldError> {
    const WHOLE: &str = "cannot be greater than status.replicas";
    workload::validate_counters(
        new,
        old,
        &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "terminatingReplicas",
            "observedGeneration",
        ],
        &[
            ("fullyLabeledReplicas", "replicas", WHOLE),
            ("readyReplicas", "replicas", WHOLE),
            ("availableReplicas", "replicas", WHOLE),
            ("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas"),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_set_without_selector_or_with_another_is_refused() {
        let mut object = Object::new(json!({"metadata": {"name": "web"}, "spec": {
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})).unwrap();
        default(&mut object);
        let words = |object: &Object| {
            (KIND.validate.create)(object).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(words(&object)[0].ends_with("empty selector is invalid for deployment"));
        object.set("/spec/selector", json!({"matchLabels": {"app": "other"}}));
        assert_eq!(
            words(&object),
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"
            ]
        );
        object.set("/spec/selector", json!({"matchLabels": {"app": "web"}}));
        assert_eq!(words(&object), [""; 0]);
        object.set("/status", json!({"replicas": 1, "fullyLabeledReplicas": 2}));
        assert_eq!(validate_status(&object, &object).len(), 1);
    }
}
