//! What budgets allow, seen from the API.

use crate::cluster::Cluster;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{EvictParams, ListParams, PostParams};
use kube::{ResourceExt, core::Status};
use serde_json::{Value, json};
use testkit::eventually;

fn budgets(cluster: &Cluster) -> Api<PodDisruptionBudget> {
    Api::namespaced(cluster.client.clone(), "default")
}

async fn make(cluster: &Cluster, spec: Value) {
    let mut budget = json!({"metadata": {"name": "web"}, "spec": spec});
    budget["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
    let budget = serde_json::from_value(budget).unwrap();
    budgets(cluster).create(&PostParams::default(), &budget).await.unwrap();
}

/// Waits until so many pods are expected, have to be healthy, are healthy, may go.
async fn until(cluster: &Cluster, expected: (i32, i32, i32, i32)) {
    eventually(&format!("the budget to say {expected:?}"), || async {
        let status = budgets(cluster).get("web").await.unwrap().status.unwrap_or_default();
        let told = (
            status.expected_pods.unwrap_or(0),
            status.desired_healthy.unwrap_or(0),
            status.current_healthy.unwrap_or(0),
            status.disruptions_allowed.unwrap_or(0),
        );
        (told == expected).then_some(())
    })
    .await;
}

async fn evict(cluster: &Cluster, name: &str) -> Result<(), Box<Status>> {
    match cluster.pods().evict(name, &EvictParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => Err(status),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_may_go_when_the_one_before_is_back_t127() {
    let cluster = Cluster::start().await;
    cluster.web(3, json!({})).await;
    make(&cluster, json!({"maxUnavailable": 1})).await;
    until(&cluster, (3, 2, 3, 1)).await;
    cluster.node.hold("web-0");
    evict(&cluster, "web-0").await.unwrap();
    until(&cluster, (3, 2, 2, 0)).await;
    let refused = evict(&cluster, "web-1").await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (429, "TooManyRequests"));
    assert_eq!(
        refused.message,
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    let cause = &refused.details.unwrap().causes[0];
    assert_eq!(cause.message, "The disruption budget web needs 2 healthy pods and has 2 currently");
    cluster.node.release("web-0").await;
    until(&cluster, (3, 2, 3, 1)).await;
    evict(&cluster, "web-1").await.unwrap();
    until(&cluster, (3, 2, 3, 1)).await;
    // Whoever deletes is not asked.
    for pod in cluster.pods().list(&ListParams::default()).await.unwrap() {
        cluster.node.hold(&pod.name_any());
        cluster.pods().delete(&pod.name_any(), &kube::api::DeleteParams::default()).await.unwrap();
    }
    until(&cluster, (3, 2, 0, 0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_share_follows_the_scale() {
    let cluster = Cluster::start().await;
    make(&cluster, json!({"minAvailable": "50%"})).await;
    until(&cluster, (0, 0, 0, 0)).await;
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "v1"}]}}}});
    let deployment: Deployment = serde_json::from_value(deployment).unwrap();
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), "default");
    deployments.create(&PostParams::default(), &deployment).await.unwrap();
    until(&cluster, (4, 2, 4, 2)).await;
    let scale = kube::api::Patch::Merge(json!({"spec": {"replicas": 2}}));
    deployments.patch("web", &kube::api::PatchParams::default(), &scale).await.unwrap();
    until(&cluster, (2, 1, 2, 1)).await;
}
