//! What Jobs and CronJobs do, seen from the API.

use crate::cluster::{Cluster, merge};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::eventually;

/// The minute at which stories begin.
const FIRST: i64 = 1_800_000_000 / 60;

fn jobs(cluster: &Cluster) -> Api<Job> {
    Api::namespaced(cluster.client.clone(), "default")
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "work"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "v1"}]}})
}

/// Makes the Job `work`, changed by `change`.
async fn work(cluster: &Cluster, change: Value) {
    let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"}, "spec": {"template": template()}});
    merge(&mut job, change);
    let job: Job = serde_json::from_value(job).unwrap();
    jobs(cluster).create(&PostParams::default(), &job).await.unwrap();
}

/// Waits until a condition of the Job `work` holds, and returns the Job.
async fn until_condition(cluster: &Cluster, kind: &str) -> Value {
    eventually(kind, || async {
        let job = serde_json::to_value(jobs(cluster).get("work").await.unwrap()).unwrap();
        let conditions = job["status"]["conditions"].as_array()?;
        let holds = |one: &Value| one["type"] == kind && one["status"] == "True";
        conditions.iter().any(holds).then(|| job.clone())
    })
    .await
}

async fn until_gone(cluster: &Cluster, name: &str) {
    eventually(&format!("{name} to go"), || async {
        jobs(cluster).get_opt(name).await.unwrap().is_none().then_some(())
    })
    .await;
}

async fn pods(cluster: &Cluster) -> Vec<Pod> {
    cluster.pods().list(&ListParams::default()).await.unwrap().items
}

async fn until_pods(cluster: &Cluster, count: usize) -> Vec<Pod> {
    eventually(&format!("{count} pods"), || async {
        let pods = pods(cluster).await;
        (pods.len() == count).then_some(pods)
    })
    .await
}

