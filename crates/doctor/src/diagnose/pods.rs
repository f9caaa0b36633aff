//! One pod: why it is not Ready.

use super::world::{
    PATIENCE, World, condition, duration, is_ready, name, object, phase, space, statuses, told,
};
use super::{Trouble, claims, crashes, probes, scheduling, starting, workload};
use crate::finding::{Finding, Severity};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// How many containers' logs are worth reading.
const MOST_LOGS: usize = 20;
/// A Ready container that has run for less than this after a crash is not believed yet, in seconds.
const FLAPPING: i64 = 10;
/// Crashes older than this are history, in seconds.
const HISTORY: i64 = 600;

/// Why a pod is not up; none if it is, or has done its work.
pub(super) fn look(world: World<'_>, pod: &Pod) -> Option<Trouble> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(terminating(world, pod).into());
    }
    if phase(pod) == "Succeeded" || phase(pod) == "Failed" && is_work_of_a_finished_job(world, pod)
    {
        return None;
    }
    if is_ready(pod) {
        return flapping(world, pod);
    }
    let is_placed =
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|n| !n.is_empty());
    if !is_placed && phase(pod) != "Failed" {
        let trouble = claims::look(world, pod).or_else(|| scheduling::look(world, pod));
        return Some(trouble.unwrap_or_else(|| on_its_way(world, pod)).into());
    }
    starting::missing(world, pod)
        .map(Trouble::from)
        .or_else(|| {
            statuses(pod).into_iter().find_map(|(status, is_init)| {
                starting::look(world, pod, status)
                    .map(Trouble::from)
                    .or_else(|| crashes::look(world, pod, status, is_init))
            })
        })
        .or_else(|| evicted(world, pod).map(Trouble::from))
        .or_else(|| probes::look(world, pod).map(Trouble::from))
        .or_else(|| Some(on_its_way(world, pod).into()))
}

/// What is good to know of a pod that is Ready.
pub(super) fn note(world: World<'_>, pod: &Pod) -> Option<String> {
    if !is_ready(pod) || flapping(world, pod).is_some() {
        return None;
    }
    let (status, ended) = statuses(pod).into_iter().find_map(|(status, is_init)| {
        let ended = status.last_state.as_ref()?.terminated.as_ref()?;
        let recent = world.age(ended.finished_at.as_ref()) < HISTORY;
        (!is_init && recent && status.restart_count > 0 && ended.exit_code != 0)
            .then_some((status, ended))
    })?;
    Some(format!(
        "{} is Ready, but its container {} was restarted {} times, last {} ago (exit code {})",
        name(&pod.metadata),
        status.name,
        status.restart_count,
        world.ago(ended.finished_at.as_ref()),
        ended.exit_code
    ))
}

/// Which containers' last lines are worth reading: pod, container, and whether those of the try before.
pub fn wanted_logs(pods: &[Pod]) -> Vec<(&Pod, &str, bool)> {
    pods.iter()
        .filter(|pod| phase(pod) != "Succeeded")
        .flat_map(|pod| statuses(pod).into_iter().map(move |(status, _)| (pod, status)))
        .filter_map(|(pod, status)| {
            let state = status.state.as_ref()?;
            let failed_before = failed(status, true);
            let running = state.running.is_some();
            let worth = failed(status, false)
                || failed_before && !(running && status.ready && status.restart_count < 2)
                || running && !status.ready && pod.metadata.deletion_timestamp.is_none();
            worth.then_some((pod, status.name.as_str(), running && failed_before))
        })
        .take(MOST_LOGS)
        .collect()
}

/// Whether a container's last (or last but one) try ended badly.
pub(super) fn failed(status: &ContainerStatus, before: bool) -> bool {
    let state = if before { &status.last_state } else { &status.state };
    let ended = state.as_ref().and_then(|state| state.terminated.as_ref());
    ended.is_some_and(|ended| ended.exit_code != 0)
}

fn flapping(world: World<'_>, pod: &Pod) -> Option<Trouble> {
    statuses(pod).into_iter().find_map(|(status, is_init)| {
        let running = status.state.as_ref()?.running.as_ref()?;
        let fresh = world.age(running.started_at.as_ref()) < FLAPPING;
        let again = status.restart_count >= 2 && failed(status, true);
        (fresh && again).then(|| crashes::look(world, pod, status, is_init)).flatten()
    })
}

fn is_work_of_a_finished_job(world: World<'_>, pod: &Pod) -> bool {
    super::controller(&pod.metadata).is_some_and(|owner| {
        owner.kind == "Job"
            && world.0.workloads.iter().flatten().any(|workload| {
                workload.is_complete && workload.metadata.uid.as_ref() == Some(&owner.uid)
            })
    })
}

fn evicted(world: World<'_>, pod: &Pod) -> Option<Finding> {
    let status = pod.status.as_ref()?;
    let reason = status.reason.as_deref().filter(|_| phase(pod) == "Failed")?;
    let (space, name) = (space(&pod.metadata), name(&pod.metadata));
    let finding = Finding::new(
        "pod-failed",
        Severity::Problem,
        object("Pod", &pod.metadata),
        format!("{name} has failed: {reason}"),
    )
    .because("Its node ended it; a pod that has failed never starts again.")
    .seen(format!("status of pod {name}"), status.message.as_deref().unwrap_or(reason));
    let owned = workload(world, pod).is_some();
    Some(finding.step(
        if owned {
            "Delete it: its owner makes a new one"
        } else {
            "Delete it, and create it again"
        },
        format!("kubectl delete pod -n {space} {name}"),
    ))
}

