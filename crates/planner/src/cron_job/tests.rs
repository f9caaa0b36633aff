//! Worlds in, plans out.

use super::*;
use serde_json::{Value, json};

/// A CronJob of every ten minutes, made at midnight, and its Jobs.
struct World {
    cron_job: CronJob,
    jobs: Vec<Job>,
    zone: Result<TimeZone, String>,
    rescheduled: Option<&'static str>,
}

fn at(clock: &str) -> Timestamp {
    format!("2027-01-01T{clock}Z").parse().unwrap()
}

/// A Job of a minute after midnight: `active`, `complete`, `failed`; `manual` is active and a user's.
fn job(minute: i64, state: &str) -> Job {
    let time = at("00:00:00") + SignedDuration::from_mins(minute);
    let number = time.as_second() / 60;
    let mut value = json!({"metadata": {"name": format!("tick-{number}"), "namespace": "default", "uid": format!("job-{minute}"),
        "annotations": {SCHEDULED_TIMESTAMP: time.to_string()},
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": "cron-uid", "controller": true}]},
        "status": {"startTime": time.to_string()}});
    let holding = |kind: &str| json!([{"type": kind, "status": "True"}]);
    match state {
        "complete" => {
            value["status"]["conditions"] = holding("Complete");
            value["status"]["completionTime"] = json!(time.to_string());
        }
        "failed" => value["status"]["conditions"] = holding("Failed"),
        "manual" => {
            value["metadata"]["name"] = json!("manual");
            value["metadata"]["annotations"] =
                json!({"cronjob.kubernetes.io/instantiate": "manual"});
        }
        _ => {}
    }
    serde_json::from_value(value).unwrap()
}

impl World {
    fn new(change: Value, jobs: &[(i64, &str)]) -> World {
        let mut value = json!({"schedule": "*/10 * * * *", "concurrencyPolicy": "Allow", "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": {"metadata": {"labels": {"app": "tick"}, "annotations": {"a": "b"}}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": []}}}}});
        for (key, field) in change.as_object().unwrap() {
            value[key] = field.clone();
        }
        let cron_job = serde_json::from_value(json!({"metadata": {"name": "tick", "namespace": "default", "uid": "cron-uid", "creationTimestamp": at("00:00:00").to_string()}, "spec": value})).unwrap();
        let jobs = jobs.iter().map(|(minute, state)| job(*minute, state)).collect();
        World { cron_job, jobs, zone: Ok(TimeZone::UTC), rescheduled: None }
    }

    fn plan(&self, clock: &str) -> Plan {
        let jobs: Vec<&Job> = self.jobs.iter().collect();
        plan(&Observed {
            cron_job: &self.cron_job,
            jobs: &jobs,
            zone: self.zone.as_ref().map_err(String::as_str),
            rescheduled: self.rescheduled.map(at),
            now: at(clock),
        })
    }

    /// Actions and events of a plan, in words; Jobs by the minute after midnight.
    fn wants(&self, clock: &str) -> Vec<String> {
        let plan = self.plan(clock);
        let minute = |name: &str| {
            let number: i64 = name.rsplit_once('-').unwrap().1.parse().unwrap();
            number - at("00:00:00").as_second() / 60
        };
        let mut words: Vec<String> = plan
            .actions
            .iter()
            .map(|action| match action {
                Action::CreateJob(job) => format!("create {}", minute(name(job))),
                Action::DeleteJob { name, .. } => format!("delete {}", minute(name)),
            })
            .collect();
        words.extend(plan.tellings.iter().map(|telling| telling.reason.clone()));
        words
    }

    /// Takes over the status of a plan.
    fn told(mut self, clock: &str) -> World {
        self.cron_job.status = Some(self.plan(clock).status);
        self
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_job_is_made_when_its_time_has_come() {
    let world = World::new(json!({}), &[]);
    assert_eq!(world.wants("00:09:59"), NOTHING);
    assert_eq!(world.plan("00:09:59").look_again_after, Some(Duration::from_secs(1)));
    let plan = world.plan("00:10:00");
    let [Action::CreateJob(job)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
    assert_eq!(
        serde_json::to_value(&job.metadata).unwrap(),
        json!({"name": format!("tick-{}", at("00:10:00").as_second() / 60), "namespace": "default", "labels": {"app": "tick"},
            "annotations": {"a": "b", "batch.kubernetes.io/cronjob-scheduled-timestamp": "2027-01-01T00:10:00Z"},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": "cron-uid", "controller": true, "blockOwnerDeletion": true}]})
    );
    assert_eq!(job.spec, world.cron_job.spec.job_template.spec);
    assert_eq!(plan.status.last_schedule_time, Some(Time(at("00:10:00"))));
    assert_eq!(plan.look_again_after, Some(Duration::from_secs(600)));
}

#[test]
fn a_job_that_was_made_is_active_and_not_made_again() {
    let world = World::new(json!({}), &[(10, "active")]);
    // Its maker died before it wrote the status.
    let plan = world.plan("00:10:05");
    assert_eq!(plan.actions, []);
    assert_eq!(plan.status.last_schedule_time, Some(Time(at("00:10:00"))));
    let active = plan.status.active.unwrap();
    assert_eq!((active.len(), active[0].uid.as_deref()), (1, Some("job-10")));
    assert_eq!(world.told("00:10:05").wants("00:12:00"), NOTHING);
}

#[test]
fn of_missed_times_only_the_newest_is_made_up_for() {
    let world = World::new(json!({}), &[]);
    assert_eq!(world.wants("01:05:00"), ["create 60"]);
    let frequent = World::new(json!({"schedule": "* * * * *"}), &[]);
    assert_eq!(frequent.wants("03:00:30"), ["create 180", "TooManyMissedTimes"]);
    let bounded = World::new(json!({"schedule": "* * * * *", "startingDeadlineSeconds": 120}), &[]);
    assert_eq!(bounded.wants("03:00:30"), ["create 180"]);
}

#[test]
fn a_job_that_is_too_late_is_not_made() {
    let world = World::new(json!({"startingDeadlineSeconds": 30}), &[]);
    assert_eq!(world.wants("00:10:30"), ["create 10"]);
    assert_eq!(world.wants("00:10:31"), ["MissSchedule"]);
    assert_eq!(
        world.plan("00:10:31").tellings[0].message,
        "Missed scheduled time to start a job: Fri, 01 Jan 2027 00:10:00 +0000"
    );
    assert_eq!(world.wants("00:20:10"), ["create 20"]);
}

#[test]
fn the_policy_decides_what_becomes_of_a_job_that_still_runs() {
    let with = |policy: &str| {
        World::new(json!({"concurrencyPolicy": policy}), &[(10, "active")]).told("00:10:01")
    };
    assert_eq!(with("Allow").wants("00:20:00"), ["create 20"]);
    assert_eq!(with("Forbid").wants("00:20:00"), ["JobAlreadyActive"]);
    let replace = with("Replace");
    assert_eq!(replace.wants("00:20:00"), ["delete 10", "create 20"]);
    assert_eq!(replace.plan("00:20:00").status.active, None);
    let mut over = with("Forbid");
    over.jobs = vec![job(10, "complete")];
    assert_eq!(over.wants("00:21:00"), ["create 20", "SawCompletedJob"], "as soon as it may");
}

#[test]
fn finished_jobs_leave_the_list_and_the_last_success_is_kept() {
    let mut world = World::new(json!({}), &[(10, "active"), (20, "active")]).told("00:20:01");
    world.jobs = vec![job(10, "complete"), job(20, "failed")];
    let plan = world.plan("00:25:00");
    let told: Vec<&str> = plan.tellings.iter().map(|telling| telling.message.as_str()).collect();
    let minute = at("00:00:00").as_second() / 60;
    assert_eq!(
        told,
        [
            format!("Saw completed job: tick-{}, status: Complete", minute + 10),
            format!("Saw completed job: tick-{}, status: Failed", minute + 20)
        ]
    );
    assert_eq!(plan.status.active, None);
    assert_eq!(plan.status.last_successful_time, Some(Time(at("00:10:00"))));
    world.jobs.clear();
    assert_eq!(world.wants("00:25:00"), ["MissingJob", "MissingJob"]);
}

#[test]
fn only_so_many_finished_jobs_are_kept() {
    let all = [
        (10, "complete"),
        (20, "failed"),
        (30, "complete"),
        (40, "complete"),
        (50, "failed"),
        (60, "complete"),
        (70, "active"),
    ];
    let world = World::new(json!({}), &all).told("01:10:01");
    assert_eq!(world.wants("01:10:02"), ["delete 10", "delete 20"]);
    let none =
        World::new(json!({"successfulJobsHistoryLimit": 0, "failedJobsHistoryLimit": 0}), &all);
    assert_eq!(none.told("01:10:01").wants("01:10:02").len(), 6);
}

#[test]
fn a_suspended_cron_job_starts_nothing_and_tidies_up() {
    let world =
        World::new(json!({"suspend": true, "successfulJobsHistoryLimit": 0}), &[(10, "complete")]);
    assert_eq!(world.wants("02:00:00"), ["delete 10"]);
    assert_eq!(world.plan("02:00:00").look_again_after, None);
}

#[test]
fn a_cron_job_that_is_being_deleted_does_nothing() {
    let mut world = World::new(json!({"successfulJobsHistoryLimit": 0}), &[(10, "complete")]);
    world.cron_job.metadata.deletion_timestamp = Some(Time(at("00:00:00")));
    assert_eq!(world.wants("02:00:00"), NOTHING);
}

#[test]
fn a_users_job_of_the_template_is_no_part_of_the_schedule() {
    let world = World::new(json!({"concurrencyPolicy": "Forbid"}), &[(5, "manual")]);
    assert_eq!(world.wants("00:06:00"), ["UnexpectedJob"]);
    assert_eq!(world.wants("00:10:00"), ["create 10", "UnexpectedJob"]);
    assert_eq!(world.plan("00:06:00").status.active, None);
}

#[test]
fn what_cannot_be_read_is_told() {
    let words = World::new(json!({"schedule": "often"}), &[]);
    assert_eq!(
        words.plan("00:10:00").tellings[0],
        Telling {
            kind: "Warning",
            reason: "UnparseableSchedule".to_owned(),
            message:
                "unparseable schedule: \"often\" : expected exactly 5 fields, found 1: [often]"
                    .to_owned()
        }
    );
    assert_eq!(
        World::new(json!({"schedule": "0 0 31 2 *"}), &[]).wants("00:10:00"),
        ["InvalidSchedule"]
    );
    let mut nowhere = World::new(json!({"timeZone": "Mars/Base"}), &[]);
    nowhere.zone = Err("unknown time zone Mars/Base".to_owned());
    assert_eq!(
        nowhere.plan("00:10:00").tellings[0].message,
        "invalid timeZone: \"Mars/Base\": unknown time zone Mars/Base"
    );
}

#[test]
fn a_zone_moves_the_times() {
    let mut world = World::new(json!({"schedule": "0 9 * * *", "timeZone": "Asia/Tokyo"}), &[]);
    world.zone = api::cron::time_zone("Asia/Tokyo");
    assert_eq!(world.wants("00:00:01"), NOTHING);
    world.cron_job.metadata.creation_timestamp =
        Some(Time(at("00:00:00") - SignedDuration::from_secs(1)));
    let plan = world.plan("00:00:01");
    let [Action::CreateJob(job)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
    assert_eq!(
        job.metadata.annotations.as_ref().unwrap()[SCHEDULED_TIMESTAMP],
        "2027-01-01T09:00:00+09:00"
    );
    assert_eq!(scheduled_for(job), Some(at("00:00:00")));
}

/// Who moves the daily Job from midnight to noon at three does not get one for the noon that is over.
#[test]
fn a_new_schedule_is_for_the_time_to_come() {
    let mut world = World::new(json!({"schedule": "0 12 * * *"}), &[]);
    let made = |plan: Plan| plan.actions.len();
    assert_eq!(made(world.plan("15:00:00")), 1, "missed, and never changed");
    world.rescheduled = Some("15:00:00");
    let plan = world.plan("15:00:01");
    assert_eq!(plan.look_again_after, Some(Duration::from_secs(21 * 3600 - 1)));
    assert_eq!(made(plan), 0);
}
