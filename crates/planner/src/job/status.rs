//! The conditions of a Job: how it comes to its end, and whether it is suspended.

use super::Telling;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Whole seconds, as times are written.
pub(super) fn whole(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

fn condition<'a>(job: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")
}

/// Whether a condition holds.
pub(super) fn holds(job: &Job, kind: &str) -> bool {
    condition(job, kind).is_some()
}

/// When a Job finished.
pub(super) fn finished_at(job: &Job) -> Option<Timestamp> {
    let condition = condition(job, "Complete").or_else(|| condition(job, "Failed"))?;
    condition.last_transition_time.as_ref().map(|time| time.0)
}

/// How a Job comes to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) succeeds: bool,
    reason: String,
    message: String,
}

impl Ending {
    pub(super) fn success(reason: &str, message: &str) -> Ending {
        Ending { succeeds: true, reason: reason.to_owned(), message: message.to_owned() }
    }

    pub(super) fn failure(reason: String, message: String) -> Ending {
        Ending { succeeds: false, reason, message }
    }

    /// The ending that was announced before, and is not taken back.
    pub(super) fn decided(job: &Job) -> Option<Ending> {
        let met = condition(job, "SuccessCriteriaMet").map(|condition| (true, condition));
        let (succeeds, condition) =
            met.or_else(|| condition(job, "FailureTarget").map(|condition| (false, condition)))?;
        Some(Ending {
            succeeds,
            reason: condition.reason.clone().unwrap_or_default(),
            message: condition.message.clone().unwrap_or_default(),
        })
    }

    fn hold(&self, status: &mut JobStatus, kind: &str, now: Timestamp) {
        set(status, kind, "True", &self.reason, &self.message, now);
    }

    /// Says so, while there are still pods to end and to be counted.
    pub(super) fn announce(&self, status: &mut JobStatus, now: Timestamp) {
        let kind = if self.succeeds { "SuccessCriteriaMet" } else { "FailureTarget" };
        self.hold(status, kind, now);
    }

    /// The end, and what to tell of it.
    pub(super) fn conclude(&self, status: &mut JobStatus, now: Timestamp) -> Telling {
        if self.succeeds {
            self.hold(status, "Complete", now);
            status.completion_time = Some(whole(now));
            Telling {
                kind: "Normal",
                reason: "Completed".to_owned(),
                message: "Job completed".to_owned(),
            }
        } else {
            self.hold(status, "Failed", now);
            Telling { kind: "Warning", reason: self.reason.clone(), message: self.message.clone() }
        }
    }
}

/// Says whether the Job is suspended; what to tell if that is new. One that goes on starts anew.
pub(super) fn suspend(status: &mut JobStatus, suspended: bool, now: Timestamp) -> Option<Telling> {
    let (word, reason, message) = if suspended {
        ("True", "JobSuspended", "Job suspended")
    } else {
        ("False", "JobResumed", "Job resumed")
    };
    let was_suspended = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Suspended" && condition.status == "True");
    if was_suspended == suspended {
        return None;
    }
    set(status, "Suspended", word, reason, message, now);
    if !suspended {
        status.start_time = Some(whole(now));
    }
    Some(Telling {
        kind: "Normal",
        reason: if suspended { "Suspended" } else { "Resumed" }.to_owned(),
        message: message.to_owned(),
    })
}

fn set(
    status: &mut JobStatus,
    kind: &str,
    word: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let new = JobCondition {
        type_: kind.to_owned(),
        status: word.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(whole(now)),
        last_transition_time: Some(whole(now)),
    };
    match conditions.iter_mut().find(|condition| condition.type_ == kind) {
        Some(old)
            if old.status == word && old.reason == new.reason && old.message == new.message => {}
        Some(old) => *old = new,
        None => conditions.push(new),
    }
}
