//! Jobs at the API: labels that follow from a name that the server makes, and pods that stay.

use serde_json::{Value, json};
use testkit::TestServer;

const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

fn job(metadata: Value) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": {"spec":
        {"restartPolicy": "Never", "containers": [{"name": "main", "image": "v1"}]}}}})
}

#[tokio::test]
async fn a_generated_name_is_in_the_labels() {
    let server = TestServer::start().await;
    let answer = server.post(JOBS, &job(json!({"generateName": "backup-"}))).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
    let made = answer.json();
    let (name, uid) = (&made["metadata"]["name"], &made["metadata"]["uid"]);
    assert!(name.as_str().unwrap().starts_with("backup-"));
    let labels = &made["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&labels["job-name"], &labels["batch.kubernetes.io/job-name"]), (name, name));
    assert_eq!(
        made["spec"]["selector"],
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}})
    );
}

#[tokio::test]
async fn who_deletes_a_job_and_says_nothing_of_its_pods_is_warned() {
    let server = TestServer::start().await;
    let path = format!("{JOBS}/work");
    server.post(JOBS, &job(json!({"name": "work"}))).await;
    let answer = server.delete(&path).await;
    assert_eq!(answer.json()["metadata"]["finalizers"], json!(["orphan"]));
    assert_eq!(
        answer.warnings(),
        [
            "299 - \"child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning\""
        ]
    );
    server.post(JOBS, &job(json!({"name": "other"}))).await;
    let answer = server.delete(&format!("{JOBS}/other?propagationPolicy=Background")).await;
    assert_eq!((answer.json()["status"].clone(), answer.warnings()), (json!("Success"), vec![]));
}

#[tokio::test]
async fn jobs_are_selected_by_their_successes() {
    let server = TestServer::start().await;
    server.post(JOBS, &job(json!({"name": "work"}))).await;
    let found = async |count: u32| {
        let answer = server.get(&format!("{JOBS}?fieldSelector=status.successful%3D{count}")).await;
        answer.json()["items"].as_array().unwrap().len()
    };
    assert_eq!((found(0).await, found(1).await), (1, 0));
    let status = json!({"status": {"succeeded": 1}});
    server.patch(&format!("{JOBS}/work/status"), "merge", &status).await;
    assert_eq!((found(0).await, found(1).await), (0, 1));
}

#[tokio::test]
async fn containers_of_templates_are_merged_by_their_names() {
    let server = TestServer::start().await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Always",
        "containers": [{"name": "main", "image": "v1", "env": [{"name": "A", "value": "1"}]}, {"name": "side", "image": "v1"}]}});
    let mut once = template.clone();
    once["spec"]["restartPolicy"] = json!("Never");
    let change = json!({"spec": {"containers": [{"name": "main", "image": "v2"}]}});
    for (path, object, patch, pointer) in [
        (
            "/apis/apps/v1/namespaces/default/daemonsets",
            json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}),
            json!({"spec": {"template": change}}),
            "/spec/template/spec/containers",
        ),
        (
            "/apis/batch/v1/namespaces/default/cronjobs",
            json!({"spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": once}}}}),
            json!({"spec": {"jobTemplate": {"spec": {"template": change}}}}),
            "/spec/jobTemplate/spec/template/spec/containers",
        ),
    ] {
        let mut object = object;
        object["metadata"] = json!({"name": "x"});
        assert_eq!(server.post(path, &object).await.code, 201, "{path}");
        let patched = server.patch(&format!("{path}/x"), "strategic-merge", &patch).await.json();
        let containers = patched.pointer(pointer).unwrap();
        let shown =
            [&containers[0]["image"], &containers[0]["env"][0]["value"], &containers[1]["image"]];
        assert_eq!(shown, ["v2", "1", "v1"], "{path}: {containers}");
    }
}
