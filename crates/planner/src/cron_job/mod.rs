//! What the CronJob controller does next. As upstream: `pkg/controller/cronjob/cronjob_controllerv2.go`, `utils.go`.

mod times;

use crate::job::{Telling, is_finished};
use crate::workload::controller;
use api::cron::Schedule;
use api::kinds::cron_job::SCHEDULED_TIMESTAMP;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job, JobStatus};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use std::time::Duration;
use times::{MANY, Unmet};

/// The world as the controller's caches show it.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The CronJob.
    pub cron_job: &'a CronJob,
    /// Jobs of its namespace that name it as controller.
    pub jobs: &'a [&'a Job],
    /// Its time zone (UTC if it names none), or why there is none of that name.
    pub zone: Result<&'a TimeZone, &'a str>,
    /// When its schedule was last seen to change, if it was.
    pub rescheduled: Option<Timestamp>,
    /// Now.
    pub now: Timestamp,
}

/// What to do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Deletes a Job with its pods.
    DeleteJob {
        /// Name.
        name: String,
        /// The very Job.
        uid: String,
    },
    /// Makes a Job. Its name says for which minute it is: one that exists already is as good.
    CreateJob(Box<Job>),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// First these.
    pub actions: Vec<Action>,
    /// Then this is written, if it differs and if all actions were accepted.
    pub status: CronJobStatus,
    /// For events.
    pub tellings: Vec<Telling>,
    /// When to look again although nothing may have changed.
    pub look_again_after: Option<Duration>,
}

/// Decides the next step. Total.
pub fn plan(observed: &Observed<'_>) -> Plan {
    let cron_job = observed.cron_job;
    let mut planner = Planner {
        observed,
        spec: cron_job.spec.clone(),
        active: Vec::new(),
        plan: Plan {
            actions: Vec::new(),
            status: cron_job.status.clone().unwrap_or_default(),
            tellings: Vec::new(),
            look_again_after: None,
        },
    };
    planner.follow_jobs();
    if cron_job.metadata.deletion_timestamp.is_none() {
        planner.start();
        planner.forget_old();
    }
    let gone = planner.plan.actions.iter().filter_map(|action| match action {
        Action::DeleteJob { uid, .. } => Some(uid.clone()),
        Action::CreateJob(_) => None,
    });
    let gone: Vec<String> = gone.collect();
    planner.active.retain(|job| !gone.contains(job.uid.as_ref().unwrap_or(&String::new())));
    planner.plan.status.active = (!planner.active.is_empty()).then_some(planner.active);
    planner.plan
}

/// The name of the Job for a time.
pub fn job_name(cron_job: &CronJob, time: Timestamp) -> String {
    let name = cron_job.metadata.name.as_deref().unwrap_or_default();
    format!("{name}-{}", time.as_second().div_euclid(60))
}

/// A reference to the CronJob as controller.
pub fn controller_reference(cron_job: &CronJob) -> OwnerReference {
    OwnerReference {
        api_version: "batch/v1".to_owned(),
        kind: "CronJob".to_owned(),
        name: cron_job.metadata.name.clone().unwrap_or_default(),
        uid: cron_job.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether a CronJob controls a Job.
pub fn owns(cron_job: &CronJob, job: &Job) -> bool {
    controller(&job.metadata)
        .is_some_and(|owner| Some(&owner.uid) == cron_job.metadata.uid.as_ref())
}

fn name(job: &Job) -> &str {
    job.metadata.name.as_deref().unwrap_or_default()
}

fn uid(job: &Job) -> &str {
    job.metadata.uid.as_deref().unwrap_or_default()
}

/// For which time a Job was made; `None` for one that a user made of the template.
fn scheduled_for(job: &Job) -> Option<Timestamp> {
    job.metadata.annotations.as_ref()?.get(SCHEDULED_TIMESTAMP)?.parse().ok()
}

fn status(job: &Job) -> JobStatus {
    job.status.clone().unwrap_or_default()
}

fn holds(job: &Job, kind: &str) -> bool {
    status(job)
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == kind && condition.status == "True")
}

fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        namespace: job.metadata.namespace.clone(),
        name: job.metadata.name.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        field_path: None,
    }
}

struct Planner<'a> {
    observed: &'a Observed<'a>,
    spec: CronJobSpec,
    /// Jobs that were made and have not finished.
    active: Vec<ObjectReference>,
    plan: Plan,
}

