//! Eviction, and what budgets have to say. The controller of budgets is played by the tests.

use serde_json::{Value, json};
use testkit::{Answer, TestServer};

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

async fn pod(server: &TestServer, name: &str, phase: &str, ready: &str) {
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.post(accounts, &json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"nodeName": "n", "containers": [{"name": "main", "image": "busybox"}]}});
    assert_eq!(server.post(PODS, &pod).await.code, 201);
    let status =
        json!({"status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}});
    let written = server.patch(&format!("{PODS}/{name}/status"), "merge", &status).await;
    assert_eq!(written.code, 200, "{}", written.json());
}

async fn budget(server: &TestServer, name: &str, status: Value) {
    let budget = json!({"metadata": {"name": name}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    assert_eq!(server.post(BUDGETS, &budget).await.code, 201);
    let told = json!({"status": status});
    let written = server.patch(&format!("{BUDGETS}/{name}/status"), "merge", &told).await;
    assert_eq!(written.code, 200, "{}", written.json());
}

async fn evict(server: &TestServer, name: &str, options: Value) -> Answer {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, "deleteOptions": options});
    server.post(&format!("{PODS}/{name}/eviction"), &eviction).await
}

async fn is_going(server: &TestServer, name: &str) -> bool {
    let pod = server.get(&format!("{PODS}/{name}")).await.json();
    !pod["metadata"]["deletionTimestamp"].is_null()
}

#[tokio::test]
async fn an_eviction_that_is_allowed_is_counted_and_told_in_the_pod() {
    let server = TestServer::start().await;
    pod(&server, "a", "Running", "True").await;
    let open = json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2});
    budget(&server, "b", open).await;
    assert_eq!(evict(&server, "a", json!({"dryRun": ["All"]})).await.code, 201);
    assert!(!is_going(&server, "a").await);
    let path = format!("{BUDGETS}/b");
    assert_eq!(server.get(&path).await.json()["status"]["disruptionsAllowed"], 1, "a dry run");
    let done = evict(&server, "a", json!({})).await;
    assert_eq!((done.code, &done.json()["status"]), (201, &json!("Success")));
    let going = server.get(&format!("{PODS}/a")).await.json();
    let conditions = going["status"]["conditions"].as_array().unwrap();
    let target = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!(
        (&target["status"], &target["reason"], &target["message"]),
        (&json!("True"), &json!("EvictionByEvictionAPI"), &json!("Eviction API: evicting"))
    );
    let status = server.get(&path).await.json()["status"].clone();
    assert_eq!(status["disruptionsAllowed"], 0);
    assert!(status["disruptedPods"]["a"].is_string());
    assert_eq!(status["conditions"][0]["reason"], "InsufficientPods");
    assert_eq!(evict(&server, "a", json!({})).await.code, 201, "a pod that goes is no loss");
}

#[tokio::test]
async fn an_eviction_over_the_limit_is_refused_and_a_deletion_never_t127() {
    let server = TestServer::start().await;
    pod(&server, "a", "Running", "True").await;
    let shut = json!({"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1});
    budget(&server, "b", shut).await;
    let refused = evict(&server, "a", json!({})).await;
    assert_eq!(refused.code, 429);
    assert_eq!(refused.headers.get("retry-after"), None);
    let status = refused.json();
    assert_eq!(status["reason"], "TooManyRequests");
    assert_eq!(
        status["message"],
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    assert_eq!(
        status["details"]["causes"],
        json!([{"reason": "DisruptionBudget", "message": "The disruption budget b needs 1 healthy pods and has 1 currently"}])
    );
    // A budget that has just been changed is not yet understood.
    server.patch(&format!("{BUDGETS}/b"), "merge", &json!({"spec": {"minAvailable": 0}})).await;
    let later = evict(&server, "a", json!({})).await;
    assert_eq!(later.headers["retry-after"], "10");
    assert_eq!(later.json()["details"]["retryAfterSeconds"], 10);
    assert!(!is_going(&server, "a").await);
    server.delete(&format!("{PODS}/a")).await;
    assert!(is_going(&server, "a").await);
}

#[tokio::test]
async fn pods_that_serve_nobody_go_whatever_the_budget_says() {
    let server = TestServer::start().await;
    budget(&server, "b", json!({"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1})).await;
    for (name, phase, ready) in [
        ("pending", "Pending", "False"),
        ("failed", "Failed", "False"),
        ("sick", "Running", "False"),
    ] {
        pod(&server, name, phase, ready).await;
        let answer = evict(&server, name, json!({})).await;
        assert_eq!(answer.code, 201, "{name}: {}", answer.json());
    }
    let path = format!("{BUDGETS}/b");
    let status = server.get(&path).await.json()["status"].clone();
    assert_eq!(status["disruptedPods"], json!(null), "none of them counts");
    let ill = json!({"status": {"currentHealthy": 0}});
    server.patch(&format!("{path}/status"), "merge", &ill).await;
    pod(&server, "ill", "Running", "False").await;
    assert_eq!(evict(&server, "ill", json!({})).await.code, 429);
    let always = json!({"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}});
    server.patch(&path, "merge", &always).await;
    assert_eq!(evict(&server, "ill", json!({})).await.code, 201);
}

#[tokio::test]
async fn bad_evictions_are_told() {
    let server = TestServer::start().await;
    pod(&server, "a", "Running", "True").await;
    let other = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "b"}});
    let answer = server.post(&format!("{PODS}/a/eviction"), &other).await;
    assert_eq!(
        (answer.code, &answer.json()["message"]),
        (400, &json!("name in URL does not match name in Eviction object"))
    );
    assert_eq!(evict(&server, "none", json!({})).await.code, 404);
    assert_eq!(evict(&server, "a", json!({"preconditions": {"uid": "other"}})).await.code, 409);
    for name in ["b", "c"] {
        budget(&server, name, json!({"disruptionsAllowed": 1})).await;
    }
    let two = evict(&server, "a", json!({})).await;
    assert_eq!(
        (two.code, &two.json()["message"]),
        (
            500,
            &json!(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        )
    );
    assert!(!is_going(&server, "a").await);
}

#[tokio::test]
async fn a_budget_is_validated_and_shown() {
    let server = TestServer::start().await;
    let both = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "maxUnavailable": 1, "selector": {}}});
    let refused = server.post(BUDGETS, &both).await;
    assert_eq!(refused.code, 422);
    assert_eq!(
        refused.json()["message"],
        "PodDisruptionBudget.policy \"b\" is invalid: spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1,\"selector\":{}}: minAvailable and maxUnavailable cannot be both set"
    );
    let made = server
        .post(
            BUDGETS,
            &json!({"metadata": {"name": "b"}, "spec": {"maxUnavailable": "25%", "selector": {}}}),
        )
        .await;
    let made = made.json();
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(
        made["status"],
        json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})
    );
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = server.request("GET", BUDGETS, &accept, "").await.json();
    let names: Vec<_> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, ["Name", "Min Available", "Max Unavailable", "Allowed Disruptions", "Age"]);
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..4],
        [json!("b"), json!("N/A"), json!("25%"), json!(0)]
    );
}
