//! The status of a Deployment, and whether its rollout gets on. As upstream: `sync.go` and `progress.go` in
//! `pkg/controller/deployment`.

use super::{Observed, Planner, available, name, set_name, size};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

const AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// Whether every pod is new and available.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment.spec.replicas.unwrap_or(1);
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_.as_deref() == Some(kind))
}

/// When a Deployment that does not get on has to be looked at again.
pub(super) fn deadline_in(observed: &Observed<'_>, status: &DeploymentStatus) -> Option<Duration> {
    let seconds = deadline(observed.deployment)?;
    let condition = find(status, "Progressing")?;
    if [AVAILABLE, TIMED_OUT, PAUSED].contains(&condition.reason.as_deref().unwrap_or_default()) {
        return None;
    }
    let since = condition.last_update_time.as_ref()?.0.as_second();
    let left = since.saturating_add(seconds).saturating_sub(observed.now.as_second());
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0).saturating_add(1)))
}

/// `progressDeadlineSeconds`; the largest number means none.
fn deadline(deployment: &Deployment) -> Option<i64> {
    deployment.spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX).map(i64::from)
}

/// What is found out about a condition.
struct Finding<'a> {
    kind: &'a str,
    status: &'a str,
    reason: &'a str,
    message: String,
}

struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Option<Time>,
}

impl Conditions {
    fn get(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_.as_deref() == Some(kind))
    }

    /// Takes a condition over, unless it says what is said already.
    fn set(&mut self, finding: Finding<'_>, renew: bool) {
        let before = self.get(finding.kind).cloned();
        let same = before.as_ref().is_some_and(|before| {
            before.status.as_deref() == Some(finding.status)
                && before.reason.as_deref() == Some(finding.reason)
        });
        if same && !renew {
            return;
        }
        let since = before.filter(|before| before.status.as_deref() == Some(finding.status));
        self.remove(finding.kind);
        self.list.push(DeploymentCondition {
            type_: Some(finding.kind.to_owned()),
            status: Some(finding.status.to_owned()),
            reason: Some(finding.reason.to_owned()),
            message: Some(finding.message),
            last_update_time: self.now.clone(),
            last_transition_time: since
                .map_or_else(|| self.now.clone(), |before| before.last_transition_time),
        });
    }

    fn remove(&mut self, kind: &str) {
        self.list.retain(|condition| condition.type_.as_deref() != Some(kind));
    }
}

/// The status of what is seen. `rolling`: whether a rollout was looked at, so that its progress is judged.
pub(super) fn status(
    planner: &Planner<'_>,
    newest: Option<usize>,
    rolling: bool,
) -> DeploymentStatus {
    let deployment = planner.observed.deployment;
    let sets = &planner.sets;
    let told =
        |set: &ReplicaSet,
         field: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> Option<i32>| {
            set.status.as_ref().and_then(field).unwrap_or(0)
        };
    let sum = |field: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> Option<i32>| {
        sets.iter().map(|set| told(set, field)).sum::<i32>()
    };
    let newest = newest.and_then(|at| sets.get(at));
    let positive = |number: i32| (number > 0).then_some(number);
    let up: i32 = sets.iter().map(available).sum();
    let unavailable = sets.iter().map(size).sum::<i32>() - up;
    let now = Timestamp::from_second(planner.observed.now.as_second()).ok().map(Time);
    let before = deployment.status.clone().unwrap_or_default();
    let mut conditions = Conditions { list: before.conditions.clone().unwrap_or_default(), now };
    let enough = up >= planner.replicas() - planner.max_unavailable();
    conditions.set(
        if enough {
            Finding {
                kind: "Available",
                status: "True",
                reason: "MinimumReplicasAvailable",
                message: "Deployment has minimum availability.".to_owned(),
            }
        } else {
            Finding {
                kind: "Available",
                status: "False",
                reason: "MinimumReplicasUnavailable",
                message: "Deployment does not have minimum availability.".to_owned(),
            }
        },
        false,
    );
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: positive(sum(|status| Some(status.replicas))),
        updated_replicas: positive(
            newest.map_or(0, |set| told(set, |status| Some(status.replicas))),
        ),
        ready_replicas: positive(sum(|status| status.ready_replicas)),
        available_replicas: positive(up),
        unavailable_replicas: positive(unavailable),
        terminating_replicas: Some(sum(|status| status.terminating_replicas)),
        collision_count: positive(planner.collisions),
        conditions: None,
    };
    if deployment.metadata.deletion_timestamp.is_none() {
        judge(planner, newest, &before, &status, rolling, &mut conditions);
    }
    status.conditions = Some(conditions.list);
    status
}

