//! What the Job controller does next. As upstream: `pkg/controller/job/job_controller.go`,
//! `pkg/controller/ttlafterfinished`.
//!
//! No pod is counted twice, and none is forgotten, by upstream's way of three steps: every pod carries the finalizer
//! [`TRACKING`]; the uid of one that has ended is written into `status.uncountedTerminatedPods`; only then is its finalizer
//! removed; and only when the finalizer is seen to be gone does the uid become a number. (Successes of an indexed Job need
//! no uid: their index says it.) The status is written with the version that was read, so that a plan made on an old status
//! counts nothing.

mod back_off;
mod failure_policy;
mod indexes;
mod pods;
mod status;

pub use back_off::BackOff;
pub use pods::{
    COMPLETION_INDEX, INDEX_FAILURES, INDEX_IGNORED_FAILURES, controller_reference, is_forgotten,
    is_tracked,
};

use crate::workload::{is_ready, phase};
use crate::workload::{name, uid};
use failure_policy::Verdict;
use indexes::Indexes;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use status::Ending;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// The finalizer of pods whose end is to be counted.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Who manages Jobs that name nobody. As upstream: `batchv1.JobControllerName`.
const MANAGER: &str = "kubernetes.io/job-controller";
/// Pods that are made or deleted in one step, and uids that wait in a status to be counted.
const AT_ONCE: usize = 500;

/// The world as the controller's caches show it.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The Job.
    pub job: &'a Job,
    /// Pods of its namespace that name it as controller, or that nobody controls.
    pub pods: &'a [&'a Pod],
    /// What the last plan said of failures; `None` if that is not known any more, then it follows from the pods that
    /// are left.
    pub back_off: Option<BackOff>,
    /// Now.
    pub now: Timestamp,
}

/// What to do, in order. Each action is idempotent, but for [`Action::CreatePod`]: who creates waits until it is seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Takes an orphan that matches, after a live look, and gives it the finalizer.
    AdoptPod {
        /// Name.
        name: String,
        /// The very pod.
        uid: String,
    },
    /// Lets go of a pod that no longer matches.
    ReleasePod {
        /// Name.
        name: String,
        /// The very pod.
        uid: String,
    },
    /// Makes a pod.
    CreatePod(Box<Pod>),
    /// Deletes a pod.
    DeletePod {
        /// Name.
        name: String,
        /// The very pod.
        uid: String,
        /// Whether its finalizer is removed before, so that its end counts for nothing.
        uncounted: bool,
    },
    /// Deletes the Job itself: it has finished long ago.
    DeleteJob,
}

/// Something to tell about the Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling {
    /// `Normal` or `Warning`.
    pub kind: &'static str,
    /// One CamelCase word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// First these, in order.
    pub actions: Vec<Action>,
    /// Then this is written, if it differs from what is read, and if all deletions were accepted.
    pub status: Option<JobStatus>,
    /// Then these pods (name, uid) lose their finalizer.
    pub untrack: Vec<(String, String)>,
    /// What to remember when the status is written.
    pub back_off: BackOff,
    /// What to tell when the status is written.
    pub tellings: Vec<Telling>,
    /// When to look again although nothing may have changed.
    pub look_again_after: Option<Duration>,
}

/// Whether a Job has come to its end.
pub fn is_finished(job: &Job) -> bool {
    status::holds(job, "Complete") || status::holds(job, "Failed")
}

/// Whether somebody else looks after a Job (KEP-4368).
pub fn is_managed_elsewhere(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
    manager.is_some_and(|manager| manager != MANAGER)
}

/// Decides the next step. Total.
pub fn plan(observed: &Observed<'_>) -> Plan {
    let job = observed.job;
    if is_managed_elsewhere(job) {
        return Plan::default();
    }
    if is_finished(job) {
        return after_the_end(observed);
    }
    Planner::new(observed).run()
}

/// A finished Job does nothing but go, in time. As upstream: `ttlafterfinished_controller.go`.
fn after_the_end(observed: &Observed<'_>) -> Plan {
    let mut plan = Plan::default();
    let (members, _) = pods::members(observed);
    plan.untrack = members.into_iter().filter(|pod| is_tracked(pod)).map(identity).collect();
    let ttl = observed.job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished);
    let end = status::finished_at(observed.job);
    if let (Some(ttl), Some(end), None) = (ttl, end, &observed.job.metadata.deletion_timestamp) {
        match until(end, ttl.into(), observed.now) {
            Duration::ZERO => plan.actions.push(Action::DeleteJob),
            wait => plan.look_again_after = Some(wait),
        }
    }
    plan
}

