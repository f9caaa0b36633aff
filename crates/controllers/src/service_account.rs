//! The ServiceAccount `default` and the ConfigMap `kube-root-ca.crt` of every namespace.

use crate::harness::{Caches, Change, Key, drive, queue};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::time::Duration;

const ROOT_CA: &str = "kube-root-ca.crt";

/// Runs for ever.
pub(crate) async fn run(client: Client, caches: Caches, ca_certificate: String) {
    let (queue, keys) = queue();
    queue.feed(&caches.namespaces, |change: &Change<Namespace>| {
        change.new.iter().map(|namespace| (String::new(), namespace.name_any())).collect()
    });
    queue.feed(&caches.accounts, |change: &Change<ServiceAccount>| {
        let gone = change
            .old
            .as_ref()
            .filter(|account| change.new.is_none() && account.name_any() == "default");
        gone.and_then(|account| account.namespace())
            .map(|namespace| (String::new(), namespace))
            .into_iter()
            .collect()
    });
    drive("serviceaccount", queue, keys, move |key| {
        let (client, caches, ca) = (client.clone(), caches.clone(), ca_certificate.clone());
        async move { reconcile(&client, &caches, &key, &ca).await }
    })
    .await;
}

async fn reconcile(
    client: &Client,
    caches: &Caches,
    (_, namespace): &Key,
    ca: &str,
) -> Result<Option<Duration>, String> {
    if caches
        .namespaces
        .get("", namespace)
        .is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some())
    {
        return Ok(None);
    }
    let made = |result: Result<(), kube::Error>| match result {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        other => other.map(|()| true).map_err(|error| error.to_string()),
    };
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "default"}}))
        .map_err(|error| error.to_string())?;
    made(
        Api::<ServiceAccount>::namespaced(client.clone(), namespace)
            .create(&PostParams::default(), &account)
            .await
            .map(drop),
    )?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": ROOT_CA}, "data": {"ca.crt": ca}}))
            .map_err(|error| error.to_string())?;
    if !made(maps.create(&PostParams::default(), &map).await.map(drop))? {
        maps.patch(
            ROOT_CA,
            &PatchParams::default(),
            &Patch::Merge(json!({"data": {"ca.crt": ca}})),
        )
        .await
        .map_err(|error| error.to_string())?;
    }
    Ok(None)
}
