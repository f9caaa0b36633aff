//! Worlds in, plans out; and whole lives of Jobs, step by step.

use super::*;
use serde_json::{Value, json};

/// A Job and its pods, to which plans are applied as the controller applies them.
struct World {
    job: Job,
    pods: Vec<Pod>,
    back_off: Option<BackOff>,
    now: i64,
    made: usize,
    told: Vec<String>,
}

fn merge(into: &mut Value, change: Value) {
    match change {
        Value::Object(fields) => {
            for (key, value) in fields {
                merge(&mut into[&key], value);
            }
        }
        other => *into = other,
    }
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

impl World {
    fn new(spec: Value) -> World {
        let mut job = json!({"metadata": {"name": "work", "namespace": "default", "uid": "job-uid"}, "spec": {
            "parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false, "podReplacementPolicy": "TerminatingOrFailed",
            "selector": {"matchLabels": {"job": "work"}},
            "template": {"metadata": {"labels": {"job": "work"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
        merge(&mut job["spec"], spec);
        World {
            job: serde_json::from_value(job).unwrap(),
            pods: Vec::new(),
            back_off: None,
            now: 1000,
            made: 0,
            told: Vec::new(),
        }
    }

    fn plan(&self) -> Plan {
        let pods: Vec<&Pod> = self.pods.iter().collect();
        plan(&Observed {
            job: &self.job,
            pods: &pods,
            back_off: self.back_off,
            now: time(self.now),
        })
    }

    /// What a plan wants, in words.
    fn wants(&self) -> Vec<String> {
        self.plan()
            .actions
            .iter()
            .map(|action| match action {
                Action::AdoptPod { name, .. } => format!("adopt {name}"),
                Action::ReleasePod { name, .. } => format!("release {name}"),
                Action::CreatePod(pod) => match pods::index(pod) {
                    Some(index) => format!("create {index}"),
                    None => "create".to_owned(),
                },
                Action::DeletePod { name, uncounted: true, .. } => {
                    format!("delete {name} uncounted")
                }
                Action::DeletePod { name, .. } => format!("delete {name}"),
                Action::DeleteJob => "delete job".to_owned(),
            })
            .collect()
    }

    /// One reconcile.
    fn step(&mut self) -> bool {
        self.step_until(usize::MAX)
    }

    /// A reconcile whose controller dies after so many writes.
    fn step_until(&mut self, mut writes: usize) -> bool {
        let plan = self.plan();
        let before = (self.job.clone(), self.pods.clone());
        let mut lives = || {
            writes = writes.saturating_sub(1);
            writes > 0
        };
        for action in &plan.actions {
            if !lives() {
                return true;
            }
            match action {
                Action::CreatePod(pod) => {
                    let mut pod = (**pod).clone();
                    let name = match pods::index(&pod) {
                        Some(index) => format!("p{}-{index}", self.made),
                        None => format!("p{}", self.made),
                    };
                    self.made += 1;
                    pod.metadata.uid = Some(format!("uid-{name}"));
                    pod.metadata.name = Some(name);
                    self.pods.push(pod);
                    self.set_phase(self.pods.len() - 1, "Running", 0);
                }
                Action::DeletePod { name, uncounted, .. } => {
                    if *uncounted {
                        self.untrack(name);
                    }
                    self.kill(name);
                }
                Action::AdoptPod { .. } | Action::ReleasePod { .. } | Action::DeleteJob => {}
            }
        }
        if !lives() {
            return true;
        }
        if let Some(status) = plan.status {
            assert_possible(&self.job, &status);
            self.job.status = Some(status);
            self.back_off = Some(plan.back_off);
            self.told.extend(plan.tellings.iter().map(|telling| telling.reason.clone()));
        }
        for (name, _) in &plan.untrack {
            if !lives() {
                return true;
            }
            self.untrack(name);
        }
        before != (self.job.clone(), self.pods.clone())
    }

    /// Reconciles until nothing changes.
    fn settle(&mut self) {
        for _ in 0..50 {
            if !self.step() {
                return;
            }
        }
        panic!("it never settles: {:#?}", self.job.status);
    }

    fn at(&self, name: &str) -> usize {
        self.pods.iter().position(|pod| super::name(pod) == name).unwrap()
    }

    fn untrack(&mut self, name: &str) {
        let at = self.at(name);
        self.pods[at].metadata.finalizers = None;
        self.pods.retain(|pod| pod.metadata.deletion_grace_period_seconds != Some(0));
    }

    /// Somebody deletes a pod: it lingers until [`World::gone`].
    fn kill(&mut self, name: &str) {
        let at = self.at(name);
        let metadata = &mut self.pods[at].metadata;
        metadata.deletion_timestamp = Some(status::whole(time(self.now + 30)));
        metadata.deletion_grace_period_seconds = Some(30);
    }

    /// The node has ended a pod that is being deleted.
    fn gone(&mut self, name: &str) {
        let at = self.at(name);
        self.pods[at].metadata.deletion_grace_period_seconds = Some(0);
        if !is_tracked(&self.pods[at]) {
            self.pods.remove(at);
        }
    }

    /// The newest pod that is active ends so.
    fn end(&mut self, exit_code: i32) {
        let at = self.pods.iter().rposition(pods::is_active).unwrap();
        self.set_phase(at, if exit_code == 0 { "Succeeded" } else { "Failed" }, exit_code);
    }

    /// The active pod of an index ends so.
    fn end_index(&mut self, index: i64, exit_code: i32) {
        let at = self
            .pods
            .iter()
            .position(|pod| pods::is_active(pod) && pods::index(pod) == Some(index))
            .unwrap();
        self.set_phase(at, if exit_code == 0 { "Succeeded" } else { "Failed" }, exit_code);
    }

    fn set_phase(&mut self, at: usize, phase: &str, exit_code: i32) {
        let state = match phase {
            "Running" => json!({"running": {}}),
            _ => {
                json!({"terminated": {"exitCode": exit_code, "finishedAt": time(self.now).to_string()}})
            }
        };
        let ready = if phase == "Running" { "True" } else { "False" };
        self.pods[at].status = serde_json::from_value(json!({"phase": phase, "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state}]}))
        .unwrap();
    }

    fn status(&self) -> Value {
        serde_json::to_value(self.job.status.clone().unwrap_or_default()).unwrap()
    }

    /// `type:reason` of the conditions that hold.
    fn conditions(&self) -> Vec<String> {
        let conditions =
            self.job.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions
            .filter(|condition| condition.status == "True")
            .map(|one| format!("{}:{}", one.type_, one.reason.clone().unwrap_or_default()))
            .collect()
    }
}

/// What no status may ever do: promises that users and tools rely on.
fn assert_possible(job: &Job, new: &JobStatus) {
    let old = job.status.clone().unwrap_or_default();
    assert!(new.failed >= old.failed, "failures are taken back: {old:?} {new:?}");
    assert!(new.ready.unwrap_or(0) <= new.active.unwrap_or(0), "{new:?}");
    let uncounted = new.uncounted_terminated_pods.clone().unwrap_or_default();
    let mut uids: Vec<String> =
        uncounted.succeeded.into_iter().chain(uncounted.failed).flatten().collect();
    let all = uids.len();
    uids.sort();
    uids.dedup();
    assert_eq!(uids.len(), all, "a pod is counted twice");
}

#[test]
fn one_success_completes_a_job() {
    let mut world = World::new(json!({}));
    assert_eq!(world.wants(), ["create"]);
    world.settle();
    assert_eq!(world.status()["active"], 1);
    assert_eq!(world.status()["ready"], 1);
    assert!(is_tracked(&world.pods[0]));
    world.end(0);
    world.settle();
    assert_eq!(
        world.conditions(),
        ["SuccessCriteriaMet:CompletionsReached", "Complete:CompletionsReached"]
    );
    let at = time(1000).to_string();
    let mut status = world.status();
    status.as_object_mut().unwrap().remove("conditions");
    assert_eq!(
        status,
        json!({"startTime": at, "completionTime": at, "succeeded": 1, "ready": 0, "terminating": 0, "uncountedTerminatedPods": {}})
    );
    assert_eq!(world.told, ["Completed"]);
    assert!(!is_tracked(&world.pods[0]), "the pod may be deleted");
    assert_eq!(world.plan().status, None, "a finished Job is left alone");
}

#[test]
fn a_pod_is_counted_only_after_its_finalizer_is_gone() {
    let mut world = World::new(json!({"completions": 2}));
    world.settle();
    world.end(0);
    let first = world.plan();
    let status = first.status.clone().unwrap();
    assert_eq!(status.succeeded, None);
    let uncounted = status.uncounted_terminated_pods.clone().unwrap();
    assert_eq!(uncounted.succeeded, Some(vec!["uid-p0".to_owned()]));
    assert_eq!(first.untrack, [("p0".to_owned(), "uid-p0".to_owned())]);
    // The controller dies after the status is written: the finalizer is still there.
    world.job.status = Some(status);
    let again = world.plan();
    assert_eq!(again.status.unwrap().succeeded, None);
    assert_eq!(again.untrack, first.untrack);
    // It dies after the finalizer is removed; the pod is even gone.
    world.pods.retain(|pod| name(pod) != "p0");
    let counted = world.plan().status.unwrap();
    assert_eq!(counted.succeeded, Some(1));
    assert_eq!(counted.uncounted_terminated_pods, Some(Default::default()));
    world.job.status = Some(counted);
    assert_eq!(world.plan().status.unwrap().succeeded, Some(1), "and never again");
}

/// Whatever ends when, whatever users clean up, and wherever the controller dies: each pod is counted once.
#[test]
fn histories_with_dying_controllers_count_each_pod_once() {
    for seed in 0..300_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |limit: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % limit
        };
        let indexed = seed % 2 == 1;
        let mode = if indexed { "Indexed" } else { "NonIndexed" };
        let mut world = World::new(
            json!({"completions": 4, "parallelism": 3, "backoffLimit": 1000, "completionMode": mode}),
        );
        let (mut successes, mut failures) = (0, 0);
        for _ in 0..60 {
            let active = world.pods.iter().any(pods::is_active);
            match below(6) {
                0 if active => {
                    world.end(0);
                    successes += 1;
                }
                1 if active => {
                    world.end(1);
                    failures += 1;
                }
                2 => world.pods.retain(|pod| is_tracked(pod) || !pods::has_ended(pod)),
                3 => {
                    world.step_until(usize::try_from(below(7)).unwrap());
                    world.back_off = None;
                }
                _ => drop(world.step()),
            }
            world.now += 100;
        }
        for _ in 0..40 {
            world.now += 400;
            world.settle();
            if is_finished(&world.job) {
                break;
            }
            world.end(0);
            successes += 1;
        }
        let status = world.status();
        let counted =
            (status["succeeded"].clone(), status.get("failed").cloned().unwrap_or(json!(0)));
        assert_eq!(counted, (json!(4.max(successes)), json!(failures)), "seed {seed}: {status}");
    }
}

#[test]
fn no_more_pods_are_made_than_are_missing() {
    let mut world = World::new(json!({"completions": 5, "parallelism": 3}));
    assert_eq!(world.wants().len(), 3);
    world.settle();
    world.end(0);
    world.end(0);
    world.end(0);
    assert_eq!(world.wants().len(), 2);
    world.settle();
    world.end(0);
    world.settle();
    assert_eq!(world.status()["active"], 1);
    world.end(0);
    world.settle();
    assert_eq!(world.status()["succeeded"], 5);
    assert_eq!(world.pods.len(), 5);
}

#[test]
fn a_queue_is_done_when_one_has_succeeded_and_the_others_have_ended() {
    let mut world = World::new(json!({"completions": null, "parallelism": 3}));
    world.settle();
    world.end(0);
    world.settle();
    assert_eq!(world.status()["active"], 2, "no successor, and nobody is stopped");
    assert!(world.conditions().is_empty());
    world.end(1);
    world.settle();
    assert_eq!(world.status()["active"], 1, "failures are not replaced any more");
    world.end(0);
    world.settle();
    assert_eq!(world.conditions()[1], "Complete:CompletionsReached");
    assert_eq!((&world.status()["succeeded"], &world.status()["failed"]), (&json!(2), &json!(1)));
}

#[test]
fn a_job_of_nothing_is_complete_at_once() {
    let mut world = World::new(json!({"completions": 0}));
    world.step();
    assert_eq!(world.conditions()[1], "Complete:CompletionsReached");
    assert!(world.pods.is_empty());
}

#[test]
fn failures_back_off_until_the_limit() {
    let mut world = World::new(json!({"backoffLimit": 2}));
    world.settle();
    for wait in [10, 20] {
        world.end(1);
        world.settle();
        assert_eq!(world.wants(), [] as [&str; 0]);
        assert_eq!(world.plan().look_again_after, Some(Duration::from_secs(wait)));
        world.now += i64::try_from(wait).unwrap() - 1;
        assert_eq!(world.wants(), [] as [&str; 0]);
        world.now += 1;
        assert_eq!(world.wants(), ["create"]);
        world.settle();
    }
    world.end(1);
    world.settle();
    assert_eq!(
        world.conditions(),
        ["FailureTarget:BackoffLimitExceeded", "Failed:BackoffLimitExceeded"]
    );
    assert_eq!(world.status()["failed"], 3);
    assert_eq!(world.told, ["BackoffLimitExceeded"]);
    assert_eq!(world.status().get("completionTime"), None);
}

#[test]
fn a_controller_that_forgot_reads_the_back_off_from_the_pods() {
    let mut world = World::new(json!({}));
    world.settle();
    world.end(1);
    world.settle();
    world.now += 10;
    world.settle();
    world.end(1);
    world.settle();
    let known = world.plan().look_again_after;
    assert_eq!(known, Some(Duration::from_secs(20)));
    world.back_off = None;
    assert_eq!(world.plan().look_again_after, known);
}

#[test]
fn restarts_within_a_pod_count_where_containers_are_restarted() {
    let mut world = World::new(
        json!({"backoffLimit": 3, "template": {"spec": {"restartPolicy": "OnFailure"}}}),
    );
    world.settle();
    let restarts = |world: &mut World, count: i32| {
        let status = world.pods[0].status.as_mut().unwrap();
        status.container_statuses.as_mut().unwrap()[0].restart_count = count;
    };
    restarts(&mut world, 2);
    assert_eq!(world.wants(), [] as [&str; 0]);
    restarts(&mut world, 3);
    assert_eq!(world.wants(), ["delete p0"]);
    world.settle();
    assert_eq!(world.conditions(), ["FailureTarget:BackoffLimitExceeded"]);
    assert_eq!(world.status()["terminating"], 1);
    world.gone("p0");
    world.settle();
    assert_eq!(world.conditions()[1], "Failed:BackoffLimitExceeded");
    assert_eq!(world.status()["failed"], 1);
}

#[test]
fn the_deadline_ends_a_job_with_all_its_pods() {
    let mut world =
        World::new(json!({"activeDeadlineSeconds": 60, "parallelism": 2, "completions": 2}));
    world.settle();
    assert_eq!(world.plan().look_again_after, Some(Duration::from_secs(60)));
    world.now += 60;
    assert_eq!(world.wants(), ["delete p0", "delete p1"]);
    world.settle();
    assert_eq!(world.conditions(), ["FailureTarget:DeadlineExceeded"], "pods are still ending");
    world.gone("p0");
    world.gone("p1");
    world.settle();
    assert_eq!(world.conditions()[1], "Failed:DeadlineExceeded");
    assert_eq!(world.status()["failed"], 2);
}

#[test]
fn a_suspended_job_has_no_pods_and_starts_anew() {
    let mut world = World::new(json!({"activeDeadlineSeconds": 60, "suspend": true}));
    world.settle();
    assert!(world.pods.is_empty());
    assert_eq!(world.conditions(), ["Suspended:JobSuspended"]);
    assert_eq!(world.status().get("startTime"), None);
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    world.now = 2000;
    world.settle();
    assert_eq!(world.status()["startTime"], json!(time(2000).to_string()));
    assert_eq!(world.conditions(), [] as [&str; 0]);
    world.job.spec.as_mut().unwrap().suspend = Some(true);
    assert_eq!(world.wants(), ["delete p0 uncounted"]);
    world.settle();
    world.gone("p0");
    world.now = 3000;
    world.settle();
    assert_eq!(world.status().get("failed"), None, "who was sent away has not failed");
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    world.settle();
    assert_eq!(world.status()["startTime"], json!(time(3000).to_string()));
    assert_eq!(world.told, ["Suspended", "Resumed", "Suspended", "Resumed"]);
    assert_eq!(world.pods.len(), 1);
}

#[test]
fn less_parallelism_takes_those_that_have_come_least_far() {
    let mut world = World::new(json!({"completions": 3, "parallelism": 3}));
    world.settle();
    world.pods[1].status.as_mut().unwrap().phase = Some("Pending".to_owned());
    world.job.spec.as_mut().unwrap().parallelism = Some(2);
    assert_eq!(world.wants(), ["delete p1 uncounted"]);
}

#[test]
fn a_finished_job_goes_after_its_time() {
    let mut world = World::new(json!({"ttlSecondsAfterFinished": 100}));
    world.settle();
    world.end(0);
    world.settle();
    world.now += 40;
    assert_eq!(world.plan().look_again_after, Some(Duration::from_secs(60)));
    assert_eq!(world.wants(), [] as [&str; 0]);
    world.now += 60;
    assert_eq!(world.wants(), ["delete job"]);
    world.job.metadata.deletion_timestamp = Some(status::whole(time(world.now)));
    assert_eq!(world.wants(), [] as [&str; 0], "once is enough");
}

#[test]
fn an_indexed_job_has_each_index_once() {
    let mut world =
        World::new(json!({"completions": 4, "parallelism": 2, "completionMode": "Indexed"}));
    assert_eq!(world.wants(), ["create 0", "create 1"]);
    world.settle();
    let pod = serde_json::to_value(&world.pods[1]).unwrap();
    assert_eq!(pod["metadata"]["annotations"][COMPLETION_INDEX], "1");
    assert_eq!(pod["metadata"]["labels"][COMPLETION_INDEX], "1");
    assert_eq!(pod["metadata"]["generateName"], "work-1-");
    assert_eq!(pod["spec"]["hostname"], "work-1");
    assert_eq!(
        pod["spec"]["containers"][0]["env"],
        json!([{"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-completion-index']"}}}])
    );
    world.end_index(1, 0);
    world.settle();
    assert_eq!(world.status()["completedIndexes"], "1");
    world.end_index(0, 1);
    world.settle();
    world.now += 10;
    assert_eq!(world.wants(), ["create 0"], "the failed one again");
    world.settle();
    world.end_index(0, 0);
    world.settle();
    world.end_index(2, 0);
    world.settle();
    world.end_index(3, 0);
    world.settle();
    assert_eq!(world.status()["completedIndexes"], "0-3");
    assert_eq!((&world.status()["succeeded"], &world.status()["failed"]), (&json!(4), &json!(1)));
    assert_eq!(world.conditions()[1], "Complete:CompletionsReached");
}

#[test]
fn pods_without_a_wanted_index_and_doubles_are_deleted() {
    let mut world =
        World::new(json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"}));
    world.settle();
    let mut double = world.pods[1].clone();
    double.metadata.name = Some("double".to_owned());
    double.metadata.uid = Some("uid-double".to_owned());
    double.status.as_mut().unwrap().phase = Some("Pending".to_owned());
    world.pods.push(double);
    world.pods[0].metadata.annotations = None;
    let mut wants = world.wants();
    wants.sort();
    assert_eq!(wants, ["delete double uncounted", "delete p0-0 uncounted"]);
}

#[test]
fn an_index_fails_after_its_own_limit_and_the_others_go_on() {
    let mut world =
        World::new(json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed",
        "backoffLimitPerIndex": 1, "backoffLimit": i32::MAX}));
    world.settle();
    world.end_index(0, 1);
    world.settle();
    let kept = &world.pods[0];
    assert!(is_tracked(kept), "kept until its successor has taken over its count");
    assert_eq!(world.plan().look_again_after, Some(Duration::from_secs(10)));
    world.now += 10;
    world.settle();
    let successor = world.pods.last().unwrap();
    assert_eq!(successor.metadata.annotations.as_ref().unwrap()[INDEX_FAILURES], "1");
    assert!(!is_tracked(&world.pods[0]));
    world.end_index(0, 1);
    world.settle();
    assert_eq!(world.status()["failedIndexes"], "0");
    assert_eq!(world.wants(), [] as [&str; 0]);
    assert_eq!(world.conditions(), [] as [&str; 0], "index 1 is still at work");
    world.end_index(1, 0);
    world.settle();
    assert_eq!(world.conditions(), ["FailureTarget:FailedIndexes", "Failed:FailedIndexes"]);
    assert_eq!(world.status()["completedIndexes"], "1");
}

#[test]
fn too_many_failed_indexes_end_the_job() {
    let mut world =
        World::new(json!({"completions": 5, "parallelism": 3, "completionMode": "Indexed",
        "backoffLimitPerIndex": 0, "maxFailedIndexes": 1, "backoffLimit": i32::MAX}));
    world.settle();
    world.end_index(0, 1);
    world.settle();
    assert_eq!(world.conditions(), [] as [&str; 0]);
    world.end_index(1, 1);
    assert_eq!(world.wants().len(), 2, "the others are deleted");
    world.step();
    assert_eq!(world.conditions(), ["FailureTarget:MaxFailedIndexesExceeded"]);
    assert_eq!(world.status()["failedIndexes"], "0,1");
}

#[test]
fn a_success_policy_is_met_by_leaders_or_by_numbers() {
    let policy = |rule: Value| {
        let mut world =
            World::new(json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed",
            "successPolicy": {"rules": [rule]}}));
        world.settle();
        world
    };
    let mut leader = policy(json!({"succeededIndexes": "0"}));
    leader.end_index(2, 0);
    leader.settle();
    assert_eq!(leader.conditions(), [] as [&str; 0]);
    leader.end_index(0, 0);
    leader.settle();
    assert_eq!(leader.conditions(), ["SuccessCriteriaMet:SuccessPolicy"]);
    for name in ["p1-1", "p3-3"] {
        leader.gone(name);
    }
    leader.settle();
    assert_eq!(leader.conditions()[1], "Complete:SuccessPolicy");
    assert_eq!(leader.status().get("failed"), None, "who was not needed has not failed");
    let mut number = policy(json!({"succeededIndexes": "0-2", "succeededCount": 2}));
    number.end_index(1, 0);
    number.end_index(3, 0);
    number.settle();
    assert_eq!(number.conditions(), [] as [&str; 0]);
    number.end_index(2, 0);
    number.settle();
    assert_eq!(number.conditions(), ["SuccessCriteriaMet:SuccessPolicy"]);
}

#[test]
fn the_failure_policy_decides_what_a_failure_means() {
    let policy = |rules: Value| {
        let mut world = World::new(
            json!({"podFailurePolicy": {"rules": rules}, "podReplacementPolicy": "Failed", "backoffLimit": 0}),
        );
        world.settle();
        world
    };
    let codes = |action: &str| json!([{"action": action, "onExitCodes": {"containerName": "c", "operator": "In", "values": [42]}}]);
    let mut fatal = policy(codes("FailJob"));
    fatal.end(42);
    fatal.settle();
    assert_eq!(fatal.conditions(), ["FailureTarget:PodFailurePolicy", "Failed:PodFailurePolicy"]);
    let message = fatal.status()["conditions"][1]["message"].clone();
    assert_eq!(
        message,
        "Container c for pod default/p0 failed with exit code 42 matching FailJob rule at index 0"
    );
    let mut ignored = policy(codes("Ignore"));
    ignored.end(42);
    ignored.settle();
    assert_eq!(ignored.status().get("failed"), None);
    ignored.now += 10;
    ignored.settle();
    assert_eq!(ignored.pods.len(), 2, "it is replaced, after a while");
    let mut counted = policy(codes("Ignore"));
    counted.end(1);
    counted.settle();
    assert_eq!(counted.conditions()[1], "Failed:BackoffLimitExceeded", "no rule matches 1");
    let mut other = policy(
        json!([{"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [42]}}]),
    );
    other.end(7);
    other.settle();
    assert_eq!(other.conditions()[1], "Failed:PodFailurePolicy");
    let mut disrupted = policy(
        json!([{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]),
    );
    disrupted.end(137);
    let conditions = disrupted.pods[0].status.as_mut().unwrap().conditions.as_mut().unwrap();
    conditions[0].type_ = "DisruptionTarget".to_owned();
    conditions[0].status = "True".to_owned();
    disrupted.settle();
    assert_eq!(disrupted.conditions(), [] as [&str; 0]);
}

#[test]
fn a_rule_may_fail_an_index_at_once() {
    let mut world = World::new(
        json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 5, "backoffLimit": i32::MAX,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [9]}}]}}),
    );
    world.settle();
    world.end_index(0, 9);
    world.settle();
    assert_eq!(world.status()["failedIndexes"], "0");
}

#[test]
fn a_pod_that_is_being_deleted_is_replaced_at_once_or_when_it_has_ended() {
    let mut early = World::new(json!({}));
    early.settle();
    early.kill("p0");
    early.now += 40;
    early.settle();
    assert_eq!(early.pods.len(), 2, "the old one is still ending");
    assert_eq!(early.status()["failed"], 1);
    let mut late = World::new(json!({"podReplacementPolicy": "Failed"}));
    late.settle();
    late.kill("p0");
    late.settle();
    assert_eq!(late.pods.len(), 1);
    assert_eq!(late.status()["terminating"], 1);
    late.gone("p0");
    late.now += 40;
    late.settle();
    assert_eq!(late.status()["failed"], 1);
    assert_eq!(late.pods.iter().filter(|pod| pods::is_active(pod)).count(), 1);
}

#[test]
fn strangers_are_adopted_and_those_who_left_are_let_go() {
    let mut world = World::new(json!({}));
    world.settle();
    let mut orphan = world.pods[0].clone();
    orphan.metadata.name = Some("orphan".to_owned());
    orphan.metadata.uid = Some("uid-orphan".to_owned());
    orphan.metadata.owner_references = None;
    let mut foreign = orphan.clone();
    foreign.metadata.name = Some("foreign".to_owned());
    foreign.metadata.owner_references = Some(vec![pods::controller_reference(&Job::default())]);
    world.pods[0].metadata.labels = None;
    world.pods.extend([orphan, foreign]);
    assert_eq!(world.wants(), ["release p0", "adopt orphan"]);
    world.job.metadata.deletion_timestamp = Some(status::whole(time(1)));
    assert_eq!(world.wants(), [] as [&str; 0]);
}

#[test]
fn nobody_waits_for_a_job_that_will_never_count_him() {
    let mut world = World::new(json!({}));
    world.settle();
    let pod = world.pods[0].clone();
    assert!(!is_forgotten(&pod, Some(&world.job)));
    assert!(is_forgotten(&pod, None));
    let mut other = world.job.clone();
    other.metadata.uid = Some("another".to_owned());
    assert!(is_forgotten(&pod, Some(&other)), "a new Job of the same name");
    world.end(0);
    world.settle();
    assert!(is_forgotten(&pod, Some(&world.job)), "it has finished");
    let mut free = pod.clone();
    free.metadata.owner_references = None;
    assert!(is_forgotten(&free, None));
    assert!(!is_forgotten(&world.pods[0], None), "nothing holds it");
}

#[test]
fn a_job_that_somebody_else_manages_is_left_alone() {
    let world = World::new(json!({"managedBy": "example.com/queue"}));
    assert_eq!(world.plan(), Plan::default());
    let own = World::new(json!({"managedBy": "kubernetes.io/job-controller"}));
    assert_eq!(own.wants(), ["create"]);
}

#[test]
fn names_of_indexed_pods_keep_their_index() {
    let mut world = World::new(json!({"completions": 1, "completionMode": "Indexed"}));
    world.job.metadata.name = Some("a".repeat(60));
    let Action::CreatePod(pod) = &world.plan().actions[0] else { panic!() };
    assert_eq!(pod.metadata.generate_name, Some(format!("{}-0-", "a".repeat(55))));
}
