//! What Deployments and ReplicaSets do, seen from the API.

use crate::cluster::Cluster;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use testkit::eventually;

fn deployments(cluster: &Cluster) -> Api<Deployment> {
    Api::namespaced(cluster.client.clone(), "default")
}

async fn make(cluster: &Cluster, replicas: i32, strategy: Value) {
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": replicas, "strategy": strategy, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "v1"}]}}}});
    let deployment = serde_json::from_value(deployment).unwrap();
    deployments(cluster).create(&PostParams::default(), &deployment).await.unwrap();
}

async fn change(cluster: &Cluster, change: Value) {
    let patch = Patch::Strategic(change);
    deployments(cluster).patch("web", &PatchParams::default(), &patch).await.unwrap();
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}})
}

/// The pods that are not about to go, as `image state`, sorted.
async fn pods(cluster: &Cluster) -> Vec<String> {
    let overview = cluster.overview().await;
    let mut pods: Vec<String> = overview
        .iter()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, rest)| !rest.ends_with("dying"))
        .map(|(_, rest)| rest.to_owned())
        .collect();
    pods.sort();
    pods
}

async fn until(cluster: &Cluster, expected: &[&str]) {
    eventually(&format!("the pods {expected:?}"), || async {
        (pods(cluster).await == expected).then_some(())
    })
    .await;
}

async fn until_reason(cluster: &Cluster, kind: &str, reason: &str) {
    eventually(&format!("{kind} because of {reason}"), || async {
        let status = deployments(cluster).get("web").await.unwrap().status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        conditions
            .iter()
            .any(|condition| {
                condition.type_.as_deref() == Some(kind)
                    && condition.reason.as_deref() == Some(reason)
            })
            .then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_deployment_rolls_out_and_back() {
    let cluster = Cluster::start().await;
    make(&cluster, 3, json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})).await;
    until(&cluster, &["v1 ready", "v1 ready", "v1 ready"]).await;
    until_reason(&cluster, "Progressing", "NewReplicaSetAvailable").await;
    change(&cluster, image("v2")).await;
    until(&cluster, &["v2 ready", "v2 ready", "v2 ready"]).await;
    change(&cluster, image("v1")).await;
    until(&cluster, &["v1 ready", "v1 ready", "v1 ready"]).await;
    let sets: Api<ReplicaSet> = Api::namespaced(cluster.client.clone(), "default");
    assert_eq!(sets.list(&ListParams::default()).await.unwrap().items.len(), 2);
    until_reason(&cluster, "Available", "MinimumReplicasAvailable").await;
}

#[tokio::test(start_paused = true)]
async fn an_update_that_does_not_come_up_is_told_after_its_deadline() {
    let cluster = Cluster::start().await;
    make(&cluster, 2, json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})).await;
    until(&cluster, &["v1 ready", "v1 ready"]).await;
    let unschedulable = json!({"spec": {"progressDeadlineSeconds": 60, "template": {"spec": {"nodeSelector": {"no": "where"}}}}});
    change(&cluster, unschedulable).await;
    until_reason(&cluster, "Progressing", "ProgressDeadlineExceeded").await;
    until(&cluster, &["v1 pending", "v1 ready", "v1 ready"]).await;
}

#[tokio::test(start_paused = true)]
async fn recreate_ends_the_old_pods_before_it_makes_new_ones() {
    let cluster = Cluster::start().await;
    make(&cluster, 2, json!({"type": "Recreate"})).await;
    until(&cluster, &["v1 ready", "v1 ready"]).await;
    let old: Vec<String> = cluster
        .pods()
        .list(&ListParams::default())
        .await
        .unwrap()
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    cluster.node.hold(&old[0]);
    change(&cluster, image("v2")).await;
    eventually("one old pod to be gone", || async {
        (cluster.overview().await.len() == 1).then_some(())
    })
    .await;
    assert_eq!(pods(&cluster).await, [""; 0]);
    cluster.node.release(&old[0]).await;
    until(&cluster, &["v2 ready", "v2 ready"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_pod_is_replaced_and_an_orphan_taken() {
    let cluster = Cluster::start().await;
    make(&cluster, 2, json!({})).await;
    until(&cluster, &["v1 ready", "v1 ready"]).await;
    let all = cluster.pods().list(&ListParams::default()).await.unwrap();
    cluster.pods().delete(&all.items[0].name_any(), &DeleteParams::default()).await.unwrap();
    eventually("two ready pods, one of them new", || async {
        let now = cluster.pods().list(&ListParams::default()).await.unwrap();
        let gone = now.iter().all(|pod| pod.uid() != all.items[0].uid());
        (gone && pods(&cluster).await == ["v1 ready", "v1 ready"]).then_some(())
    })
    .await;
    // A bare pod with the labels of the set's is one too many: the set takes it and has two, not three.
    let labels = all.items[1].labels().clone();
    let bare = json!({"metadata": {"name": "bare", "labels": labels}, "spec": {"containers": [{"name": "main", "image": "v1"}]}});
    let bare: Pod = serde_json::from_value(bare).unwrap();
    cluster.pods().create(&PostParams::default(), &bare).await.unwrap();
    eventually("the bare pod to be taken or gone", || async {
        let bare = cluster.pods().get_opt("bare").await.unwrap();
        bare.is_none_or(|pod| !pod.owner_references().is_empty()).then_some(())
    })
    .await;
    until(&cluster, &["v1 ready", "v1 ready"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_deployment_takes_everything_with_it() {
    let cluster = Cluster::start().await;
    make(&cluster, 2, json!({})).await;
    until(&cluster, &["v1 ready", "v1 ready"]).await;
    deployments(&cluster).delete("web", &DeleteParams::default()).await.unwrap();
    until(&cluster, &[]).await;
    let sets: Api<ReplicaSet> = Api::namespaced(cluster.client.clone(), "default");
    eventually("no set to be left", || async {
        sets.list(&ListParams::default()).await.unwrap().items.is_empty().then_some(())
    })
    .await;
}
