//! The pods of a Job: whose they are, how they stand, what new ones look like.

use super::failure_policy::{Verdict, verdict};
use super::{Action, Observed, TRACKING};
use crate::workload::phase;
use crate::workload::{controller, name, uid};
use api::selector::label::LabelSelector;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodTemplateSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Annotation and label of a pod with its completion index.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Annotation of a pod with the number of counted failures of its index before it.
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Annotation of a pod with the number of ignored failures of its index before it.
pub const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// The variable with a pod's completion index.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// How long a given part of a generated name may be.
const GENERATED_BASE_MAX: usize = 58;

/// A reference to the Job as controller.
pub fn controller_reference(job: &Job) -> OwnerReference {
    OwnerReference {
        api_version: "batch/v1".to_owned(),
        kind: "Job".to_owned(),
        name: job.metadata.name.clone().unwrap_or_default(),
        uid: job.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether a pod's end waits to be counted.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

/// A pod's completion index, if it has one.
pub(super) fn index(pod: &Pod) -> Option<i64> {
    let text = pod.metadata.annotations.as_ref()?.get(COMPLETION_INDEX)?;
    text.parse().ok().filter(|index| *index >= 0)
}

/// A counter that stands in an annotation.
fn counter(pod: &Pod, annotation: &str) -> i32 {
    let text = pod.metadata.annotations.as_ref().and_then(|all| all.get(annotation));
    text.and_then(|text| text.parse().ok()).filter(|number| *number >= 0).unwrap_or(0)
}

/// How many counted failures its index had before this pod.
pub(super) fn index_failures(pod: &Pod) -> i32 {
    counter(pod, INDEX_FAILURES)
}

/// How many failures of any sort its index had before this pod.
pub(super) fn all_index_failures(pod: &Pod) -> i32 {
    index_failures(pod).saturating_add(counter(pod, INDEX_IGNORED_FAILURES))
}

/// Whether it may still succeed.
pub(super) fn is_active(pod: &Pod) -> bool {
    !has_ended(pod) && pod.metadata.deletion_timestamp.is_none()
}

pub(super) fn has_ended(pod: &Pod) -> bool {
    ["Succeeded", "Failed"].contains(&phase(pod))
}

/// Whether it is on its way out and has not ended yet.
pub(super) fn is_terminating(pod: &Pod) -> bool {
    !has_ended(pod) && pod.metadata.deletion_timestamp.is_some() && !is_let_go(pod)
}

/// Whether its node has run out its grace period and let it go: only finalizers hold it still. Upstream's kubelet writes a
/// last phase then; a pod that never had a node has none to write.
fn is_let_go(pod: &Pod) -> bool {
    pod.metadata.deletion_grace_period_seconds.is_none_or(|left| left == 0)
}

/// Whether only pods that have failed for good are replaced, and not those that are about to end.
pub(super) fn replaces_only_failed(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|spec| {
        spec.pod_replacement_policy.as_deref() == Some("Failed")
            || spec.pod_failure_policy.is_some()
    })
}

/// Whether a pod has failed. One that is being deleted will never succeed; where only failed pods are replaced it counts
/// when its end is known.
pub(super) fn has_failed(job: &Job, pod: &Pod) -> bool {
    match phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => {
            pod.metadata.deletion_timestamp.is_some()
                && (!replaces_only_failed(job) || is_let_go(pod))
        }
    }
}

/// What a failed pod means for its Job.
pub(super) fn verdict_on(job: &Job, pod: &Pod) -> Verdict {
    verdict(job.spec.as_ref().and_then(|spec| spec.pod_failure_policy.as_ref()), pod)
}

/// The Job's pods, and who is to be adopted and let go. As upstream: `getPodsForJob`.
pub(super) fn members<'a>(observed: &Observed<'a>) -> (Vec<&'a Pod>, Vec<Action>) {
    let job = observed.job;
    let own_uid = job.metadata.uid.as_deref().unwrap_or_default();
    let selector = LabelSelector::of(job.spec.as_ref().and_then(|spec| spec.selector.as_ref()));
    let deleting = job.metadata.deletion_timestamp.is_some();
    let (mut own, mut actions) = (Vec::new(), Vec::new());
    for pod in observed.pods.iter().copied() {
        let matches = selector.matches_optional(pod.metadata.labels.as_ref());
        let identity = || (name(pod).to_owned(), uid(pod).to_owned());
        match controller(&pod.metadata) {
            Some(owner) if owner.uid == own_uid && matches => own.push(pod),
            Some(owner) if owner.uid == own_uid && !deleting => {
                let (name, uid) = identity();
                actions.push(Action::ReleasePod { name, uid });
            }
            None if matches && !deleting && pod.metadata.deletion_timestamp.is_none() => {
                let (name, uid) = identity();
                actions.push(Action::AdoptPod { name, uid });
                own.push(pod);
            }
            _ => {}
        }
    }
    (own, actions)
}