fn terminating(world: World<'_>, pod: &Pod) -> Finding {
    let (space, name) = (space(&pod.metadata), name(&pod.metadata));
    // The time of deletion already contains the grace period.
    let deleted = pod.metadata.deletion_timestamp.as_ref();
    let over = deleted.map_or(0, |time| world.0.now.as_second() - time.0.as_second());
    if over < PATIENCE {
        let text = format!("{name} is being deleted: its containers get their time to end");
        return Finding::new("terminating", Severity::Progress, object("Pod", &pod.metadata), text)
            .because("A pod that is being deleted is replaced, if it is to be, once it is gone.")
            .hint("Wait, and look again");
    }
    let finding = Finding::new(
        "stuck-terminating",
        Severity::Problem,
        object("Pod", &pod.metadata),
        format!("{name} should have been gone for {} and is still Terminating", duration(over)),
    );
    let finalizers = pod.metadata.finalizers.clone().unwrap_or_default();
    if !finalizers.is_empty() {
        return finding
            .because("Finalizers hold it until whoever put them there takes them off.")
            .seen(format!("metadata.finalizers of pod {name}"), &finalizers.join(", "))
            .hint("Look whether the program behind the finalizers runs")
            .step(
                "If that program is gone for good, take them off",
                format!("kubectl patch pod -n {space} {name} --type=merge -p '{{\"metadata\":{{\"finalizers\":null}}}}'"),
            );
    }
    let force = format!("kubectl delete pod -n {space} {name} --grace-period=0 --force");
    let warning = "If its node is surely switched off, remove the pod by force; if the node still runs, two pods of one name would write to the same data";
    match lost_node(world, pod) {
        Some((node, why)) => finding
            .because(format!(
                "Its node {node} does not answer, so nobody can say that its containers have ended."
            ))
            .seen(format!("node {node}"), &why)
            .hint("Bring the node back")
            .step(warning, force),
        None => finding
            .because("Its containers do not end.")
            .seen_all(world.events("Pod", &pod.metadata).last().map(|event| told(event)))
            .hint("Look at the node's log for why the containers cannot be stopped")
            .step(warning, force),
    }
}

/// A pod's node if it is gone or not Ready, and what is seen of it.
fn lost_node(world: World<'_>, pod: &Pod) -> Option<(String, String)> {
    let wanted = pod.spec.as_ref()?.node_name.clone()?;
    let nodes = world.0.nodes.as_ref()?;
    let Some(node) = nodes.iter().find(|node| name(&node.metadata) == wanted) else {
        return Some((wanted, "there is no such node any more".to_owned()));
    };
    let ready = node.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == "Ready")?;
    (ready.status != "True").then(|| {
        (
            wanted,
            format!("Ready is {}: {}", ready.status, ready.message.as_deref().unwrap_or_default()),
        )
    })
}

/// Nothing speaks against its coming up, or nothing says why it does not.
fn on_its_way(world: World<'_>, pod: &Pod) -> Finding {
    let pod_name = name(&pod.metadata);
    let state = state(pod);
    let since = since(world, pod);
    let object = object("Pod", &pod.metadata);
    if since < PATIENCE {
        let text = format!("{pod_name} is starting: {state} for {since}s");
        return Finding::new("starting", Severity::Progress, object, text)
            .because("Nothing speaks against its coming up; it was only looked at too early.")
            .hint("Wait, and look again");
    }
    let (space, kubectl) = (space(&pod.metadata), "kubectl describe pod -n");
    let finding = Finding::new(
        "not-ready",
        Severity::Problem,
        object,
        format!("{pod_name} is not Ready: {state} for {}", duration(since)),
    );
    let events = world.events("Pod", &pod.metadata);
    let lost = lost_node(world, pod);
    let cause = match &lost {
        Some((node, _)) => format!("Its node {node} does not answer."),
        None => "Nothing that was looked at says why; the newest events may.".to_owned(),
    };
    finding
        .because(cause)
        .seen_all(lost.map(|(node, why)| crate::finding::evidence(format!("node {node}"), &why)))
        .seen_all(events.iter().rev().take(3).map(|event| told(event)))
        .step("Look at everything that is known of it", format!("{kubectl} {space} {pod_name}"))
}

/// Since when a pod is as it is, in seconds ago.
fn since(world: World<'_>, pod: &Pod) -> i64 {
    let made = world.age(pod.metadata.creation_timestamp.as_ref());
    let initialized = condition(pod, "Initialized")
        .filter(|condition| condition.status == "True")
        .map(|condition| world.age(condition.last_transition_time.as_ref()));
    let started = statuses(pod)
        .into_iter()
        .filter_map(|(status, _)| status.state.as_ref()?.running.as_ref()?.started_at.as_ref())
        .map(|time| world.age(Some(time)))
        .min();
    [Some(made), initialized, started].into_iter().flatten().min().unwrap_or(0)
}

/// A pod's state in a word, as kubectl's column has it.
fn state(pod: &Pod) -> String {
    for (status, _) in statuses(pod) {
        let Some(state) = &status.state else { continue };
        let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
        match waiting {
            Some(reason) if reason == "PodInitializing" => {}
            Some(reason) => return reason,
            None => {}
        }
    }
    match phase(pod) {
        "" => "Pending".to_owned(),
        other => other.to_owned(),
    }
}
