//! What a StatefulSet does, seen from the API.

use crate::cluster::Cluster;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use kube::{Api, ResourceExt};
use serde_json::json;
use testkit::eventually;

#[tokio::test(start_paused = true)]
async fn each_pod_waits_for_its_predecessor_t1() {
    let cluster = Cluster::start().await;
    cluster.node.hold("web-1");
    cluster.web(3, json!({})).await;
    cluster.until(&["web-0 v1 ready", "web-1 v1 pending"]).await;
    cluster.until_status("/readyReplicas", json!(1)).await;
    cluster.node.release("web-1").await;
    cluster.until(&["web-0 v1 ready", "web-1 v1 ready", "web-2 v1 ready"]).await;
    cluster.until_status("/availableReplicas", json!(3)).await;
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), "default");
    let told = eventually("the events", || async {
        let list = events.list(&ListParams::default()).await.unwrap();
        let told: Vec<String> = list.iter().filter_map(|event| event.message.clone()).collect();
        (told.len() >= 6).then_some(told)
    })
    .await;
    for message in [
        "create Claim data-web-0 Pod web-0 in StatefulSet web success",
        "create Pod web-2 in StatefulSet web successful",
    ] {
        assert!(told.iter().any(|line| line == message), "T80: {message} is not in {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn available_means_ready_for_some_time_t91() {
    let cluster = Cluster::start().await;
    let began = tokio::time::Instant::now();
    cluster.web(3, json!({"spec": {"minReadySeconds": 30}})).await;
    cluster.until_status("/availableReplicas", json!(3)).await;
    let took = began.elapsed().as_secs();
    assert!((90..120).contains(&took), "three times 30 s, one after the other, took {took} s");
}

#[tokio::test(start_paused = true)]
async fn scaling_down_goes_from_the_highest_and_keeps_claims_t30_t38() {
    let cluster = Cluster::start().await;
    cluster.web(3, json!({})).await;
    cluster.until_status("/readyReplicas", json!(3)).await;
    cluster.node.hold("web-2");
    cluster.change(json!({"spec": {"replicas": 0}})).await;
    cluster.until(&["web-0 v1 ready", "web-1 v1 ready", "web-2 v1 dying"]).await;
    cluster.node.release("web-2").await;
    cluster.until(&[]).await;
    cluster.until_status("/replicas", json!(0)).await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client.clone(), "default");
    let before = claims.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(before.len(), 3);
    cluster.change(json!({"spec": {"replicas": 3}})).await;
    cluster.until_status("/readyReplicas", json!(3)).await;
    let uids = |claims: &[PersistentVolumeClaim]| {
        claims.iter().map(|claim| claim.uid().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(uids(&before), uids(&claims.list(&ListParams::default()).await.unwrap().items));
}

#[tokio::test(start_paused = true)]
async fn an_update_waits_at_each_pod_and_keeps_the_partition_t50_t57() {
    let cluster = Cluster::start().await;
    cluster.web(3, json!({"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}})).await;
    cluster.until_status("/readyReplicas", json!(3)).await;
    cluster.node.hold("web-2");
    let image =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "v2"}]}}}});
    cluster.change(image).await;
    cluster.until(&["web-0 v1 ready", "web-1 v1 ready", "web-2 v1 dying"]).await;
    cluster.node.release("web-2").await;
    cluster.until(&["web-0 v1 ready", "web-1 v2 ready", "web-2 v2 ready"]).await;
    cluster.until_status("/updatedReplicas", json!(2)).await;
    let former = cluster.pods().get("web-0").await.unwrap().uid();
    cluster.pods().delete("web-0", &DeleteParams::default()).await.unwrap();
    eventually("another web-0", || async {
        let pod = cluster.pods().get_opt("web-0").await.unwrap()?;
        (pod.uid() != former).then_some(())
    })
    .await;
    cluster.until(&["web-0 v1 ready", "web-1 v2 ready", "web-2 v2 ready"]).await;
    cluster.change(json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})).await;
    cluster.until(&["web-0 v2 ready", "web-1 v2 ready", "web-2 v2 ready"]).await;
    let set = cluster.sets().get("web").await.unwrap();
    let revisions: Api<ControllerRevision> = Api::namespaced(cluster.client.clone(), "default");
    assert_eq!(revisions.list(&ListParams::default()).await.unwrap().items.len(), 2);
    cluster.until_status("/currentRevision", json!(set.status.unwrap().update_revision)).await;
}

