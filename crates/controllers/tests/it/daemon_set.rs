//! What a DaemonSet does, seen from the API.

use crate::cluster::{Cluster, merge};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use testkit::eventually;

fn sets(cluster: &Cluster) -> Api<DaemonSet> {
    Api::namespaced(cluster.client.clone(), "default")
}

fn nodes(cluster: &Cluster) -> Api<Node> {
    Api::all(cluster.client.clone())
}

/// Makes the set `agent`, changed by `change`.
async fn agent(cluster: &Cluster, change: Value) {
    let mut set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"}, "spec": {
        "selector": {"matchLabels": {"app": "agent"}},
        "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "main", "image": "v1"}]}}}});
    merge(&mut set, change);
    let set: DaemonSet = serde_json::from_value(set).unwrap();
    sets(cluster).create(&PostParams::default(), &set).await.unwrap();
}

async fn change(cluster: &Cluster, change: Value) {
    let change = Patch::Strategic(change);
    sets(cluster).patch("agent", &PatchParams::default(), &change).await.unwrap();
}

/// The pods as `node image`, those on their way out with `dying`.
async fn overview(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.pods().list(&ListParams::default()).await.unwrap();
    let shown = |pod: &Pod| {
        let spec = pod.spec.as_ref().unwrap();
        let node = spec.node_name.clone().unwrap_or_default();
        let image = spec.containers[0].image.clone().unwrap();
        let dying = if pod.metadata.deletion_timestamp.is_some() { " dying" } else { "" };
        format!("{node} {image}{dying}")
    };
    let mut all: Vec<String> = pods.iter().map(shown).collect();
    all.sort();
    all
}

async fn until(cluster: &Cluster, expected: &[&str]) {
    eventually(&format!("the pods {expected:?}"), || async {
        (overview(cluster).await == expected).then_some(())
    })
    .await;
}

async fn until_status(cluster: &Cluster, field: &str, expected: i64) {
    eventually(&format!("{field} = {expected}"), || async {
        let set = serde_json::to_value(sets(cluster).get("agent").await.unwrap()).unwrap();
        (set["status"][field].as_i64().unwrap_or(0) == expected).then_some(())
    })
    .await;
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}})
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_follows_its_nodes() {
    let cluster = Cluster::start().await;
    agent(&cluster, json!({})).await;
    until(&cluster, &["fake v1"]).await;
    cluster.node.join("other").await;
    until(&cluster, &["fake v1", "other v1"]).await;
    until_status(&cluster, "numberAvailable", 2).await;
    until_status(&cluster, "desiredNumberScheduled", 2).await;
    let before = cluster.pods().list(&ListParams::default()).await.unwrap().items;
    cluster.pods().delete(&before[0].name_any(), &DeleteParams::default()).await.unwrap();
    eventually("another pod in its place", || async {
        let now = cluster.pods().list(&ListParams::default()).await.unwrap().items;
        let is_new = now.len() == 2 && now.iter().all(|pod| pod.uid() != before[0].uid());
        is_new.then_some(())
    })
    .await;
    nodes(&cluster).delete("other", &DeleteParams::default()).await.unwrap();
    until(&cluster, &["fake v1"]).await;
    until_status(&cluster, "desiredNumberScheduled", 1).await;
    let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}});
    nodes(&cluster).patch("fake", &PatchParams::default(), &Patch::Merge(taint)).await.unwrap();
    until(&cluster, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_cordoned_node_keeps_and_gets_its_pod() {
    let cluster = Cluster::start().await;
    let cordon = json!({"spec": {"unschedulable": true}});
    nodes(&cluster).patch("fake", &PatchParams::default(), &Patch::Merge(cordon)).await.unwrap();
    agent(&cluster, json!({})).await;
    until(&cluster, &["fake v1"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_rolls_node_by_node_and_back() {
    let cluster = Cluster::start().await;
    cluster.node.join("other").await;
    agent(&cluster, json!({})).await;
    until(&cluster, &["fake v1", "other v1"]).await;
    until_status(&cluster, "numberAvailable", 2).await;
    let first = cluster.pods().list(&ListParams::default()).await.unwrap();
    let on_fake = first
        .iter()
        .find(|pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some("fake"))
        .unwrap()
        .name_any();
    cluster.node.hold(&on_fake);
    change(&cluster, image("v2")).await;
    until(&cluster, &["fake v1 dying", "other v1"]).await;
    cluster.node.release(&on_fake).await;
    until(&cluster, &["fake v2", "other v2"]).await;
    until_status(&cluster, "updatedNumberScheduled", 2).await;
    let revisions: Api<ControllerRevision> = Api::namespaced(cluster.client.clone(), "default");
    let list = revisions.list(&ListParams::default()).await.unwrap();
    let old = list.iter().find(|revision| revision.revision == Some(1)).unwrap();
    // As `kubectl rollout undo` does it.
    change(&cluster, old.data.0.clone()).await;
    until(&cluster, &["fake v1", "other v1"]).await;
    eventually("the old revision to be the newest", || async {
        let revision = revisions.get(&old.name_any()).await.unwrap();
        (revision.revision == Some(3)).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_surging_set_is_never_without_a_pod() {
    let cluster = Cluster::start().await;
    agent(&cluster, json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}}})).await;
    until_status(&cluster, "numberAvailable", 1).await;
    let old = cluster.pods().list(&ListParams::default()).await.unwrap().items[0].name_any();
    cluster.node.hold(&old);
    change(&cluster, image("v2")).await;
    until(&cluster, &["fake v1 dying", "fake v2"]).await;
    cluster.node.release(&old).await;
    until(&cluster, &["fake v2"]).await;
}

#[tokio::test(start_paused = true)]
async fn pods_are_adopted_by_the_set_that_comes_back() {
    let cluster = Cluster::start().await;
    agent(&cluster, json!({})).await;
    until_status(&cluster, "numberAvailable", 1).await;
    let uid = cluster.pods().list(&ListParams::default()).await.unwrap().items[0].uid();
    let orphan = DeleteParams {
        propagation_policy: Some(kube::api::PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    sets(&cluster).delete("agent", &orphan).await.unwrap();
    eventually("the set to go", || async {
        sets(&cluster).get_opt("agent").await.unwrap().is_none().then_some(())
    })
    .await;
    agent(&cluster, json!({})).await;
    until_status(&cluster, "updatedNumberScheduled", 1).await;
    let pods = cluster.pods().list(&ListParams::default()).await.unwrap().items;
    assert_eq!((pods.len(), pods[0].uid()), (1, uid), "without a restart");
    sets(&cluster).delete("agent", &DeleteParams::default()).await.unwrap();
    until(&cluster, &[]).await;
}