/// How much longer until so many seconds after a time have passed.
fn until(time: Timestamp, seconds: i64, now: Timestamp) -> Duration {
    let end = time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    Duration::try_from(end.duration_since(now)).unwrap_or(Duration::ZERO)
}

fn identity(pod: &Pod) -> (String, String) {
    (name(pod).to_owned(), uid(pod).to_owned())
}

fn count<T: TryInto<i32>>(number: T) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}

struct Planner<'a> {
    observed: &'a Observed<'a>,
    job: &'a Job,
    spec: JobSpec,
    /// The Job's pods, by completion index where there are indexes, then by name.
    pods: Vec<&'a Pod>,
    active: Vec<&'a Pod>,
    /// The status as it will be.
    status: JobStatus,
    /// Successes, counted or not yet.
    succeeded: i64,
    /// Failures that count, counted or not yet.
    failed: i64,
    succeeded_indexes: Indexes,
    /// Only with a limit per index.
    failed_indexes: Option<Indexes>,
    /// Failed pods that are kept until their successor has taken over their count, by index.
    kept: BTreeMap<i64, &'a Pod>,
    ending: Option<Ending>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn new(observed: &'a Observed<'a>) -> Planner<'a> {
        let job = observed.job;
        let (mut pods, actions) = pods::members(observed);
        pods.sort_by(|a, b| (pods::index(a), name(a)).cmp(&(pods::index(b), name(b))));
        Planner {
            observed,
            job,
            spec: job.spec.clone().unwrap_or_default(),
            active: pods.iter().copied().filter(|pod| pods::is_active(pod)).collect(),
            pods,
            status: job.status.clone().unwrap_or_default(),
            succeeded: 0,
            failed: 0,
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            kept: BTreeMap::new(),
            ending: None,
            plan: Plan { actions, ..Plan::default() },
        }
    }

    fn run(mut self) -> Plan {
        self.settle_counted();
        self.count();
        if self.status.start_time.is_none() && !self.is_suspended() {
            self.status.start_time = Some(status::whole(self.observed.now));
        }
        self.ending = self.find_ending();
        if self.ending.is_some() {
            self.delete_active(false);
        } else {
            self.manage();
        }
        self.status.active = Some(count(self.active.len())).filter(|active| *active > 0);
        let ready = self.active.iter().filter(|pod| is_ready(pod)).count();
        self.status.ready = Some(count(ready));
        let terminating = self.pods.iter().filter(|pod| pods::is_terminating(pod)).count();
        self.status.terminating = Some(count(terminating));
        self.track();
        self.finish(terminating);
        self.plan.status = Some(self.status);
        self.plan
    }

    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    /// Since when the Job is active. One that goes on after a suspension starts now.
    fn started_at(&self) -> Option<Timestamp> {
        if status::holds(self.job, "Suspended") {
            return Some(self.observed.now);
        }
        self.status.start_time.as_ref().map(|time| time.0)
    }

    fn is_deleting(&self) -> bool {
        self.job.metadata.deletion_timestamp.is_some()
    }

    fn completions(&self) -> Option<i64> {
        self.spec.completions.map(i64::from)
    }

    /// The index of a pod that has one of the wanted indexes.
    fn wanted_index(&self, pod: &Pod) -> Option<i64> {
        pods::index(pod).filter(|index| self.completions().is_none_or(|all| *index < all))
    }

    /// Whether its end counts at all: in an indexed Job only with an index.
    fn is_valid(&self, pod: &Pod) -> bool {
        !self.is_indexed() || self.wanted_index(pod).is_some()
    }

    fn has_failed(&self, pod: &Pod) -> bool {
        pods::has_failed(self.job, pod)
    }

    fn look_again(&mut self, wait: Duration) {
        let sooner = self.plan.look_again_after.map_or(wait, |other| other.min(wait));
        self.plan.look_again_after = Some(sooner);
    }

    /// The third step of counting: uids whose pods are gone, or have lost their finalizer, become numbers.
    fn settle_counted(&mut self) {
        let tracked = self.pods.iter().copied().filter(|pod| is_tracked(pod));
        let tracked: HashSet<&str> = tracked.map(uid).collect();
        let mut uncounted = self.status.uncounted_terminated_pods.take().unwrap_or_default();
        let settle = |uids: &mut Option<Vec<String>>, counter: &mut Option<i32>| {
            let all = uids.take().unwrap_or_default();
            let before = all.len();
            let left: Vec<String> =
                all.into_iter().filter(|uid| tracked.contains(uid.as_str())).collect();
            let more = count(before - left.len());
            if more > 0 {
                *counter = Some(counter.unwrap_or(0).saturating_add(more));
            }
            *uids = (!left.is_empty()).then_some(left);
        };
        settle(&mut uncounted.succeeded, &mut self.status.succeeded);
        settle(&mut uncounted.failed, &mut self.status.failed);
        self.status.uncounted_terminated_pods = Some(uncounted);
    }

    fn is_uncounted(&self, pod: &Pod) -> (bool, bool) {
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        let among = |uids: Option<&Vec<String>>| {
            uids.is_some_and(|uids| uids.iter().any(|one| one == uid(pod)))
        };
        (
            among(uncounted.and_then(|uncounted| uncounted.succeeded.as_ref())),
            among(uncounted.and_then(|uncounted| uncounted.failed.as_ref())),
        )
    }

    /// What has ended, whether it is counted yet or not.
    fn count(&mut self) {
        let fresh = |pod: &&Pod| is_tracked(pod) && self.is_valid(pod);
        let (succeeded, failed): (Vec<&Pod>, Vec<&Pod>) = (
            self.pods
                .iter()
                .copied()
                .filter(|pod| fresh(pod) && phase(pod) == "Succeeded" && !self.is_uncounted(pod).0)
                .collect(),
            self.pods
                .iter()
                .copied()
                .filter(|pod| fresh(pod) && self.has_failed(pod) && !self.is_uncounted(pod).1)
                .collect(),
        );
        let known = self.observed.back_off.unwrap_or_else(|| {
            let before = |pod: &&&Pod, fresh: &[&Pod]| fresh.iter().all(|one| uid(one) != uid(pod));
            let ended = |test: &dyn Fn(&Pod) -> bool, fresh: &[&Pod]| -> Vec<&Pod> {
                self.pods.iter().filter(|pod| test(pod) && before(pod, fresh)).copied().collect()
            };
            BackOff::default().after(
                &ended(&|pod| phase(pod) == "Succeeded", &succeeded),
                &ended(&|pod| self.has_failed(pod), &failed),
            )
        });
        self.plan.back_off = known.after(&succeeded, &failed);
        let uncounted = self.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let waiting =
            |uids: Option<Vec<String>>| uids.map_or(0, |uids| i64::from(count(uids.len())));
        let counted =
            failed.iter().filter(|pod| pods::verdict_on(self.job, pod) != Verdict::Ignored).count();
        self.failed = i64::from(self.status.failed.unwrap_or(0))
            + i64::from(count(counted))
            + waiting(uncounted.failed);
        self.succeeded = i64::from(self.status.succeeded.unwrap_or(0))
            + i64::from(count(succeeded.len()))
            + waiting(uncounted.succeeded);
        if self.is_indexed() {
            self.count_indexes();
        }
    }

    fn count_indexes(&mut self) {
        let all = self.completions().unwrap_or(0);
        let text = self.status.completed_indexes.clone().unwrap_or_default();
        let new = self
            .pods
            .iter()
            .filter(|pod| phase(pod) == "Succeeded" && is_tracked(pod))
            .filter_map(|pod| self.wanted_index(pod));
        self.succeeded_indexes = Indexes::parse(&text, all).and(&new.collect());
        self.succeeded = self.succeeded_indexes.total();
        let Some(limit) = self.spec.backoff_limit_per_index else { return };
        let text = self.status.failed_indexes.clone().unwrap_or_default();
        let new = self
            .pods
            .iter()
            .filter(|pod| is_tracked(pod) && self.has_failed(pod) && self.fails_index(pod, limit))
            .filter_map(|pod| self.wanted_index(pod))
            // Whoever has succeeded once does not fail any more.
            .filter(|index| !self.succeeded_indexes.contains(*index));
        self.failed_indexes = Some(Indexes::parse(&text, all).and(&new.collect()));
        self.keep_last_failures();
    }

    fn fails_index(&self, pod: &Pod, limit: i32) -> bool {
        match pods::verdict_on(self.job, pod) {
            Verdict::FailsIndex => true,
            Verdict::Ignored => false,
            Verdict::Counts | Verdict::FailsJob(_) => pods::index_failures(pod) >= limit,
        }
    }

    /// Of each index that will be tried again, the failed pod that knows how often it failed.
    fn keep_last_failures(&mut self) {
        let failed = self.failed_indexes.clone().unwrap_or_default();
        let active: Vec<i64> = self.active.iter().filter_map(|pod| pods::index(pod)).collect();
        let rank = |pod: &Pod| (pods::all_index_failures(pod), back_off::finished_at(pod));
        for pod in &self.pods {
            let Some(index) = self.wanted_index(pod) else { continue };
            let is_over = self.succeeded_indexes.contains(index) || failed.contains(index);
            if !is_tracked(pod) || !self.has_failed(pod) || is_over || active.contains(&index) {
                continue;
            }
            match self.kept.get(&index) {
                Some(other) if rank(other) > rank(pod) => {}
                _ => drop(self.kept.insert(index, pod)),
            }
        }
    }

    /// Why the Job comes to its end, if it does.
    fn find_ending(&mut self) -> Option<Ending> {
        if let Some(ending) = Ending::decided(self.job) {
            return Some(ending);
        }
        let failure = |reason: &str, message: &str| {
            Some(Ending::failure(reason.to_owned(), message.to_owned()))
        };
        let failed_pods = self.pods.iter().filter(|pod| self.has_failed(pod));
        for verdict in failed_pods.map(|pod| pods::verdict_on(self.job, pod)) {
            if let Verdict::FailsJob(why) = verdict {
                return Some(Ending::failure("PodFailurePolicy".to_owned(), why));
            }
        }
        let limit = i64::from(self.spec.backoff_limit.unwrap_or(6));
        if self.failed > limit || self.restarts_exceed(limit) {
            return failure("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        if let (Some(seconds), Some(start), false) =
            (self.spec.active_deadline_seconds, self.started_at(), self.is_suspended())
        {
            match until(start, seconds, self.observed.now) {
                Duration::ZERO => {
                    return failure(
                        "DeadlineExceeded",
                        "Job was active longer than specified deadline",
                    );
                }
                wait => self.look_again(wait),
            }
        }
        if !self.is_indexed() {
            return None;
        }
        let completions = self.completions().unwrap_or(0);
        if let Some(failed) = &self.failed_indexes {
            let total = failed.total();
            if self.spec.max_failed_indexes.is_some_and(|max| total > i64::from(max)) {
                return failure(
                    "MaxFailedIndexesExceeded",
                    "Job has exceeded the specified maximal number of failed indexes",
                );
            }
            if total > 0 && total + self.succeeded_indexes.total() >= completions {
                return failure("FailedIndexes", "Job has failed indexes");
            }
        }
        self.matched_success_rule(completions)
            .map(|rule| Ending::success("SuccessPolicy", &format!("Matched rules at index {rule}")))
    }

    /// Containers that are started again in the same pod count by their restarts. As upstream:
    /// `pastBackoffLimitOnFailure`.
    fn restarts_exceed(&self, limit: i64) -> bool {
        let policy =
            self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let restarts: i64 = self
            .pods
            .iter()
            .filter(|pod| ["Running", "Pending"].contains(&phase(pod)))
            .filter_map(|pod| pod.status.as_ref())
            .flat_map(|status| {
                let init = status.init_container_statuses.iter().flatten();
                init.chain(status.container_statuses.iter().flatten())
            })
            .map(|container| i64::from(container.restart_count))
            .sum();
        restarts > 0 && restarts >= limit
    }

    fn matched_success_rule(&self, completions: i64) -> Option<usize> {
        let rules = &self.spec.success_policy.as_ref()?.rules;
        if self.succeeded_indexes.is_empty() {
            return None;
        }
        rules.iter().position(|rule| {
            let enough =
                |reached: i64| rule.succeeded_count.is_some_and(|count| reached >= count.into());
            match &rule.succeeded_indexes {
                Some(text) => {
                    let wanted = Indexes::parse(text, completions);
                    let reached = wanted.common(&self.succeeded_indexes);
                    !wanted.is_empty() && (reached == wanted.total() || enough(reached))
                }
                None => enough(self.succeeded_indexes.total()),
            }
        })
    }

    /// Deletes pods that are still active; those that a suspension or a smaller parallelism takes count for nothing.
    fn delete_active(&mut self, uncounted: bool) {
        for pod in self.active.clone().into_iter().take(AT_ONCE) {
            self.delete(pod, uncounted);
        }
    }

    fn delete(&mut self, pod: &Pod, uncounted: bool) {
        let (name, uid) = identity(pod);
        self.plan.actions.push(Action::DeletePod { name, uid, uncounted });
    }

    /// Makes and deletes pods, and looks whether that is all there is to do. As upstream: `manageJob`.
    fn manage(&mut self) {
        let before = self.plan.actions.len();
        if !self.is_deleting() {
            if self.is_suspended() {
                self.delete_active(true);
            } else {
                self.scale();
            }
        }
        let acts = self.plan.actions.len() > before;
        let reached = match self.completions() {
            // The first success says that the work is done.
            None => self.succeeded > 0,
            Some(wanted) => self.succeeded >= wanted,
        };
        if reached && self.active.is_empty() && !acts {
            self.ending = Some(Ending::success(
                "CompletionsReached",
                "Reached expected number of succeeded pods",
            ));
        } else if !self.is_deleting() {
            let suspended = self.is_suspended();
            let telling = status::suspend(&mut self.status, suspended, self.observed.now);
            self.plan.tellings.extend(telling);
        }
    }

    fn wanted_active(&self) -> i64 {
        let parallelism = i64::from(self.spec.parallelism.unwrap_or(1));
        match self.completions() {
            Some(all) => (all - self.succeeded).min(parallelism).max(0),
            None if self.succeeded > 0 => i64::from(count(self.active.len())),
            None => parallelism,
        }
    }

    fn scale(&mut self) {
        let (wanted, active) = (self.wanted_active(), i64::from(count(self.active.len())));
        let surplus = self.surplus(usize::try_from(active - wanted).unwrap_or(0));
        if !surplus.is_empty() {
            // Either deletions or creations in one step.
            for pod in surplus.into_iter().take(AT_ONCE) {
                self.delete(pod, true);
            }
            return;
        }
        let terminating = if pods::replaces_only_failed(self.job) {
            i64::from(count(self.pods.iter().filter(|pod| pods::is_terminating(pod)).count()))
        } else {
            0
        };
        let missing = usize::try_from(wanted - terminating - active).unwrap_or(0).min(AT_ONCE);
        if missing > 0 {
            self.create(missing);
        }
    }

    fn create(&mut self, missing: usize) {
        let per_index = self.failed_indexes.is_some();
        if !per_index {
            let wait = self.plan.back_off.remaining(self.observed.now);
            if !wait.is_zero() {
                return self.look_again(wait);
            }
        }
        if !self.is_indexed() {
            let pods = (0..missing).map(|_| pods::new_pod(self.job, None, None));
            self.plan.actions.extend(pods.map(|pod| Action::CreatePod(Box::new(pod))));
            return;
        }
        for index in self.pending_indexes(missing) {
            let before = self.kept.get(&index).copied();
            let wait = before.map_or(Duration::ZERO, |pod| {
                let failures = pods::all_index_failures(pod).saturating_add(1);
                let failures = u32::try_from(failures).unwrap_or(0);
                back_off::remaining(failures, back_off::finished_at(pod), self.observed.now)
            });
            if wait.is_zero() {
                let pod = pods::new_pod(self.job, Some(index), before);
                self.plan.actions.push(Action::CreatePod(Box::new(pod)));
            } else {
                self.look_again(wait);
            }
        }
    }

    /// The lowest indexes that nobody works at and that are not over.
    fn pending_indexes(&self, at_most: usize) -> Vec<i64> {
        let mut taken: Indexes = self.active.iter().filter_map(|pod| pods::index(pod)).collect();
        if pods::replaces_only_failed(self.job) {
            let terminating = self.pods.iter().filter(|pod| pods::is_terminating(pod));
            taken = taken.and(&terminating.filter_map(|pod| pods::index(pod)).collect());
        }
        taken = taken.and(&self.succeeded_indexes);
        if let Some(failed) = &self.failed_indexes {
            taken = taken.and(failed);
        }
        taken.first_absent(at_most, self.completions().unwrap_or(0))
    }

    /// Active pods that are too many: those without a wanted index, or with one that another has, and then those that have
    /// come least far.
    fn surplus(&self, at_least: usize) -> Vec<&'a Pod> {
        let mut left = self.active.clone();
        left.sort_by_cached_key(|pod| pods::worth(pod));
        let mut surplus = Vec::new();
        if self.is_indexed() {
            let mut seen = Vec::new();
            // From the best: the one that is worth most stays.
            for pod in std::mem::take(&mut left).into_iter().rev() {
                match self.wanted_index(pod) {
                    Some(index) if !seen.contains(&index) => {
                        seen.push(index);
                        left.insert(0, pod);
                    }
                    _ => surplus.push(pod),
                }
            }
        }
        let more = at_least.saturating_sub(surplus.len());
        surplus.extend(left.into_iter().take(more));
        surplus
    }

    /// The first two steps of counting: pods that have ended are written down, and lose their finalizer.
    fn track(&mut self) {
        let mut uncounted = self.status.uncounted_terminated_pods.take().unwrap_or_default();
        let mut succeeded = uncounted.succeeded.take().unwrap_or_default();
        let mut failed = uncounted.failed.take().unwrap_or_default();
        let mut indexes = Vec::new();
        let fails = matches!(&self.ending, Some(ending) if !ending.succeeds);
        for pod in self.pods.clone().into_iter().filter(|pod| is_tracked(pod)) {
            if indexes.len() + succeeded.len() + failed.len() >= AT_ONCE {
                // The rest comes when these are counted.
                break;
            }
            let (is_success, is_failure) = (phase(pod) == "Succeeded", self.has_failed(pod));
            let kept = self.wanted_index(pod).and_then(|index| self.kept.get(&index));
            let is_kept = kept.is_some_and(|kept| uid(kept) == uid(pod));
            let may_go =
                self.is_deleting() || self.ending.is_some() || is_success || is_failure && !is_kept;
            if !may_go {
                continue;
            }
            self.plan.untrack.push(identity(pod));
            let known = |uids: &[String]| uids.iter().any(|one| one == uid(pod));
            if is_success && !known(&failed) {
                match self.wanted_index(pod) {
                    Some(index) if self.is_indexed() => indexes.push(index),
                    None if self.is_indexed() => {}
                    _ if known(&succeeded) => {}
                    _ => succeeded.push(uid(pod).to_owned()),
                }
            } else if (is_failure || fails)
                && !is_success
                && self.is_valid(pod)
                && !known(&failed)
                // When a Job has failed, whoever still ran has failed as well.
                && pods::verdict_on(self.job, pod) != Verdict::Ignored
            {
                failed.push(uid(pod).to_owned());
            }
        }
        uncounted.succeeded = (!succeeded.is_empty()).then_some(succeeded);
        uncounted.failed = (!failed.is_empty()).then_some(failed);
        self.status.uncounted_terminated_pods = Some(uncounted);
        if self.is_indexed() {
            let all = self.completions().unwrap_or(0);
            let text = self.status.completed_indexes.clone().unwrap_or_default();
            let completed = Indexes::parse(&text, all).and(&indexes.into_iter().collect());
            let total = count(completed.total());
            self.status.succeeded = Some(total).filter(|total| *total > 0);
            self.status.completed_indexes =
                Some(completed.to_string()).filter(|text| !text.is_empty());
            self.status.failed_indexes = self.failed_indexes.as_ref().map(ToString::to_string);
        }
    }

    /// Says that the Job comes to its end, and, when nothing of it is left to be counted or to end, that it has.
    fn finish(&mut self, terminating: usize) {
        let Some(ending) = self.ending.take() else { return };
        ending.announce(&mut self.status, self.observed.now);
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        let is_counted = uncounted
            .is_none_or(|uncounted| uncounted.succeeded.is_none() && uncounted.failed.is_none());
        if is_counted && self.plan.untrack.is_empty() && self.active.is_empty() && terminating == 0
        {
            let telling = ending.conclude(&mut self.status, self.observed.now);
            let completions = self.completions().unwrap_or(i64::MAX);
            if ending.succeeds && i64::from(self.status.succeeded.unwrap_or(0)) > completions {
                self.plan.tellings.push(Telling {
                    kind: "Warning",
                    reason: "TooManySucceededPods".to_owned(),
                    message: "Too many succeeded pods running after completion count reached"
                        .to_owned(),
                });
            }
            self.plan.tellings.push(telling);
        }
    }
}

#[cfg(test)]
mod tests;