impl Planner<'_> {
    fn tell(&mut self, kind: &'static str, reason: &str, message: String) {
        self.plan.tellings.push(Telling { kind, reason: reason.to_owned(), message });
    }

    /// Brings the status up to what the Jobs are.
    fn follow_jobs(&mut self) {
        let before = self.plan.status.active.take().unwrap_or_default();
        for known in &before {
            let job = self.observed.jobs.iter().find(|job| Some(uid(job)) == known.uid.as_deref());
            match job {
                None => {
                    let gone = known.name.clone().unwrap_or_default();
                    self.tell("Normal", "MissingJob", format!("Active job went missing: {gone}"));
                }
                Some(job) if is_finished(job) => {
                    let how = if holds(job, "Complete") { "Complete" } else { "Failed" };
                    let message = format!("Saw completed job: {}, status: {how}", name(job));
                    self.tell("Normal", "SawCompletedJob", message);
                }
                Some(_) => self.active.push(known.clone()),
            }
        }
        for job in self.observed.jobs {
            if holds(job, "Complete") {
                let time = status(job).completion_time;
                if time > self.plan.status.last_successful_time {
                    self.plan.status.last_successful_time = time;
                }
            }
            let scheduled = scheduled_for(job).map(Time);
            if scheduled > self.plan.status.last_schedule_time {
                // It was made, and then its maker died.
                self.plan.status.last_schedule_time = scheduled.clone();
            }
            let is_known = self.active.iter().any(|known| known.uid.as_deref() == Some(uid(job)));
            if is_known || is_finished(job) || job.metadata.deletion_timestamp.is_some() {
                continue;
            }
            if scheduled.is_some() {
                self.active.push(reference(job));
            } else {
                let message = format!(
                    "Saw a job that the controller did not create or forgot: {}",
                    name(job)
                );
                self.tell("Warning", "UnexpectedJob", message);
            }
        }
    }

    /// Makes a Job, if one is due.
    fn start(&mut self) {
        if self.spec.suspend == Some(true) {
            return;
        }
        let zone = match self.observed.zone {
            Ok(zone) => zone,
            Err(error) => {
                let zone = self.spec.time_zone.clone().unwrap_or_default();
                let message = format!("invalid timeZone: {zone:?}: {error}");
                return self.tell("Warning", "UnknownTimeZone", message);
            }
        };
        let schedule = match Schedule::parse(&self.spec.schedule) {
            Ok(schedule) => schedule,
            Err(error) => {
                let message = format!("unparseable schedule: {:?} : {error}", self.spec.schedule);
                return self.tell("Warning", "UnparseableSchedule", message);
            }
        };
        let now = self.observed.now;
        let since = self.last_start();
        let Some(next) = times::after(&schedule, since, now, zone) else {
            let message = format!(
                "invalid schedule: {} : time difference between two schedules is less than 1 second",
                self.spec.schedule
            );
            return self.tell("Warning", "InvalidSchedule", message);
        };
        self.plan.look_again_after = Duration::try_from(next.duration_since(now)).ok();
        if let Some(time) = self.due(&schedule, since, zone) {
            self.start_for(time, zone);
        }
    }

    /// When the last Job was made, or since when there could be one. A new schedule is for the time to come.
    fn last_start(&self) -> Timestamp {
        let made = self.observed.cron_job.metadata.creation_timestamp.as_ref();
        let last = self.plan.status.last_schedule_time.as_ref().or(made);
        let last = last.map_or(self.observed.now, |time| time.0);
        self.observed.rescheduled.map_or(last, |rescheduled| rescheduled.max(last))
    }

    /// The newest time for which a Job should have been made, and was not.
    fn due(&mut self, schedule: &Schedule, since: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let now = self.observed.now;
        let deadline = self
            .spec
            .starting_deadline_seconds
            .and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok());
        let Unmet { newest, count } = times::unmet(schedule, since, now, zone)?;
        if deadline.is_some_and(|deadline| newest < deadline) {
            let time = newest.strftime("%a, %d %b %Y %H:%M:%S +0000");
            let message = format!("Missed scheduled time to start a job: {time}");
            self.tell("Warning", "MissSchedule", message);
            return None;
        }
        let counted = match deadline.filter(|deadline| *deadline > since) {
            Some(deadline) => {
                times::unmet(schedule, deadline, now, zone).map_or(0, |unmet| unmet.count)
            }
            None => count,
        };
        if counted > MANY {
            self.tell("Warning", "TooManyMissedTimes", "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew".to_owned());
        }
        Some(newest)
    }

    fn start_for(&mut self, time: Timestamp, zone: &TimeZone) {
        let policy = self.spec.concurrency_policy.as_deref().unwrap_or("Allow");
        if policy == "Forbid" && !self.active.is_empty() {
            return self.tell("Normal", "JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid".to_owned());
        }
        if policy == "Replace" {
            for job in self.active.clone() {
                let (name, uid) = (job.name.unwrap_or_default(), job.uid.unwrap_or_default());
                self.plan.actions.push(Action::DeleteJob { name, uid });
            }
        }
        let job = new_job(self.observed.cron_job, time, zone);
        self.plan.actions.push(Action::CreateJob(Box::new(job)));
        self.plan.status.last_schedule_time = Some(Time(time));
    }

    /// Finished Jobs beyond the limits go, oldest first.
    fn forget_old(&mut self) {
        for (kind, limit) in [
            ("Complete", self.spec.successful_jobs_history_limit),
            ("Failed", self.spec.failed_jobs_history_limit),
        ] {
            let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
            let mut finished: Vec<&Job> = self
                .observed
                .jobs
                .iter()
                .copied()
                .filter(|job| holds(job, kind) && job.metadata.deletion_timestamp.is_none())
                .collect();
            // One that never started is taken for the newest.
            finished.sort_by_cached_key(|job| {
                let start = status(job).start_time;
                (start.is_none(), start, name(job).to_owned())
            });
            let surplus = finished.len().saturating_sub(limit);
            for job in finished.into_iter().take(surplus) {
                let (name, uid) = (name(job).to_owned(), uid(job).to_owned());
                self.plan.actions.push(Action::DeleteJob { name, uid });
            }
        }
    }
}

/// The Job for a time. As upstream: `getJobFromTemplate2`.
fn new_job(cron_job: &CronJob, time: Timestamp, zone: &TimeZone) -> Job {
    let template = cron_job.spec.job_template.clone();
    let metadata = template.metadata.unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED_TIMESTAMP.to_owned(), rfc3339(time, zone));
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(cron_job, time)),
            namespace: cron_job.metadata.namespace.clone(),
            labels: metadata.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron_job)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// A time as Go's `time.RFC3339` writes it in a zone.
fn rfc3339(time: Timestamp, zone: &TimeZone) -> String {
    let local = time.to_zoned(zone.clone());
    if local.offset().is_zero() {
        return local.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    }
    local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

#[cfg(test)]
mod tests;
