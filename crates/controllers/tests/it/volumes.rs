//! Claims and volumes.

use crate::cluster::Cluster;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::Event;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use testkit::eventually;

fn claim(name: &str, storage: &str, class: &str) -> PersistentVolumeClaim {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
        "resources": {"requests": {"storage": storage}}}}))
    .unwrap()
}

fn volume(name: &str, storage: &str, change: Value) -> PersistentVolume {
    let mut object = json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": storage}, "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "", "hostPath": {"path": "/somewhere"}}});
    if let Some(reference) = change.get("claimRef") {
        object["spec"]["claimRef"] = reference.clone();
    }
    serde_json::from_value(object).unwrap()
}

async fn bound_to(cluster: &Cluster, name: &str) -> String {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client.clone(), "default");
    eventually(&format!("claim {name} to be bound"), || async {
        let claim = claims.get_opt(name).await.unwrap()?;
        let phase = claim.status.as_ref().and_then(|status| status.phase.clone());
        (phase.as_deref() == Some("Bound")).then(|| claim.spec.unwrap().volume_name.unwrap())
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_claim_gets_the_smallest_volume_that_is_large_enough_t126() {
    let cluster = Cluster::start().await;
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    for (name, storage) in [("large", "10Gi"), ("fits", "2Gi"), ("small", "1Gi")] {
        volumes.create(&PostParams::default(), &volume(name, storage, json!({}))).await.unwrap();
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client.clone(), "default");
    claims.create(&PostParams::default(), &claim("data", "2Gi", "")).await.unwrap();
    assert_eq!(bound_to(&cluster, "data").await, "fits");
}

#[tokio::test(start_paused = true)]
async fn a_released_volume_is_not_given_to_the_next_claim_t125() {
    let cluster = Cluster::start().await;
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    volumes.create(&PostParams::default(), &volume("only", "1Gi", json!({}))).await.unwrap();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client.clone(), "default");
    claims.create(&PostParams::default(), &claim("data", "1Gi", "")).await.unwrap();
    assert_eq!(bound_to(&cluster, "data").await, "only");
    claims.delete("data", &DeleteParams::default()).await.unwrap();
    eventually("the volume to be Released", || async {
        let volume = volumes.get("only").await.unwrap();
        (volume.status?.phase.as_deref() == Some("Released")).then_some(())
    })
    .await;
    let again = claims.create(&PostParams::default(), &claim("data", "1Gi", "")).await.unwrap();
    volumes.create(&PostParams::default(), &volume("reserved", "1Gi", json!({"claimRef": {"namespace": "default", "name": "data", "kind": "PersistentVolumeClaim", "apiVersion": "v1"}}))).await.unwrap();
    assert_eq!(
        bound_to(&cluster, "data").await,
        "reserved",
        "reserved by name, and {} is new",
        again.uid().unwrap()
    );
}

#[tokio::test(start_paused = true)]
async fn a_claim_waits_for_its_pod_and_its_volume_goes_with_it_t47() {
    let cluster = Cluster::start().await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client.clone(), "default");
    claims.create(&PostParams::default(), &claim("alone", "1Gi", "standard")).await.unwrap();
    cluster.web(1, json!({})).await;
    let name = bound_to(&cluster, "data-web-0").await;
    let alone = claims.get("alone").await.unwrap();
    assert_eq!(alone.status.unwrap().phase.as_deref(), Some("Pending"), "WaitForFirstConsumer");
    cluster.until_status("/readyReplicas", json!(1)).await;
    claims.delete("data-web-0", &DeleteParams::default()).await.unwrap();
    let dying = claims.get("data-web-0").await.unwrap();
    assert!(dying.metadata.deletion_timestamp.is_some(), "T124: in use, it waits");
    cluster.sets().delete("web", &DeleteParams::default()).await.unwrap();
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    eventually("the claim to go", || async {
        claims.get_opt("data-web-0").await.unwrap().is_none().then_some(())
    })
    .await;
    eventually("the volume to be Released", || async {
        let volume = volumes.get(&name).await.unwrap();
        (volume.status?.phase.as_deref() == Some("Released")).then_some(())
    })
    .await;
}

fn claims(cluster: &Cluster) -> Api<PersistentVolumeClaim> {
    Api::namespaced(cluster.client.clone(), "default")
}

/// A claim without class waits for a default class, and gets the first there is.
#[tokio::test(start_paused = true)]
async fn a_default_class_comes_late_and_is_for_earlier_claims_too_t126() {
    let cluster = Cluster::start().await;
    let classes: Api<StorageClass> = Api::all(cluster.client.clone());
    eventually("the class of every cluster", || async {
        classes.get_opt("standard").await.unwrap().map(drop)
    })
    .await;
    classes.delete("standard", &DeleteParams::default()).await.unwrap();
    let mut without = claim("data", "1Gi", "");
    without.spec.as_mut().unwrap().storage_class_name = None;
    let made = claims(&cluster).create(&PostParams::default(), &without).await.unwrap();
    assert_eq!(made.spec.unwrap().storage_class_name, None);
    let late: StorageClass = serde_json::from_value(json!({"metadata": {"name": "late", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "abide.dev/local", "volumeBindingMode": "Immediate"})).unwrap();
    classes.create(&PostParams::default(), &late).await.unwrap();
    let volume = bound_to(&cluster, "data").await;
    assert_eq!(volume, format!("pvc-{}", made.metadata.uid.unwrap()));
    let now = claims(&cluster).get("data").await.unwrap();
    assert_eq!(now.spec.unwrap().storage_class_name.as_deref(), Some("late"));
}

#[tokio::test(start_paused = true)]
async fn a_claim_grows_with_its_volume_and_tells_of_it() {
    let cluster = Cluster::start().await;
    let classes: Api<StorageClass> = Api::all(cluster.client.clone());
    let growing: StorageClass = serde_json::from_value(
        json!({"metadata": {"name": "growing"}, "provisioner": "abide.dev/local",
        "volumeBindingMode": "Immediate", "allowVolumeExpansion": true}),
    )
    .unwrap();
    classes.create(&PostParams::default(), &growing).await.unwrap();
    claims(&cluster)
        .create(&PostParams::default(), &claim("data", "1Gi", "growing"))
        .await
        .unwrap();
    let volume = bound_to(&cluster, "data").await;
    let mut seen = kube::runtime::watcher::watcher(claims(&cluster), Default::default()).boxed();
    // It follows from here on: what comes between is not missed.
    while !matches!(seen.try_next().await.unwrap().unwrap(), Event::InitDone) {}
    let more = json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}});
    claims(&cluster).patch("data", &PatchParams::default(), &Patch::Merge(more)).await.unwrap();
    let (mut resizing, mut done) = (false, false);
    while !done {
        let event = seen.try_next().await.unwrap().unwrap();
        let Event::Apply(claim) = event else { continue };
        let status = claim.status.unwrap();
        let conditions = status.conditions.unwrap_or_default();
        resizing |= conditions.iter().any(|condition| condition.type_ == "Resizing");
        done = status.capacity.unwrap()["storage"].0 == "3Gi" && conditions.is_empty();
    }
    assert!(resizing, "the condition Resizing was seen");
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    let volume = volumes.get(&volume).await.unwrap();
    assert_eq!(volume.spec.unwrap().capacity.unwrap()["storage"].0, "3Gi");
}
