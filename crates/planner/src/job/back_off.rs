//! How long a Job waits before it replaces pods that failed. As upstream: `pkg/controller/job/backoff_utils.go`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);

/// The failures of a Job since its last success.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackOff {
    failures: u32,
    last_failure: Option<Timestamp>,
}

impl BackOff {
    /// After these pods have ended as well.
    pub(super) fn after(self, succeeded: &[&Pod], failed: &[&Pod]) -> BackOff {
        let last_success = succeeded.iter().map(|pod| finished_at(pod)).max();
        let mut now = if last_success.is_some() { BackOff::default() } else { self };
        for time in failed.iter().map(|pod| finished_at(pod)) {
            if last_success.is_none_or(|success| time > success) {
                now.failures = now.failures.saturating_add(1);
                now.last_failure = now.last_failure.max(Some(time));
            }
        }
        now
    }

    /// How much longer no pod is made.
    pub(super) fn remaining(&self, now: Timestamp) -> Duration {
        self.last_failure.map_or(Duration::ZERO, |failure| remaining(self.failures, failure, now))
    }
}

/// How much longer to wait after so many failures in a row, the last of them at `failure`.
pub(super) fn remaining(failures: u32, failure: Timestamp, now: Timestamp) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let delay = FIRST.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST);
    // A clock that was set back must not make the wait longer than it ever is.
    let elapsed = Duration::try_from(now.duration_since(failure)).unwrap_or(Duration::ZERO);
    delay.saturating_sub(elapsed)
}

/// When a pod ended, as well as can be told: its containers' last end, since when it is not Ready, when it was
/// deleted, or else when it was made.
pub(super) fn finished_at(pod: &Pod) -> Timestamp {
    let status = pod.status.as_ref();
    let ends: Option<Vec<Timestamp>> =
        status.and_then(|status| status.container_statuses.as_ref()).and_then(|containers| {
            containers
                .iter()
                .map(|container| {
                    let terminated = container.state.as_ref()?.terminated.as_ref()?;
                    Some(terminated.finished_at.as_ref()?.0)
                })
                .collect()
        });
    let unready = || {
        let conditions = status?.conditions.as_ref()?;
        let condition = conditions
            .iter()
            .find(|condition| condition.type_ == "Ready" && condition.status == "False")?;
        Some(condition.last_transition_time.as_ref()?.0)
    };
    let deleted = || {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        let time = pod.metadata.deletion_timestamp.as_ref()?.0;
        time.checked_sub(SignedDuration::from_secs(grace)).ok()
    };
    ends.and_then(|ends| ends.into_iter().max())
        .or_else(unready)
        .or_else(deleted)
        .or_else(|| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ended(second: i64) -> Pod {
        let time = at(second).to_string();
        serde_json::from_value(json!({"status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 1, "finishedAt": time}}}]}}))
        .unwrap()
    }

    #[test]
    fn delays_double_to_ten_minutes() {
        let delays: Vec<u64> =
            (0..9).map(|failures| remaining(failures, at(0), at(0)).as_secs()).collect();
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(remaining(2, at(100), at(115)).as_secs(), 5);
        assert_eq!(remaining(2, at(100), at(130)).as_secs(), 0);
        assert_eq!(remaining(2, at(100), at(50)).as_secs(), 20);
    }

    #[test]
    fn a_success_forgives_what_was_before_it() {
        let pods: Vec<Pod> = [10, 20, 30].map(ended).into();
        let all: Vec<&Pod> = pods.iter().collect();
        let failing = BackOff::default().after(&[], &all);
        assert_eq!(failing, BackOff { failures: 3, last_failure: Some(at(30)) });
        assert_eq!(failing.after(&[], &[]), failing);
        assert_eq!(failing.after(&[&ended(40)], &[]), BackOff::default());
        let mixed = BackOff::default().after(&[&ended(15)], &all);
        assert_eq!(mixed, BackOff { failures: 2, last_failure: Some(at(30)) });
    }

    #[test]
    fn the_end_of_a_pod_is_told_by_what_is_known() {
        let pod = |value: serde_json::Value| -> Pod { serde_json::from_value(value).unwrap() };
        assert_eq!(finished_at(&ended(7)), at(7));
        let time = |second: i64| at(second).to_string();
        let mut known = json!({"metadata": {"creationTimestamp": time(1)}});
        assert_eq!(finished_at(&pod(known.clone())), at(1));
        known["metadata"]["deletionTimestamp"] = json!(time(40));
        known["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        assert_eq!(finished_at(&pod(known.clone())), at(10));
        known["status"] = json!({"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": time(5)}]});
        assert_eq!(finished_at(&pod(known)), at(5));
    }
}
