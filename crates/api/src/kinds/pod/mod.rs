//! Pod, and the pod templates of other kinds.

mod columns;
mod defaults;
mod fields;
mod validation;

pub(super) use defaults::default_template;
pub(super) use fields::{CRON_JOB_FIELDS, JOB_FIELDS, TEMPLATE_FIELDS};
pub(super) use validation::{
    port_name, validate_host_path, validate_node_selector, validate_template,
};

use super::parts::{AGE, ALL, NAME, column, or_none, update_spec, update_status_only};
use crate::kind::{Kind, Names, Prepare, Scope, SelectableField, Subresource, Validate};
use crate::object::Object;
use serde_json::{Value, json};

macro_rules! selectable {
    ($($name:literal => $pointer:literal),* $(,)?) => {
        &[$(SelectableField { name: $name, value: |object| object.str_at($pointer).to_owned() }),*]
    };
}

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "",
        version: "v1",
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short: &["po"],
        categories: &["all"],
    },
    scope: Scope::Namespaced,
    subresources: &[
        Subresource::Attach,
        Subresource::Binding,
        Subresource::Eviction,
        Subresource::Exec,
        Subresource::Log,
        Subresource::PortForward,
        Subresource::Status,
    ],
    verbs: ALL,
    deletion: crate::kind::Deletion::Graceful,
    decode: crate::decode::typed::<k8s_openapi::api::core::v1::Pod>,
    default: defaults::default_pod,
    prepare: Prepare { create, update: update_spec, update_status },
    validate: Validate {
        name: crate::metadata::dns_subdomain,
        create: validation::create,
        update: validation::update,
        update_status: |_, _| Vec::new(),
    },
    columns: &[
        NAME,
        column("Ready", 0, |object, _| columns::Summary::of(object).ready()),
        column("Status", 0, |object, _| json!(columns::Summary::of(object).status)),
        column("Restarts", 0, |object, now| columns::Summary::of(object).restarts(now)),
        AGE,
        column("IP", 1, |object, _| or_none(object.str_at("/status/podIP"))),
        column("Node", 1, |object, _| or_none(object.str_at("/spec/nodeName"))),
        column("Nominated Node", 1, |object, _| {
            or_none(object.str_at("/status/nominatedNodeName"))
        }),
        column("Readiness Gates", 1, |object, _| columns::gates(object)),
    ],
    selectable_fields: selectable! {
        "spec.nodeName" => "/spec/nodeName",
        "spec.restartPolicy" => "/spec/restartPolicy",
        "spec.schedulerName" => "/spec/schedulerName",
        "spec.serviceAccountName" => "/spec/serviceAccountName",
        "status.phase" => "/status/phase",
        "status.podIP" => "/status/podIP",
        "status.nominatedNodeName" => "/status/nominatedNodeName",
    },
    fields: fields::FIELDS,
    definition: "io.k8s.api.core.v1.Pod",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::core::v1::Pod>()),
};

fn create(object: &mut Object) {
    let mut status = json!({"phase": "Pending", "qosClass": quality_of_service(object)});
    if !object.list_at("/spec/schedulingGates").is_empty() {
        status["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "Scheduling is blocked due to non-empty scheduling gates"}]);
    }
    object.set("/status", status);
    object.set("/metadata/generation", json!(1));
}

fn update_status(new: &mut Object, old: &Object) {
    update_status_only(new, old);
    if let Some(class) = old.at("/status/qosClass") {
        new.set("/status/qosClass", class.clone());
    }
}

/// The class that a pod's requests and limits put it into. As upstream: `pkg/apis/core/v1/helper/qos`.
pub fn quality_of_service(object: &Object) -> &'static str {
    let containers: Vec<&Value> = object
        .list_at("/spec/containers")
        .iter()
        .chain(object.list_at("/spec/initContainers"))
        .collect();
    let amount = |container: &Value, which: &str, what: &str| {
        container.pointer(&format!("/resources/{which}/{what}")).cloned()
    };
    let any = containers.iter().any(|c| {
        ["requests", "limits"]
            .iter()
            .any(|which| ["cpu", "memory"].iter().any(|what| amount(c, which, what).is_some()))
    });
    let guaranteed = containers.iter().all(|c| {
        ["cpu", "memory"].iter().all(|what| {
            let limit = amount(c, "limits", what);
            limit.is_some()
                && amount(c, "requests", what).is_none_or(|request| Some(request) == limit)
        })
    });
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(containers: Value) -> &'static str {
        quality_of_service(&Object::new(json!({"spec": {"containers": containers}})).unwrap())
    }

    #[test]
    fn the_quality_of_service_follows_from_requests_and_limits() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(class(json!([{}])), "BestEffort");
        assert_eq!(class(json!([{"resources": {"limits": both, "requests": both}}])), "Guaranteed");
        assert_eq!(
            class(json!([{"resources": {"limits": both, "requests": both}}, {}])),
            "Burstable"
        );
        assert_eq!(class(json!([{"resources": {"requests": {"cpu": "1"}}}])), "Burstable");
    }

    #[test]
    fn a_new_pod_is_pending_whatever_the_client_says() {
        let mut pod = Object::new(json!({"spec": {"schedulingGates": [{"name": "g"}]}, "status": {"phase": "Running", "podIP": "10.0.0.1"}})).unwrap();
        create(&mut pod);
        assert_eq!(
            (pod.str_at("/status/phase"), pod.str_at("/status/podIP"), pod.generation()),
            ("Pending", "", 1)
        );
        assert_eq!(pod.str_at("/status/conditions/0/reason"), "SchedulingGated");
        assert_eq!(columns::Summary::of(&pod).status, "SchedulingGated");
    }

    #[test]
    fn a_pods_generation_counts_changes_of_its_spec() {
        let old = Object::new(json!({"metadata": {"generation": 1}, "spec": {"a": 1}, "status": {"phase": "Running"}})).unwrap();
        let mut new =
            Object::new(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"a": 1}})).unwrap();
        update_spec(&mut new, &old);
        assert_eq!((new.generation(), new.str_at("/status/phase")), (1, "Running"));
        new.set("/spec/a", json!(2));
        update_spec(&mut new, &old);
        assert_eq!(new.generation(), 2);
    }
}
