//! What goes with what.

use crate::cluster::Cluster;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams, PropagationPolicy};
use serde_json::json;
use testkit::eventually;

#[tokio::test(start_paused = true)]
async fn pods_go_with_their_set_and_claims_stay_t42() {
    let cluster = Cluster::start().await;
    cluster.web(2, json!({})).await;
    cluster.until_status("/readyReplicas", json!(2)).await;
    let first = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Foreground),
        ..DeleteParams::default()
    };
    cluster.sets().delete("web", &first).await.unwrap();
    eventually("the set to go", || async {
        cluster.sets().get_opt("web").await.unwrap().is_none().then_some(())
    })
    .await;
    cluster.until(&[]).await;
    let claims: Api<k8s_openapi::api::core::v1::PersistentVolumeClaim> =
        Api::namespaced(cluster.client.clone(), "default");
    assert_eq!(claims.list(&ListParams::default()).await.unwrap().items.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_comes_with_an_account_and_goes_with_all_it_has() {
    let cluster = Cluster::start().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let made: Namespace = serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap();
    namespaces.create(&PostParams::default(), &made).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), "shop");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "shop");
    eventually("the account and the certificate", || async {
        let account = accounts.get_opt("default").await.unwrap()?;
        maps.get_opt("kube-root-ca.crt").await.unwrap().map(|_| account)
    })
    .await;
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    eventually("the namespace to go", || async {
        namespaces.get_opt("shop").await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(maps.list(&ListParams::default()).await.unwrap().items.is_empty());
    let late = maps.create(&PostParams::default(), &ConfigMap::default()).await;
    assert!(late.is_err(), "nothing can be made in it any more");
}