fn judge(
    planner: &Planner<'_>,
    newest: Option<&ReplicaSet>,
    before: &DeploymentStatus,
    status: &DeploymentStatus,
    rolling: bool,
    conditions: &mut Conditions,
) {
    let deployment = planner.observed.deployment;
    let Some(deadline) = deadline(deployment) else {
        conditions.remove("Progressing");
        return;
    };
    let progressing =
        |status, reason, message| Finding { kind: "Progressing", status, reason, message };
    let reason = find(before, "Progressing").and_then(|condition| condition.reason.as_deref());
    let paused = deployment.spec.paused == Some(true);
    if reason != Some(TIMED_OUT) && paused != (reason == Some(PAUSED)) {
        let (reason, message) = if paused {
            (PAUSED, "Deployment is paused")
        } else {
            ("DeploymentResumed", "Deployment is resumed")
        };
        conditions.set(progressing("Unknown", reason, message.to_owned()), false);
    }
    if !rolling {
        return;
    }
    let made =
        planner.actions.iter().any(|action| matches!(action, super::Action::CreateReplicaSet(_)));
    if let Some(set) = newest.filter(|_| made || reason.is_none()) {
        let (reason, words) = if made {
            ("NewReplicaSetCreated", "Created new replica set")
        } else {
            ("FoundNewReplicaSet", "Found new replica set")
        };
        conditions.set(progressing("True", reason, format!("{words} {:?}", set_name(set))), false);
    }
    let subject = newest.map_or_else(
        || format!("Deployment {:?}", name(deployment)),
        |set| format!("ReplicaSet {:?}", set_name(set)),
    );
    let settled = status.replicas == status.updated_replicas && reason == Some(AVAILABLE);
    if !settled {
        let count = |number: Option<i32>| number.unwrap_or(0);
        let old =
            |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
        if is_complete(deployment, status) {
            let message = format!("{subject} has successfully progressed.");
            conditions.set(progressing("True", AVAILABLE, message), false);
        } else if count(status.updated_replicas) > count(before.updated_replicas)
            || old(status) < old(before)
            || count(status.ready_replicas) > count(before.ready_replicas)
            || count(status.available_replicas) > count(before.available_replicas)
        {
            let message = format!("{subject} is progressing.");
            conditions.set(progressing("True", "ReplicaSetUpdated", message), true);
        } else if timed_out(planner.observed, conditions, deadline) {
            let message = format!("{subject} has timed out progressing.");
            conditions.set(progressing("False", TIMED_OUT, message), false);
        }
    }
    match failure(planner, newest) {
        Some(failure) => conditions.set(
            Finding {
                kind: "ReplicaFailure",
                status: failure.status.as_deref().unwrap_or_default(),
                reason: failure.reason.as_deref().unwrap_or_default(),
                message: failure.message.clone().unwrap_or_default(),
            },
            false,
        ),
        None => conditions.remove("ReplicaFailure"),
    }
}

fn timed_out(observed: &Observed<'_>, conditions: &Conditions, deadline: i64) -> bool {
    let Some(condition) = conditions.get("Progressing") else { return false };
    match condition.reason.as_deref() {
        Some(AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => condition.last_update_time.as_ref().is_some_and(|since| {
            since.0.as_second().saturating_add(deadline) < observed.now.as_second()
        }),
    }
}

/// Why a set cannot make its pods: the newest's word counts first.
fn failure<'a>(
    planner: &'a Planner<'_>,
    newest: Option<&'a ReplicaSet>,
) -> Option<&'a ReplicaSetCondition> {
    newest.into_iter().chain(&planner.sets).find_map(|set| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_.as_deref() == Some("ReplicaFailure"))
    })
}
