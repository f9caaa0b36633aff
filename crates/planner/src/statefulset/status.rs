//! What the set's status says, and what pods are.

use super::Observed;
use super::identity::{self, Membership, REVISION_LABEL};
use super::revision::Choice;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSetStatus;
use k8s_openapi::api::core::v1::{Pod, PodCondition};

/// A pod's phase.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == "Ready")
}

/// Running and Ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    phase(pod) == "Running"
        && ready_condition(pod).is_some_and(|condition| condition.status == "True")
}

/// Ready for so long.
pub(crate) fn is_available(pod: &Pod, min_ready_seconds: u64, now: Timestamp) -> bool {
    if !is_ready(pod) {
        return false;
    }
    let since = ready_condition(pod).and_then(|condition| condition.last_transition_time.as_ref());
    min_ready_seconds == 0
        || since.is_some_and(|since| {
            now.as_second().saturating_sub(since.0.as_second())
                >= i64::try_from(min_ready_seconds).unwrap_or(i64::MAX)
        })
}

/// Ready, and not about to go.
pub(super) fn is_healthy(pod: &Pod) -> bool {
    is_ready(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// The status of what is seen. `lost_current` pods of the current revision are being deleted by this very plan.
pub(super) fn status(
    observed: &Observed<'_>,
    members: &Membership<'_>,
    choice: &Choice,
    lost_current: i32,
) -> StatefulSetStatus {
    let set = observed.set;
    let min_ready =
        set.spec.min_ready_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
    let count = |test: &dyn Fn(&Pod) -> bool| {
        i32::try_from(members.pods().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
    };
    let created = |pod: &Pod| !phase(pod).is_empty();
    let of = |revision: &str| {
        let revision = revision.to_owned();
        move |pod: &Pod| {
            pod.metadata.deletion_timestamp.is_none()
                && pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_LABEL))
                    == Some(&revision)
        }
    };
    let (current_of, updated_of) = (of(&choice.current.revision), of(&choice.update.revision));
    let positive = |number: i32| (number > 0).then_some(number);
    let replicas = count(&created);
    let ready = count(&is_ready);
    let updated = count(&|pod| created(pod) && updated_of(pod));
    let mut current = count(&|pod| created(pod) && current_of(pod)).saturating_sub(lost_current);
    let mut current_revision = choice.current.revision.clone();
    let strategy = set.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
    let is_rolling = strategy.is_none_or(|kind| kind == "RollingUpdate");
    if is_rolling
        && updated == replicas
        && ready == replicas
        && i64::from(replicas) == identity::replicas(set)
    {
        current = updated;
        current_revision.clone_from(&choice.update.revision);
    }
    StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas,
        ready_replicas: positive(ready),
        available_replicas: Some(count(&|pod| is_available(pod, min_ready, observed.now))),
        current_replicas: positive(current),
        updated_replicas: positive(updated),
        current_revision: Some(current_revision),
        update_revision: Some(choice.update.revision.clone()),
        collision_count: Some(choice.collision_count),
        conditions: None,
    }
}
