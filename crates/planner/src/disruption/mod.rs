//! How many pods of a PodDisruptionBudget may be evicted. As upstream: `pkg/controller/disruption`.

use crate::workload::{Round, controller, scaled};
use api::selector::label::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an evicted pod may take to begin to go; then it counts again. As upstream: DeletionTimeout.
const DELETION_TIMEOUT: Duration = Duration::from_secs(120);
/// The only condition of a budget.
const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";

/// Something that controls pods and says how many.
#[derive(Debug, Clone, Copy)]
pub enum Workload<'a> {
    /// A StatefulSet.
    StatefulSet(&'a StatefulSet),
    /// A ReplicaSet, whose Deployment counts in its place.
    ReplicaSet(&'a ReplicaSet),
    /// A Deployment.
    Deployment(&'a Deployment),
}

/// The world as the controller's caches show it.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The budget.
    pub budget: &'a PodDisruptionBudget,
    /// The pods of its namespace.
    pub pods: &'a [&'a Pod],
    /// What controls these pods, and what controls that.
    pub workloads: &'a [Workload<'a>],
    /// Now.
    pub now: Timestamp,
}

/// Something that a user should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling {
    /// The pod that it is about; of the budget itself if none.
    pub pod: Option<String>,
    /// `Normal` or `Warning`.
    pub kind: &'static str,
    /// e.g. `NoPods`.
    pub reason: &'static str,
    /// In upstream's words.
    pub message: String,
}

/// What to tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The status to write, if it differs.
    pub status: PodDisruptionBudgetStatus,
    /// Events.
    pub tellings: Vec<Telling>,
    /// When to look again although nothing may have changed.
    pub look_again_after: Option<Duration>,
}

/// Whether a budget is about a pod of its namespace. No selector selects nothing, an empty one everything.
pub fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    LabelSelector::of(selector).matches_optional(pod.metadata.labels.as_ref())
}

/// How many pods there should be, and how many of them have to be healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    pods: i32,
    healthy: i32,
}

/// Decides what the status says. Total.
pub fn plan(observed: &Observed<'_>) -> Plan {
    let pods: Vec<&Pod> =
        observed.pods.iter().copied().filter(|pod| covers(observed.budget, pod)).collect();
    let mut tellings = Vec::new();
    let mut tell = |kind, reason, message: String| {
        tellings.push(Telling { pod: None, kind, reason, message });
    };
    if pods.is_empty() {
        tell("Normal", "NoPods", "No matching pods found".to_owned());
    }
    let (wanted, unmanaged) = match wanted(observed, &pods) {
        Ok(found) => found,
        Err(why) => {
            let message = format!("Failed to calculate the number of expected pods: {why}");
            tell("Warning", "CalculateExpectedPodCountFailed", message);
            return Plan { status: closed(observed, why), tellings, look_again_after: None };
        }
    };
    if unmanaged {
        let selector = observed.budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        tell(
            "Warning",
            "UnmanagedPods",
            format!(
                "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of the PDB cannot be \
                 calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of \
                 the PDB to an integer value.",
                LabelSelector::of(selector)
            ),
        );
    }
    let (disrupted, given_up) = disrupted(observed, &pods);
    tellings.extend(given_up);
    let look_again_after = disrupted.values().map(|time| left(time, observed.now)).min();
    let healthy = pods.iter().filter(|pod| is_healthy(pod, &disrupted)).count();
    let status = status(observed, wanted, i32::try_from(healthy).unwrap_or(i32::MAX), disrupted);
    Plan { status, tellings, look_again_after }
}

/// Ready, not about to go, and not chosen to go.
fn is_healthy(pod: &Pod, disrupted: &BTreeMap<String, Time>) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && !pod.metadata.name.as_ref().is_some_and(|name| disrupted.contains_key(name))
        && { conditions }.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// How long an evicted pod may still take.
fn left(since: &Time, now: Timestamp) -> Duration {
    let waited = now.duration_since(since.0);
    DELETION_TIMEOUT.saturating_sub(waited.try_into().unwrap_or(Duration::ZERO))
}

/// The pods that were evicted and have not begun to go; and who has had the time to.
fn disrupted(observed: &Observed<'_>, pods: &[&Pod]) -> (BTreeMap<String, Time>, Vec<Telling>) {
    let (mut kept, mut tellings) = (BTreeMap::new(), Vec::new());
    let before = observed.budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let Some(time) = before.and_then(|before| before.get(&name)) else { continue };
        if left(time, observed.now) > Duration::ZERO {
            kept.insert(name, time.clone());
        } else {
            let of = &observed.budget.metadata;
            let message = format!(
                "Pod was expected by PDB {}/{} to be deleted but it wasn't",
                of.namespace.as_deref().unwrap_or_default(),
                of.name.as_deref().unwrap_or_default()
            );
            let reason = "NotDeleted";
            tellings.push(Telling { pod: Some(name), kind: "Warning", reason, message });
        }
    }
    (kept, tellings)
}

