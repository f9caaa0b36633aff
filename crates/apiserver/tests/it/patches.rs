//! The three patches, and server-side effects of them.

use crate::{MAPS, SETS, map, set};
use serde_json::json;
use testkit::TestServer;

#[tokio::test]
async fn each_kind_of_patch_changes_what_it_names() {
    let server = TestServer::start().await;
    server.post(MAPS, &map("a", &json!({"x": "1", "y": "2"}))).await;
    let path = format!("{MAPS}/a");
    let merged = server.patch(&path, "merge", &json!({"data": {"x": null, "z": "3"}})).await;
    assert_eq!(merged.json()["data"], json!({"y": "2", "z": "3"}));
    let patch = json!([{"op": "test", "path": "/data/y", "value": "2"}, {"op": "replace", "path": "/data/y", "value": "4"}]);
    assert_eq!(server.patch(&path, "json", &patch).await.json()["data"]["y"], "4");
    let failed = server.patch(&path, "json", &patch).await;
    assert_eq!(failed.code, 422, "the test of a JSON patch fails: {}", failed.json());
    assert_eq!(server.get(&path).await.json()["data"]["y"], "4");
}

#[tokio::test]
async fn a_strategic_patch_merges_lists_by_their_keys() {
    let server = TestServer::start().await;
    server.post(SETS, &set("web", 1)).await;
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "nginx"}, {"name": "side", "image": "busybox"}]}}}});
    let patched = server.patch(&format!("{SETS}/web"), "strategic-merge", &patch).await.json();
    let containers = patched["spec"]["template"]["spec"]["containers"].as_array().unwrap().clone();
    let images: Vec<_> =
        containers.iter().map(|c| (c["name"].clone(), c["image"].clone())).collect();
    assert_eq!(images, [(json!("main"), json!("nginx")), (json!("side"), json!("busybox"))]);
    assert_eq!(containers[0]["terminationMessagePath"], "/dev/termination-log");
    let delete = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "$patch": "delete"}]}}}});
    let patched = server.patch(&format!("{SETS}/web"), "strategic-merge", &delete).await.json();
    assert_eq!(patched["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 1);
    assert_eq!(patched["metadata"]["generation"], 3);
}

#[tokio::test]
async fn a_patch_that_changes_nothing_makes_no_revision() {
    let server = TestServer::start().await;
    let made = server.post(SETS, &set("web", 1)).await.json();
    let same = server
        .patch(&format!("{SETS}/web"), "merge", &json!({"spec": {"replicas": 1}}))
        .await
        .json();
    assert_eq!(same["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    assert_eq!(same["metadata"]["generation"], 1);
}

#[tokio::test]
async fn status_and_scale_touch_only_their_part_t74_t77() {
    let server = TestServer::start().await;
    server.post(SETS, &set("web", 1)).await;
    let path = format!("{SETS}/web");
    let status = json!({"spec": {"replicas": 9}, "status": {"replicas": 1, "readyReplicas": 1}});
    let after = server.patch(&format!("{path}/status"), "merge", &status).await.json();
    assert_eq!(
        (&after["spec"]["replicas"], &after["status"]["readyReplicas"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(after["metadata"]["generation"], 1);
    let scale = server.get(&format!("{path}/scale")).await.json();
    assert_eq!(scale["kind"], "Scale");
    assert_eq!(scale["apiVersion"], "autoscaling/v1");
    assert_eq!(scale["status"], json!({"replicas": 1, "selector": "app=web"}));
    let scaled =
        server.patch(&format!("{path}/scale"), "merge", &json!({"spec": {"replicas": 5}})).await;
    assert_eq!(scaled.json()["spec"]["replicas"], 5);
    let set = server.get(&path).await.json();
    assert_eq!((&set["spec"]["replicas"], &set["metadata"]["generation"]), (&json!(5), &json!(2)));
    let negative =
        server.patch(&format!("{path}/scale"), "merge", &json!({"spec": {"replicas": -1}})).await;
    assert_eq!(negative.code, 422);
    let mut stale = scale.clone();
    stale["spec"]["replicas"] = json!(2);
    assert_eq!(server.put(&format!("{path}/scale"), &stale).await.code, 409);
}
