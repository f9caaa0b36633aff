//! Job. As upstream: `pkg/apis/batch/v1/defaults.go`, `pkg/apis/batch/validation`, `pkg/registry/batch/job`.

mod status;
mod validation;

pub(super) use validation::{validate_spec, validate_template};

use super::parts::{
    AGE, ALL, NAME, child, column, default_at, drop_status, each, update_spec, update_status_only,
};
use super::pod;
use super::workload::{containers, selector_cell};
use crate::kind::{Kind, Names, Prepare, Scope, SelectableField, Subresource, Validate};
use crate::object::Object;
use crate::table::human_duration;
use jiff::Timestamp;
use serde_json::{Value, json};

/// The label of a Job's pods with the Job's uid.
pub const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// The label of a Job's pods with the Job's name.
pub const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The names that these two labels had before Kubernetes 1.27.
pub const OLD_LABELS: [&str; 2] = ["controller-uid", "job-name"];

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "batch",
        version: "v1",
        kind: "Job",
        plural: "jobs",
        singular: "job",
        short: &[],
        categories: &["all"],
    },
    scope: Scope::Namespaced,
    subresources: &[Subresource::Status],
    verbs: ALL,
    deletion: crate::kind::Deletion::Orphaning,
    decode: crate::decode::typed::<k8s_openapi::api::batch::v1::Job>,
    default,
    prepare: Prepare { create, update: update_spec, update_status: update_status_only },
    validate: Validate {
        name: crate::metadata::dns_subdomain,
        create: validation::create,
        update: validation::update,
        update_status: status::update,
    },
    columns: &[
        NAME,
        column("Status", 0, |object, _| json!(status_word(object))),
        column("Completions", 0, |object, _| json!(completions(object))),
        column("Duration", 0, |object, now| json!(duration(object, now))),
        AGE,
        column("Containers", 1, |object, _| containers(object, CONTAINERS, "name")),
        column("Images", 1, |object, _| containers(object, CONTAINERS, "image")),
        column("Selector", 1, |object, _| selector_cell(object.at("/spec/selector"))),
    ],
    selectable_fields: &[SelectableField {
        name: "status.successful",
        value: |object| object.int_at("/status/succeeded").unwrap_or(0).to_string(),
    }],
    fields: pod::JOB_FIELDS,
    definition: "io.k8s.api.batch.v1.Job",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::batch::v1::Job>()),
};

const CONTAINERS: &str = "/spec/template/spec/containers";

/// Whether a condition of a Job holds.
fn holds(object: &Object, kind: &str) -> bool {
    object
        .list_at("/status/conditions")
        .iter()
        .any(|condition| condition["type"] == kind && condition["status"] == "True")
}

fn status_word(object: &Object) -> &'static str {
    match () {
        () if holds(object, "Complete") => "Complete",
        () if holds(object, "Failed") => "Failed",
        () if object.is_terminating() => "Terminating",
        () if holds(object, "Suspended") => "Suspended",
        () if holds(object, "FailureTarget") => "FailureTarget",
        () => "Running",
    }
}

fn completions(object: &Object) -> String {
    let succeeded = object.int_at("/status/succeeded").unwrap_or(0);
    match (object.int_at("/spec/completions"), object.int_at("/spec/parallelism").unwrap_or(0)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(object: &Object, now: Timestamp) -> String {
    let time = |field: &str| object.str_at(&format!("/status/{field}")).parse::<Timestamp>().ok();
    let Some(start) = time("startTime") else { return String::new() };
    let end = time("completionTime").unwrap_or(now);
    human_duration(end.as_second() - start.as_second())
}

fn default(object: &mut Object) {
    let spec = child(object.value_mut(), "spec");
    if spec.get("parallelism").is_none() {
        // Only who says nothing of either wants exactly one success.
        default_at(spec, "completions", json!(1));
    }
    default_at(spec, "parallelism", json!(1));
    let limit = if spec.get("backoffLimitPerIndex").is_some() { i32::MAX } else { 6 };
    default_at(spec, "backoffLimit", json!(limit));
    default_at(spec, "completionMode", json!("NonIndexed"));
    default_at(spec, "suspend", json!(false));
    let replaces =
        if spec.get("podFailurePolicy").is_some() { "Failed" } else { "TerminatingOrFailed" };
    default_at(spec, "podReplacementPolicy", json!(replaces));
    default_at(spec, "manualSelector", json!(false));
    default_template(spec);
    let labels = object.at("/spec/template/metadata/labels").cloned();
    let has_labels = |labels: Option<&Value>| {
        labels.and_then(Value::as_object).is_some_and(|labels| !labels.is_empty())
    };
    if let Some(labels) = labels.filter(|labels| has_labels(Some(labels)))
        && !has_labels(object.at("/metadata/labels"))
    {
        object.set("/metadata/labels", labels);
    }
}

/// What is filled in below the spec of a Job, also in the template of a CronJob.
pub(super) fn default_template(spec: &mut Value) {
    if let Some(policy) = spec.get_mut("podFailurePolicy") {
        for rule in each(policy, "rules") {
            for pattern in each(rule, "onPodConditions") {
                if super::parts::text(pattern, "status").is_empty() {
                    pattern["status"] = json!("True");
                }
            }
        }
    }
    pod::default_template(child(spec, "template"));
}

fn create(object: &mut Object) {
    drop_status(object);
    object.set("/metadata/generation", json!(1));
    if object.at("/spec/manualSelector") != Some(&json!(true)) {
        generate_selector(object);
    }
}

/// Labels by which the pods of this Job, and no others, are found. What the client wrote itself stays, for validation
/// to look at.
fn generate_selector(object: &mut Object) {
    let (uid, name) = (object.uid().to_owned(), object.name().to_owned());
    let spec = child(object.value_mut(), "spec");
    let labels = child(child(child(spec, "template"), "metadata"), "labels");
    for (key, value) in
        [(CONTROLLER_UID, &uid), (OLD_LABELS[0], &uid), (JOB_NAME, &name), (OLD_LABELS[1], &name)]
    {
        default_at(labels, key, json!(value));
    }
    default_at(child(child(spec, "selector"), "matchLabels"), CONTROLLER_UID, json!(uid));
}

#[cfg(test)]
mod tests;