/// Whether nobody will ever count this pod's end, so that its finalizer must go: its Job is gone, has finished, or has
/// let it go. `job` is the one that its controller reference names, if it exists. As upstream: `syncOrphanPod`.
pub fn is_forgotten(pod: &Pod, job: Option<&Job>) -> bool {
    if !is_tracked(pod) {
        return false;
    }
    match controller(&pod.metadata) {
        None => true,
        Some(owner) if owner.kind != "Job" || owner.api_version != "batch/v1" => false,
        Some(owner) => {
            let job = job.filter(|job| job.metadata.uid.as_ref() == Some(&owner.uid));
            job.is_none_or(|job| super::is_finished(job) && !super::is_managed_elsewhere(job))
        }
    }
}

/// A new pod. `before` is the failed one that it replaces, where failures are counted by index.
pub(super) fn new_pod(job: &Job, index: Option<i64>, before: Option<&Pod>) -> Pod {
    let spec = job.spec.clone().unwrap_or_default();
    let job_name = job.metadata.name.clone().unwrap_or_default();
    let PodTemplateSpec { metadata, spec: pod_spec } = spec.template;
    let template = metadata.unwrap_or_default();
    let mut pod_spec = pod_spec.unwrap_or_default();
    let mut labels = template.labels.unwrap_or_default();
    let mut annotations = template.annotations.unwrap_or_default();
    let mut finalizers = template.finalizers.unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == TRACKING) {
        finalizers.push(TRACKING.to_owned());
    }
    let mut generate_name = format!("{job_name}-");
    if let Some(index) = index {
        generate_name = generated_base(&job_name, index);
        labels.insert(COMPLETION_INDEX.to_owned(), index.to_string());
        annotations.insert(COMPLETION_INDEX.to_owned(), index.to_string());
        pod_spec.hostname = Some(format!("{job_name}-{index}"));
        pod_spec.containers.iter_mut().for_each(add_index_variable);
        pod_spec.init_containers.iter_mut().flatten().for_each(add_index_variable);
        if spec.backoff_limit_per_index.is_some() {
            let (counted, ignored) = failures_before(job, before);
            annotations.insert(INDEX_FAILURES.to_owned(), counted.to_string());
            if ignored > 0 {
                annotations.insert(INDEX_IGNORED_FAILURES.to_owned(), ignored.to_string());
            }
        }
    }
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(generate_name),
            namespace: job.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            finalizers: Some(finalizers),
            owner_references: Some(vec![controller_reference(job)]),
            ..ObjectMeta::default()
        },
        spec: Some(pod_spec),
        status: None,
    }
}

/// `<job>-<index>-`, of which the index is kept whole. As upstream: `podGenerateNameWithIndex`.
fn generated_base(job: &str, index: i64) -> String {
    let tail = format!("-{index}-");
    let room = GENERATED_BASE_MAX.saturating_sub(tail.len()).min(job.len());
    format!("{}{tail}", job.get(..room).unwrap_or(job))
}

fn add_index_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector {
        api_version: None,
        field_path: format!("metadata.labels['{COMPLETION_INDEX}']"),
    };
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value: None,
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
    });
}

/// Counted and ignored failures of an index, with that of the pod that is replaced.
fn failures_before(job: &Job, before: Option<&Pod>) -> (i32, i32) {
    let Some(before) = before else { return (0, 0) };
    let (counted, ignored) = (index_failures(before), counter(before, INDEX_IGNORED_FAILURES));
    match verdict_on(job, before) {
        Verdict::Ignored => (counted, ignored.saturating_add(1)),
        Verdict::Counts | Verdict::FailsIndex | Verdict::FailsJob(_) => {
            (counted.saturating_add(1), ignored)
        }
    }
}

/// In which order pods are given up: those first that have come least far. As upstream: `controller.ActivePods`.
pub(super) fn worth(pod: &Pod) -> impl Ord + use<> {
    let assigned = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let phase = match phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let status = pod.status.as_ref();
    let ready = status
        .and_then(|status| status.conditions.as_ref())
        .and_then(|all| all.iter().find(|one| one.type_ == "Ready" && one.status == "True"));
    let since = ready
        .and_then(|condition| condition.last_transition_time.as_ref())
        .map(|time| std::cmp::Reverse(time.0));
    let restarts: i32 = status
        .and_then(|status| status.container_statuses.as_ref())
        .map_or(0, |all| all.iter().map(|container| container.restart_count).max().unwrap_or(0));
    let made = pod.metadata.creation_timestamp.as_ref().map(|time| std::cmp::Reverse(time.0));
    let name = name(pod).to_owned();
    (assigned, phase, ready.is_some(), since, std::cmp::Reverse(restarts), made, name)
}
