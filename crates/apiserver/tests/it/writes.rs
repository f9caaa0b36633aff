//! Writes: optimistic locking, finalizers, propagation, dry runs, names.

use crate::{MAPS, SETS, map, set};
use serde_json::json;
use testkit::TestServer;

#[tokio::test]
async fn a_write_of_an_old_state_is_a_conflict() {
    let server = TestServer::start().await;
    let made = server.post(MAPS, &map("a", &json!({}))).await.json();
    let path = format!("{MAPS}/a");
    server.patch(&path, "merge", &json!({"data": {"x": "1"}})).await;
    let stale = server.put(&path, &made).await;
    assert_eq!((stale.code, &stale.json()["reason"]), (409, &"Conflict".into()));
    assert_eq!(
        stale.json()["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    let again = server.post(MAPS, &map("a", &json!({}))).await;
    assert_eq!((again.code, &again.json()["reason"]), (409, &"AlreadyExists".into()));
    assert_eq!(server.put(&format!("{MAPS}/absent"), &map("absent", &json!({}))).await.code, 404);
}

#[tokio::test]
async fn an_object_with_finalizers_goes_when_the_last_is_gone() {
    let server = TestServer::start().await;
    let mut object = map("a", &json!({}));
    object["metadata"]["finalizers"] = json!(["example.com/one"]);
    server.post(MAPS, &object).await;
    let path = format!("{MAPS}/a");
    let deleted = server.delete(&path).await;
    assert_eq!(deleted.code, 200);
    let dying = server.get(&path).await.json();
    assert!(dying["metadata"]["deletionTimestamp"].is_string());
    server.patch(&path, "merge", &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(server.get(&path).await.code, 404);
}

#[tokio::test]
async fn preconditions_and_dry_runs_are_kept() {
    let server = TestServer::start().await;
    let path = format!("{MAPS}/a");
    let dry = server.post(&format!("{MAPS}?dryRun=All"), &map("a", &json!({}))).await;
    assert_eq!((dry.code, server.get(&path).await.code), (201, 404));
    server.post(MAPS, &map("a", &json!({}))).await;
    let other =
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "another"}});
    let refused = server
        .request("DELETE", &path, &[("content-type", "application/json")], other.to_string())
        .await;
    assert_eq!(refused.code, 409);
    server.delete(&format!("{path}?dryRun=All")).await;
    assert_eq!(server.get(&path).await.code, 200);
    assert_eq!(server.post(&format!("{MAPS}?dryRun=Some"), &map("b", &json!({}))).await.code, 400);
}

#[tokio::test]
async fn names_are_generated_and_collections_deleted() {
    let server = TestServer::start().await;
    let mut object = map("", &json!({}));
    object["metadata"] = json!({"generateName": "made-"});
    let (one, two) =
        (server.post(MAPS, &object).await.json(), server.post(MAPS, &object).await.json());
    let (one, two) = (&one["metadata"]["name"], &two["metadata"]["name"]);
    assert!(one != two && one.as_str().unwrap().starts_with("made-"), "{one} {two}");
    server.post(MAPS, &map("other", &json!({}))).await;
    let gone = server.delete(&format!("{MAPS}?fieldSelector=metadata.name!%3Dother")).await;
    assert_eq!(gone.code, 200);
    assert_eq!(server.get(MAPS).await.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_server_decides_is_not_taken_from_a_client_t74() {
    let server = TestServer::start().await;
    let mut object = set("web", 1);
    object["metadata"]["generation"] = json!(77);
    object["metadata"]["uid"] = json!("mine");
    object["status"] = json!({"replicas": 5});
    let made = server.post(SETS, &object).await.json();
    assert_eq!(made["metadata"]["generation"], 1);
    assert_ne!(made["metadata"]["uid"], "mine");
    assert_eq!(made["status"]["replicas"], 0);
    assert_eq!(made["spec"]["revisionHistoryLimit"], 10, "T72");
    assert_eq!(
        made["spec"]["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    );
}

#[tokio::test]
async fn nothing_is_made_in_a_namespace_that_is_not_there() {
    let server = TestServer::start().await;
    let answer = server.post("/api/v1/namespaces/absent/configmaps", &map("a", &json!({}))).await;
    assert_eq!(
        (answer.code, &answer.json()["message"]),
        (404, &"namespaces \"absent\" not found".into())
    );
    let mismatch = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "kube-system"}});
    let answer = server.post(MAPS, &mismatch).await;
    assert_eq!(answer.code, 400);
    assert_eq!(
        answer.json()["message"],
        "the namespace of the provided object does not match the namespace sent on the request"
    );
}

#[tokio::test]
async fn a_set_is_replaced_without_a_version_and_never_made_by_that_t76() {
    let server = TestServer::start().await;
    assert_eq!(server.put(&format!("{SETS}/web"), &set("web", 1)).await.code, 404);
    server.post(SETS, &set("web", 1)).await;
    let replaced = server.put(&format!("{SETS}/web"), &set("web", 4)).await;
    assert_eq!((replaced.code, &replaced.json()["spec"]["replicas"]), (200, &json!(4)));
}

#[tokio::test]
async fn a_set_needs_no_service_t79() {
    let server = TestServer::start().await;
    let mut bare = set("web", 1);
    bare["spec"].as_object_mut().unwrap().remove("serviceName");
    let made = server.post(SETS, &bare).await;
    assert_eq!(made.code, 201, "{}", made.json());
    bare["metadata"]["name"] = json!("empty");
    bare["spec"]["serviceName"] = json!("");
    assert_eq!(server.post(SETS, &bare).await.code, 201);
}
