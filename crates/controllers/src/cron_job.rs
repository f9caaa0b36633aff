//! The CronJob controller: observe, plan, act.

use crate::dependents::words;
use crate::events::Recorder;
use crate::harness::{Caches, Change, Key, drive, queue};
use api::cron::time_zone;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use planner::cron_job::{Action, Observed, owns, plan};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[derive(Clone)]
struct Controller {
    client: Client,
    caches: Caches,
    recorder: Recorder,
    clock: crate::Clock,
    schedules: Arc<Mutex<HashMap<String, Scheduled>>>,
}

/// What a CronJob's schedule was when it was last looked at, and since when.
struct Scheduled {
    schedule: String,
    zone: Option<String>,
    since: Option<Timestamp>,
}

/// Runs for ever.
pub(crate) async fn run(client: Client, caches: Caches, clock: crate::Clock) {
    let (queue, keys) = queue();
    queue.feed(&caches.cron_jobs, |change: &Change<CronJob>| {
        let found = change.new.as_ref().or(change.old.as_ref());
        found.map(|one| (one.namespace().unwrap_or_default(), one.name_any())).into_iter().collect()
    });
    queue.feed(&caches.jobs, |change: &Change<Job>| {
        let both = [&change.old, &change.new].into_iter().flatten();
        let mut keys: Vec<Key> = both.filter_map(|job| owner(job)).collect();
        keys.dedup();
        keys
    });
    tokio::join!(caches.cron_jobs.synced(), caches.jobs.synced());
    let recorder = Recorder::new(client.clone(), "cronjob-controller");
    let schedules = Arc::default();
    let controller = Arc::new(Controller { client, caches, recorder, clock, schedules });
    drive("cronjob", queue, keys, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
    .await;
}

/// The CronJob that controls a Job.
fn owner(job: &Job) -> Option<Key> {
    let owners = job.metadata.owner_references.iter().flatten();
    let owner = owners
        .filter(|owner| owner.controller == Some(true) && owner.kind == "CronJob")
        .map(|owner| owner.name.clone())
        .next()?;
    Some((job.namespace().unwrap_or_default(), owner))
}

impl Controller {
    /// When the schedule was last seen to change.
    fn rescheduled(&self, cron_job: &CronJob) -> Option<Timestamp> {
        let mut schedules = self.schedules.lock().unwrap_or_else(PoisonError::into_inner);
        let (schedule, zone) = (cron_job.spec.schedule.clone(), cron_job.spec.time_zone.clone());
        let uid = cron_job.uid().unwrap_or_default();
        let since = match schedules.get(&uid) {
            Some(held) if held.schedule == schedule && held.zone == zone => held.since,
            Some(_) => Some((self.clock)()),
            None => None,
        };
        schedules.insert(uid, Scheduled { schedule, zone, since });
        since
    }

    fn forget_gone(&self) {
        let all = self.caches.cron_jobs.all();
        let living: HashSet<String> = all.iter().filter_map(|one| one.uid()).collect();
        let mut schedules = self.schedules.lock().unwrap_or_else(PoisonError::into_inner);
        schedules.retain(|uid, _| living.contains(uid));
    }

    async fn reconcile(&self, (namespace, name): &Key) -> Result<Option<Duration>, String> {
        let Some(cron_job) = self.caches.cron_jobs.get(namespace, name) else {
            self.forget_gone();
            return Ok(None);
        };
        let uid = cron_job.uid().unwrap_or_default();
        let jobs = self.caches.jobs.controlled_by(namespace, &uid);
        let jobs: Vec<&Job> =
            jobs.iter().map(|job| &**job).filter(|job| owns(&cron_job, job)).collect();
        let zone = cron_job.spec.time_zone.as_deref().map_or(Ok(TimeZone::UTC), time_zone);
        let plan = plan(&Observed {
            cron_job: &cron_job,
            jobs: &jobs,
            zone: zone.as_ref().map_err(String::as_str),
            rescheduled: self.rescheduled(&cron_job),
            now: (self.clock)(),
        });
        for action in &plan.actions {
            self.carry_out(&cron_job, action).await?;
        }
        self.write_status(&cron_job, plan.status).await?;
        for telling in &plan.tellings {
            self.recorder.tell(&*cron_job, telling.kind, &telling.reason, &telling.message);
        }
        Ok(plan.look_again_after)
    }

    async fn carry_out(&self, cron_job: &CronJob, action: &Action) -> Result<(), String> {
        let namespace = cron_job.namespace().unwrap_or_default();
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &namespace);
        match action {
            Action::CreateJob(job) => match jobs.create(&PostParams::default(), job).await {
                Ok(made) => {
                    self.caches.jobs.wait_for_write(&made).await;
                    let message = format!("Created job {}", made.name_any());
                    self.recorder.tell(cron_job, "Normal", "SuccessfulCreate", &message);
                }
                // Made before, or somebody else's: its time is over either way.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => {
                    let words = words(&error);
                    let message = format!("Error creating job: {words}");
                    self.recorder.tell(cron_job, "Warning", "FailedCreate", &message);
                    return Err(words);
                }
            },
            Action::DeleteJob { name, uid } => {
                let only_this = Preconditions { uid: Some(uid.clone()), resource_version: None };
                let options =
                    DeleteParams { preconditions: Some(only_this), ..DeleteParams::background() };
                match jobs.delete(name, &options).await {
                    Ok(_) => {
                        let message = format!("Deleted job {name}");
                        self.recorder.tell(cron_job, "Normal", "SuccessfulDelete", &message);
                    }
                    Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
                    Err(error) => {
                        let words = words(&error);
                        let message = format!("Deleted job: {words}");
                        self.recorder.tell(cron_job, "Warning", "FailedDelete", &message);
                        return Err(words);
                    }
                }
                self.caches.jobs.wait_until_gone(&namespace, name, uid).await;
            }
        }
        Ok(())
    }

    /// Writes the status, if it differs, over the very one that was read.
    async fn write_status(&self, cron_job: &CronJob, status: CronJobStatus) -> Result<(), String> {
        if cron_job.status.clone().unwrap_or_default() == status {
            return Ok(());
        }
        let api: Api<CronJob> =
            Api::namespaced(self.client.clone(), &cron_job.namespace().unwrap_or_default());
        let mut new = cron_job.clone();
        new.status = Some(status);
        match api.replace_status(&cron_job.name_any(), &PostParams::default(), &new).await {
            Ok(written) => {
                self.caches.cron_jobs.wait_for_write(&written).await;
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(words(&error)),
        }
    }
}