/// Waits until something was told: `reason message`.
async fn until_told(cluster: &Cluster, words: &str) {
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), "default");
    eventually(words, || async {
        let list = events.list(&ListParams::default()).await.unwrap();
        let told = |event: &Event| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{} {}", text(&event.reason), text(&event.message)).starts_with(words)
        };
        list.iter().any(told).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_job_completes_and_goes_after_its_time() {
    let cluster = Cluster::start().await;
    cluster.node.end("work-", 0, Duration::from_secs(5));
    work(&cluster, json!({"spec": {"ttlSecondsAfterFinished": 60}})).await;
    let job = until_condition(&cluster, "Complete").await;
    let finished = tokio::time::Instant::now();
    assert_eq!(job["status"]["succeeded"], 1);
    assert_eq!(job["status"].get("active"), None);
    assert_eq!(job["status"]["ready"], 0);
    assert_eq!(job["status"]["uncountedTerminatedPods"], json!({}));
    let pod = &pods(&cluster).await[0];
    assert_eq!(pod.labels()["batch.kubernetes.io/job-name"], "work");
    assert!(pod.finalizers().is_empty());
    until_told(&cluster, "SuccessfulCreate Created pod: work-").await;
    until_told(&cluster, "Completed Job completed").await;
    until_gone(&cluster, "work").await;
    until_pods(&cluster, 0).await;
    let took = finished.elapsed().as_secs();
    assert!((59..70).contains(&took), "it went after {took} s");
}

#[tokio::test(start_paused = true)]
async fn a_failing_job_backs_off_and_gives_up() {
    let cluster = Cluster::start().await;
    cluster.node.end("work-", 3, Duration::from_secs(1));
    let began = tokio::time::Instant::now();
    work(&cluster, json!({"spec": {"backoffLimit": 2}})).await;
    let job = until_condition(&cluster, "Failed").await;
    assert_eq!(job["status"]["failed"], 3);
    let reason = job["status"]["conditions"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(reason["reason"], "BackoffLimitExceeded");
    assert_eq!(reason["message"], "Job has reached the specified backoff limit");
    let took = began.elapsed().as_secs();
    assert!((32..45).contains(&took), "three seconds of work, ten and twenty of waiting: {took} s");
    assert_eq!(pods(&cluster).await.len(), 3, "they are kept to be looked at");
    until_told(&cluster, "BackoffLimitExceeded Job has reached the specified backoff limit").await;
}

#[tokio::test(start_paused = true)]
async fn an_indexed_job_works_at_each_index() {
    let cluster = Cluster::start().await;
    cluster.node.end("work-", 0, Duration::from_secs(2));
    work(
        &cluster,
        json!({"spec": {"completions": 5, "parallelism": 2, "completionMode": "Indexed"}}),
    )
    .await;
    let job = until_condition(&cluster, "Complete").await;
    assert_eq!(job["status"]["completedIndexes"], "0-4");
    assert_eq!(job["status"]["succeeded"], 5);
    let mut names: Vec<String> = Vec::new();
    for pod in pods(&cluster).await {
        let index = pod.annotations()["batch.kubernetes.io/job-completion-index"].clone();
        assert_eq!(pod.spec.as_ref().unwrap().hostname, Some(format!("work-{index}")));
        assert!(pod.name_any().starts_with(&format!("work-{index}-")));
        names.push(index);
    }
    names.sort();
    assert_eq!(names, ["0", "1", "2", "3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_suspended_sends_its_pods_away_and_comes_back() {
    let cluster = Cluster::start().await;
    work(&cluster, json!({"spec": {"parallelism": 2, "completions": 2}})).await;
    until_pods(&cluster, 2).await;
    let suspend = async |suspend: bool| {
        let change = Patch::Merge(json!({"spec": {"suspend": suspend}}));
        jobs(&cluster).patch("work", &PatchParams::default(), &change).await.unwrap();
    };
    suspend(true).await;
    until_pods(&cluster, 0).await;
    let job = until_condition(&cluster, "Suspended").await;
    assert_eq!(job["status"].get("failed"), None);
    cluster.node.end("work-", 0, Duration::from_secs(1));
    suspend(false).await;
    until_condition(&cluster, "Complete").await;
    until_told(&cluster, "Resumed Job resumed").await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_pods_before_the_job_has_failed() {
    let cluster = Cluster::start().await;
    work(&cluster, json!({"spec": {"activeDeadlineSeconds": 30}})).await;
    let name = until_pods(&cluster, 1).await[0].name_any();
    cluster.node.hold(&name);
    let job = until_condition(&cluster, "FailureTarget").await;
    assert_eq!(job["status"]["conditions"].as_array().unwrap().len(), 1);
    eventually("the pod to be on its way out", || async {
        let job = jobs(&cluster).get("work").await.unwrap().status.unwrap();
        (job.terminating == Some(1)).then_some(())
    })
    .await;
    cluster.node.release(&name).await;
    let job = until_condition(&cluster, "Failed").await;
    assert_eq!(job["status"]["conditions"][1]["reason"], "DeadlineExceeded");
    until_pods(&cluster, 0).await;
}

#[tokio::test(start_paused = true)]
async fn pods_go_with_their_job_or_stay_as_the_user_says() {
    let cluster = Cluster::start().await;
    work(&cluster, json!({})).await;
    until_pods(&cluster, 1).await;
    jobs(&cluster).delete("work", &DeleteParams::background()).await.unwrap();
    until_pods(&cluster, 0).await;
    work(&cluster, json!({})).await;
    until_pods(&cluster, 1).await;
    let foreground = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Foreground),
        ..DeleteParams::default()
    };
    jobs(&cluster).delete("work", &foreground).await.unwrap();
    until_gone(&cluster, "work").await;
    until_pods(&cluster, 0).await;
    work(&cluster, json!({})).await;
    until_pods(&cluster, 1).await;
    // Who says nothing keeps the pods, as upstream for batch/v1.
    jobs(&cluster).delete("work", &DeleteParams::default()).await.unwrap();
    until_gone(&cluster, "work").await;
    let free = eventually("a pod that nobody holds", || async {
        let pods = pods(&cluster).await;
        pods.into_iter().find(|pod| pod.finalizers().is_empty())
    })
    .await;
    assert!(free.owner_references().is_empty());
    assert!(free.metadata.deletion_timestamp.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_namespace_goes_with_the_jobs_that_still_run_in_it() {
    let cluster = Cluster::start().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let team = serde_json::from_value(json!({"metadata": {"name": "team"}})).unwrap();
    namespaces.create(&PostParams::default(), &team).await.unwrap();
    let jobs: Api<Job> = Api::namespaced(cluster.client.clone(), "team");
    let job = json!({"metadata": {"name": "work"}, "spec": {"template": template()}});
    let job: Job = serde_json::from_value(job).unwrap();
    eventually("the namespace to take a Job", || async {
        jobs.create(&PostParams::default(), &job).await.ok()
    })
    .await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "team");
    eventually("a pod that runs", || async {
        let pods = pods.list(&ListParams::default()).await.unwrap();
        let runs =
            |pod: &Pod| pod.status.as_ref()?.phase.clone().filter(|phase| phase == "Running");
        pods.iter().find_map(runs)
    })
    .await;
    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    eventually("the namespace to go", || async {
        namespaces.get_opt("team").await.unwrap().is_none().then_some(())
    })
    .await;
}

/// Makes the CronJob `tick` of every minute, changed by `change`.
async fn tick(cluster: &Cluster, change: Value) {
    // Stories live in another year than the API server: the deadline bounds how far back a CronJob looks.
    let mut cron_job = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"}, "spec": {
        "schedule": "* * * * *", "startingDeadlineSeconds": 30, "jobTemplate": {"spec": {"template": template()}}}});
    merge(&mut cron_job, change);
    let cron_job: CronJob = serde_json::from_value(cron_job).unwrap();
    cron_jobs(cluster).create(&PostParams::default(), &cron_job).await.unwrap();
}

fn cron_jobs(cluster: &Cluster) -> Api<CronJob> {
    Api::namespaced(cluster.client.clone(), "default")
}

/// The Jobs of `tick`, by the minutes since the story began.
async fn minutes(cluster: &Cluster) -> Vec<i64> {
    let list = jobs(cluster).list(&ListParams::default()).await.unwrap();
    let number = |job: &Job| -> Option<i64> { job.name_any().strip_prefix("tick-")?.parse().ok() };
    let mut minutes: Vec<i64> =
        list.iter().filter_map(number).map(|minute| minute - FIRST).collect();
    minutes.sort_unstable();
    minutes
}

async fn until_minutes(cluster: &Cluster, expected: &[i64]) {
    eventually(&format!("the Jobs of {expected:?}"), || async {
        (minutes(cluster).await == expected).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_cron_job_makes_a_job_each_minute_and_keeps_so_many() {
    let cluster = Cluster::start().await;
    cluster.node.end("tick-", 0, Duration::from_secs(5));
    tick(&cluster, json!({"spec": {"successfulJobsHistoryLimit": 2}})).await;
    until_minutes(&cluster, &[0]).await;
    until_minutes(&cluster, &[0, 1]).await;
    until_minutes(&cluster, &[1, 2]).await;
    let job = jobs(&cluster).get(&format!("tick-{}", FIRST + 1)).await.unwrap();
    assert_eq!(
        job.annotations()["batch.kubernetes.io/cronjob-scheduled-timestamp"],
        "2027-01-15T08:01:00Z"
    );
    let status =
        serde_json::to_value(cron_jobs(&cluster).get("tick").await.unwrap().status).unwrap();
    assert_eq!(status["lastScheduleTime"], "2027-01-15T08:02:00Z");
    assert!(status["lastSuccessfulTime"].as_str().unwrap().starts_with("2027-01-15T08:02:0"));
    for words in [
        "SuccessfulCreate Created job tick-",
        "SawCompletedJob Saw completed job: tick-",
        "SuccessfulDelete Deleted job tick-",
    ] {
        until_told(&cluster, words).await;
    }
    until_pods(&cluster, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_forbidding_cron_job_waits_for_its_job() {
    let cluster = Cluster::start().await;
    tick(&cluster, json!({"spec": {"concurrencyPolicy": "Forbid"}})).await;
    until_minutes(&cluster, &[0]).await;
    until_told(&cluster, "JobAlreadyActive Not starting job because prior execution is running")
        .await;
    assert_eq!(minutes(&cluster).await, [0]);
    let status = cron_jobs(&cluster).get("tick").await.unwrap().status.unwrap();
    assert_eq!(status.active.unwrap().len(), 1);
    cluster.node.end("tick-", 0, Duration::from_secs(1));
    let name = pods(&cluster).await[0].name_any();
    cluster.node.set("default", &name, "Succeeded", false).await;
    eventually("the next Job", || async { (minutes(&cluster).await.len() > 1).then_some(()) })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_replacing_cron_job_ends_its_job_before_the_next() {
    let cluster = Cluster::start().await;
    tick(&cluster, json!({"spec": {"concurrencyPolicy": "Replace"}})).await;
    until_minutes(&cluster, &[0]).await;
    until_minutes(&cluster, &[1]).await;
    until_minutes(&cluster, &[2]).await;
    let pods = until_pods(&cluster, 1).await;
    assert!(pods[0].name_any().starts_with(&format!("tick-{}-", FIRST + 2)));
}

#[tokio::test(start_paused = true)]
async fn an_allowing_cron_job_lets_its_jobs_overlap() {
    let cluster = Cluster::start().await;
    tick(&cluster, json!({})).await;
    until_minutes(&cluster, &[0, 1, 2]).await;
    eventually("three that are active", || async {
        let status = cron_jobs(&cluster).get("tick").await.unwrap().status?;
        (status.active.map_or(0, |active| active.len()) == 3).then_some(())
    })
    .await;
    cron_jobs(&cluster).delete("tick", &DeleteParams::default()).await.unwrap();
    until_minutes(&cluster, &[]).await;
    until_pods(&cluster, 0).await;
}