#[tokio::test(start_paused = true)]
async fn a_set_deleted_with_its_pods_orphaned_takes_them_back_t103() {
    let cluster = Cluster::start().await;
    cluster.web(2, json!({})).await;
    cluster.until_status("/readyReplicas", json!(2)).await;
    let uids = async || -> Vec<String> {
        cluster
            .pods()
            .list(&ListParams::default())
            .await
            .unwrap()
            .iter()
            .map(|pod: &Pod| pod.uid().unwrap())
            .collect()
    };
    let before = uids().await;
    let orphan = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    cluster.sets().delete("web", &orphan).await.unwrap();
    eventually("the set to go", || async {
        cluster.sets().get_opt("web").await.unwrap().is_none().then_some(())
    })
    .await;
    assert_eq!(uids().await, before);
    cluster.web(2, json!({})).await;
    cluster.until_status("/readyReplicas", json!(2)).await;
    assert_eq!(uids().await, before, "adopted without a restart");
    let revisions: Api<ControllerRevision> = Api::namespaced(cluster.client.clone(), "default");
    let revisions = revisions.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(revisions.len(), 1, "the revision is adopted as well");
    assert_eq!(revisions[0].owner_references().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_label_is_put_back_t19() {
    let cluster = Cluster::start().await;
    cluster.web(1, json!({})).await;
    cluster.until_status("/readyReplicas", json!(1)).await;
    let patch = json!({"metadata": {"labels": {"statefulset.kubernetes.io/pod-name": null}}});
    cluster.pods().patch("web-0", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    eventually("the label", || async {
        let pod = cluster.pods().get("web-0").await.unwrap();
        pod.labels().contains_key("statefulset.kubernetes.io/pod-name").then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn claims_go_with_a_scale_down_where_the_policy_says_so_t35() {
    let cluster = Cluster::start().await;
    cluster.web(2, json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Delete"}}})).await;
    cluster.until_status("/readyReplicas", json!(2)).await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client.clone(), "default");
    cluster.change(json!({"spec": {"replicas": 1}})).await;
    eventually("the claim to go", || async {
        claims.get_opt("data-web-1").await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(claims.get_opt("data-web-0").await.unwrap().is_some());
    cluster.until(&["web-0 v1 ready"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_refused_is_told_and_tried_again_t21_t92() {
    let cluster = Cluster::start().await;
    cluster.web(1, json!({"spec": {"template": {"spec": {"serviceAccountName": "absent"}}}})).await;
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), "default");
    eventually("the event", || async {
        let list = events.list(&ListParams::default()).await.unwrap();
        list.iter()
            .any(|event| {
                event.reason.as_deref() == Some("FailedCreate")
                    && event.message.as_deref().unwrap_or_default().starts_with("create Pod web-0 in StatefulSet web failed error: pods \"web-0\" is forbidden: error looking up service account default/absent")
            })
            .then_some(())
    })
    .await;
    cluster.until_status("/observedGeneration", json!(1)).await;
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
        Api::namespaced(cluster.client.clone(), "default");
    let account = serde_json::from_value(json!({"metadata": {"name": "absent"}})).unwrap();
    accounts.create(&kube::api::PostParams::default(), &account).await.unwrap();
    cluster.until_status("/readyReplicas", json!(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_set_that_is_as_wanted_is_not_written_t92_t95() {
    let cluster = Cluster::start().await;
    cluster.web(1, json!({})).await;
    cluster.until_status("/availableReplicas", json!(1)).await;
    let settled = cluster.sets().get("web").await.unwrap();
    cluster
        .pods()
        .patch(
            "web-0",
            &PatchParams::default(),
            &Patch::Merge(json!({"metadata": {"annotations": {"a": "b"}}})),
        )
        .await
        .unwrap();
    cluster.change(json!({"spec": {"replicas": 0}})).await;
    cluster.until_status("/replicas", json!(0)).await;
    cluster.until_status("/observedGeneration", json!(2)).await;
    let status = serde_json::to_value(cluster.sets().get("web").await.unwrap().status).unwrap();
    for absent in ["readyReplicas", "currentReplicas", "updatedReplicas"] {
        assert!(status.get(absent).is_none(), "T95: {absent} in {status}");
    }
    assert_eq!(
        (&status["replicas"], &status["availableReplicas"], &status["collisionCount"]),
        (&json!(0), &json!(0), &json!(0))
    );
    assert_eq!(settled.status.unwrap().observed_generation, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_status_that_races_with_users_replays_no_pod_t94() {
    let cluster = Cluster::start().await;
    cluster.web(5, json!({"spec": {"podManagementPolicy": "Parallel"}})).await;
    for number in 0..50 {
        cluster.change(json!({"metadata": {"annotations": {"n": number.to_string()}}})).await;
        tokio::task::yield_now().await;
    }
    cluster.until_status("/readyReplicas", json!(5)).await;
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), "default");
    let list = events.list(&ListParams::default()).await.unwrap();
    let made: i32 = list
        .iter()
        .filter(|event| {
            event.message.as_deref().is_some_and(|message| message.starts_with("create Pod"))
        })
        .map(|event| event.count.unwrap_or(1))
        .sum();
    assert!(made <= 5, "each pod is made once, not {made} in all");
}

#[tokio::test(start_paused = true)]
async fn an_edited_policy_rewrites_owners_without_a_restart_t41() {
    let cluster = Cluster::start().await;
    cluster.web(2, json!({})).await;
    cluster.until_status("/readyReplicas", json!(2)).await;
    let before = cluster.pods().get("web-0").await.unwrap().uid();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client.clone(), "default");
    for (policy, owners) in [("Delete", 1), ("Retain", 0)] {
        cluster
            .change(
                json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": policy}}}),
            )
            .await;
        for name in ["data-web-0", "data-web-1"] {
            eventually(&format!("{owners} owners of {name}"), || async {
                let claim = claims.get(name).await.unwrap();
                (claim.owner_references().len() == owners).then_some(())
            })
            .await;
        }
    }
    assert_eq!(cluster.pods().get("web-0").await.unwrap().uid(), before);
}

#[tokio::test(start_paused = true)]
async fn an_orphaned_set_leaves_its_pods_and_claims_t43() {
    let (cluster, claims) = deleted_with_its_claims(Some(PropagationPolicy::Orphan)).await;
    let claim = claims.get("data-web-0").await.unwrap();
    assert!(claim.owner_references().is_empty() && claim.metadata.deletion_timestamp.is_none());
    assert!(cluster.pods().get("web-0").await.unwrap().owner_references().is_empty());
}

#[tokio::test(start_paused = true)]
async fn claims_go_with_their_set_after_its_pods_t43_t78() {
    // T78: without a wish it is the background.
    let (cluster, claims) = deleted_with_its_claims(None).await;
    cluster.until(&[]).await;
    eventually("the claim to go", || async {
        claims.get_opt("data-web-0").await.unwrap().is_none().then_some(())
    })
    .await;
}

/// A cluster whose set, with whenDeleted=Delete, was deleted so.
async fn deleted_with_its_claims(
    policy: Option<PropagationPolicy>,
) -> (Cluster, Api<PersistentVolumeClaim>) {
    let cluster = Cluster::start().await;
    cluster.web(1, json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"}}})).await;
    cluster.until_status("/readyReplicas", json!(1)).await;
    let claims = Api::namespaced(cluster.client.clone(), "default");
    let options = DeleteParams { propagation_policy: policy, ..DeleteParams::default() };
    cluster.sets().delete("web", &options).await.unwrap();
    eventually("the set to go", || async {
        cluster.sets().get_opt("web").await.unwrap().is_none().then_some(())
    })
    .await;
    (cluster, claims)
}