/// What the budget asks for, and whether nobody controls some of the pods. An error says why it cannot be told.
fn wanted(observed: &Observed<'_>, pods: &[&Pod]) -> Result<(Wanted, bool), String> {
    let Some(spec) = &observed.budget.spec else {
        return Ok((Wanted { pods: 0, healthy: 0 }, false));
    };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(maximum), _) => {
            let (count, unmanaged) = expected(observed, pods)?;
            let unavailable = scaled(Some(maximum), count, Round::Up);
            let healthy = count.saturating_sub(unavailable).max(0);
            Ok((Wanted { pods: count, healthy }, unmanaged))
        }
        (None, Some(IntOrString::Int(minimum))) => {
            let count = i32::try_from(pods.len()).unwrap_or(i32::MAX);
            Ok((Wanted { pods: count, healthy: *minimum }, false))
        }
        (None, Some(minimum)) => {
            let (count, unmanaged) = expected(observed, pods)?;
            let healthy = scaled(Some(minimum), count, Round::Up);
            Ok((Wanted { pods: count, healthy }, unmanaged))
        }
        (None, None) => Ok((Wanted { pods: 0, healthy: 0 }, false)),
    }
}

/// The sum of what the controllers of these pods want, each counted once; and whether some have none.
fn expected(observed: &Observed<'_>, pods: &[&Pod]) -> Result<(i32, bool), String> {
    let (mut scales, mut unmanaged) = (BTreeMap::new(), false);
    for pod in pods {
        let Some(owner) = controller(&pod.metadata) else {
            unmanaged = true;
            continue;
        };
        let (uid, replicas) = scale(owner, observed.workloads)?.ok_or_else(|| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            format!("found no controllers for pod {name:?}")
        })?;
        scales.insert(uid, replicas);
    }
    Ok((scales.values().fold(0, |sum, replicas| replicas.saturating_add(sum)), unmanaged))
}

/// Whose scale counts for a pod of this owner, and how much; `None` if the owner is gone.
fn scale(
    owner: &OwnerReference,
    workloads: &[Workload<'_>],
) -> Result<Option<(String, i32)>, String> {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    let found = match (group, owner.kind.as_str()) {
        ("apps", "StatefulSet") => workloads.iter().find_map(|workload| match workload {
            Workload::StatefulSet(set) if set.metadata.uid.as_ref() == Some(&owner.uid) => {
                Some(set.spec.replicas)
            }
            _ => None,
        }),
        ("apps", "ReplicaSet") => {
            let set = workloads.iter().find_map(|workload| match workload {
                Workload::ReplicaSet(set) if set.metadata.uid.as_ref() == Some(&owner.uid) => {
                    Some(set)
                }
                _ => None,
            });
            let above = set.and_then(|set| controller(&set.metadata));
            if let Some(above) = above.filter(|above| above.kind == "Deployment")
                && let Some(found) = scale(above, workloads)?
            {
                return Ok(Some(found));
            }
            set.map(|set| set.spec.replicas)
        }
        ("apps", "Deployment") => workloads.iter().find_map(|workload| match workload {
            Workload::Deployment(one) if one.metadata.uid.as_ref() == Some(&owner.uid) => {
                Some(one.spec.replicas)
            }
            _ => None,
        }),
        _ => return Err(without_scale(group, owner)),
    };
    Ok(found.map(|replicas| (owner.uid.clone(), replicas.unwrap_or(1))))
}

fn without_scale(group: &str, owner: &OwnerReference) -> String {
    let kinds = api::kinds::KINDS.iter().map(|kind| &kind.names);
    match { kinds }.find(|names| names.group == group && names.kind == owner.kind) {
        Some(names) => {
            format!("{} does not implement the scale subresource", names.qualified_resource())
        }
        None => format!("no matches for kind {:?} in version {:?}", owner.kind, owner.api_version),
    }
}

fn generation(budget: &PodDisruptionBudget) -> Option<i64> {
    budget.metadata.generation
}

fn status(
    observed: &Observed<'_>,
    wanted: Wanted,
    healthy: i32,
    disrupted: BTreeMap<String, Time>,
) -> PodDisruptionBudgetStatus {
    // A budget that has no pods yet allows nothing: its first pods may be there before its next status.
    let spare = if wanted.pods > 0 { healthy.saturating_sub(wanted.healthy).max(0) } else { 0 };
    let (state, reason) =
        if spare > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let observed_generation = generation(observed.budget);
    let condition = condition(observed, (state, reason, String::new()), observed_generation);
    PodDisruptionBudgetStatus {
        conditions: Some(vec![condition]),
        current_healthy: Some(healthy),
        desired_healthy: Some(wanted.healthy),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        disruptions_allowed: Some(spare),
        expected_pods: Some(wanted.pods),
        observed_generation,
    }
}

/// When nothing can be told nothing is allowed; all else stays as it was. As upstream: failSafe.
fn closed(observed: &Observed<'_>, why: String) -> PodDisruptionBudgetStatus {
    let before = observed.budget.status.clone().unwrap_or_default();
    let told = ("False", "SyncFailed", why);
    let condition = condition(observed, told, before.observed_generation);
    PodDisruptionBudgetStatus {
        conditions: Some(vec![condition]),
        disruptions_allowed: Some(0),
        ..before
    }
}

fn condition(
    observed: &Observed<'_>,
    (state, reason, message): (&str, &str, String),
    observed_generation: Option<i64>,
) -> Condition {
    let before =
        observed.budget.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let same = { before }.find(|c| c.type_ == DISRUPTION_ALLOWED && c.status == state);
    let now = Timestamp::from_second(observed.now.as_second()).unwrap_or_default();
    Condition {
        type_: DISRUPTION_ALLOWED.to_owned(),
        status: state.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: same.map_or(Time(now), |c| c.last_transition_time.clone()),
        observed_generation,
    }
}

#[cfg(test)]
mod tests;
