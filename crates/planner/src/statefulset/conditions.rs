//! Conditions of a set, which upstream leaves empty: `Available`, `Progressing` and `Blocked`, so that
//! `kubectl wait --for=condition=Available statefulset/web` works and a reader sees which pod holds everybody up.

use super::identity::{self, Membership, name};
use super::{Observed, status};
use k8s_openapi::api::apps::v1::{StatefulSetCondition, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Reasons of a waiting container after which nothing gets better by waiting alone.
const STUCK: &[&str] = &[
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];

/// What was found out about a condition.
struct Finding {
    kind: &'static str,
    holds: bool,
    reason: String,
    message: String,
}

/// The conditions, with the times of those that have not changed. `waiting_for` is why nothing more happens now.
pub(super) fn conditions(
    observed: &Observed<'_>,
    members: &Membership<'_>,
    said: &StatefulSetStatus,
    waiting_for: Option<&str>,
) -> Vec<StatefulSetCondition> {
    let set = observed.set;
    let wanted = identity::replicas(set);
    let up = i64::from(said.available_replicas.unwrap_or(0));
    let is_rolling = said.current_revision != said.update_revision;
    let complete = up == wanted && i64::from(said.replicas) == wanted;
    let blocked = (!complete || is_rolling).then(|| blocking(members)).flatten();
    let settled = complete && waiting_for.is_none();
    let findings = [
        Finding {
            kind: "Available",
            holds: up >= wanted,
            reason: if up >= wanted { "AllReplicasAvailable" } else { "ReplicasUnavailable" }
                .to_owned(),
            message: format!("{up} of {wanted} replicas are available"),
        },
        Finding {
            kind: "Progressing",
            holds: !settled && blocked.is_none(),
            reason: match (&blocked, settled) {
                (Some(_), _) => "Blocked",
                (None, true) => "Complete",
                (None, false) => "ReplicasChanging",
            }
            .to_owned(),
            message: match (&blocked, settled, waiting_for) {
                (Some((_, _, why)), ..) => why.clone(),
                (None, false, Some(wait)) => format!("waiting for {wait}"),
                (None, false, None) => "replicas are on their way".to_owned(),
                (None, true, _) => format!("{wanted} replicas are as wanted"),
            },
        },
        match blocked {
            Some((pod, reason, why)) => Finding {
                kind: "Blocked",
                holds: true,
                reason,
                message: format!("pod {pod} holds up the set: {why}"),
            },
            None => Finding {
                kind: "Blocked",
                holds: false,
                reason: "NotBlocked".to_owned(),
                message: "no pod holds up the set".to_owned(),
            },
        },
    ];
    findings.into_iter().map(|finding| dated(observed, finding)).collect()
}

fn dated(observed: &Observed<'_>, finding: Finding) -> StatefulSetCondition {
    let status = if finding.holds { "True" } else { "False" };
    let before =
        observed.set.status.iter().flat_map(|status| status.conditions.iter().flatten()).find(
            |condition| {
                condition.type_.as_deref() == Some(finding.kind)
                    && condition.status.as_deref() == Some(status)
            },
        );
    let now = || jiff::Timestamp::from_second(observed.now.as_second()).ok().map(Time);
    StatefulSetCondition {
        type_: Some(finding.kind.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(finding.reason),
        message: Some(finding.message),
        last_transition_time: match before {
            Some(condition) => condition.last_transition_time.clone(),
            None => now(),
        },
    }
}

/// The lowest pod that does not become Ready by waiting: its name, a reason, and why in words.
fn blocking(members: &Membership<'_>) -> Option<(String, String, String)> {
    members
        .pods()
        .filter(|pod| !status::is_ready(pod) && pod.metadata.deletion_timestamp.is_none())
        .find_map(|pod| stuck(pod).map(|(reason, why)| (name(pod).to_owned(), reason, why)))
}

fn stuck(pod: &Pod) -> Option<(String, String)> {
    let status = pod.status.as_ref()?;
    let unschedulable = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    });
    if let Some(condition) = unschedulable {
        let why = condition.message.clone().unwrap_or_default();
        return Some(("Unschedulable".to_owned(), why));
    }
    let containers = status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten());
    for container in containers {
        let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
        let Some(reason) = waiting.and_then(|waiting| waiting.reason.clone()) else { continue };
        if STUCK.contains(&reason.as_str()) {
            let message = waiting.and_then(|waiting| waiting.message.clone()).unwrap_or_default();
            return Some((reason, format!("container {}: {message}", container.name)));
        }
    }
    None
}
