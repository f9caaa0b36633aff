//! A namespace that is deleted takes everything in it along.

use crate::harness::{Caches, Change, Key, drive, queue};
use api::kind::Scope;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, ListParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::time::Duration;

/// How long until a namespace that still has something in it is looked at again.
const AGAIN: Duration = Duration::from_millis(200);

/// Runs for ever.
pub(crate) async fn run(client: Client, caches: Caches) {
    let (queue, keys) = queue();
    queue.feed(&caches.namespaces, |change: &Change<Namespace>| {
        change
            .new
            .iter()
            .filter(|namespace| namespace.metadata.deletion_timestamp.is_some())
            .map(|namespace| (String::new(), namespace.name_any()))
            .collect()
    });
    drive("namespace", queue, keys, move |key| {
        let client = client.clone();
        async move { reconcile(&client, &key).await }
    })
    .await;
}

/// The dynamic form of a kind.
pub(crate) fn resource(kind: &api::Kind) -> ApiResource {
    let names = &kind.names;
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(names.group, names.version, names.kind),
        names.plural,
    )
}

async fn reconcile(client: &Client, (_, name): &Key) -> Result<Option<Duration>, String> {
    let text = |error: kube::Error| error.to_string();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let Some(namespace) = namespaces.get_opt(name).await.map_err(text)? else { return Ok(None) };
    if namespace.metadata.deletion_timestamp.is_none() {
        return Ok(None);
    }
    let mut left = 0;
    for kind in api::kinds::KINDS
        .iter()
        .filter(|kind| kind.scope == Scope::Namespaced && kind.verbs.contains(&"deletecollection"))
    {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), name, &resource(kind));
        let found = api.list_metadata(&ListParams::default()).await.map_err(text)?;
        if found.items.is_empty() {
            continue;
        }
        left += found.items.len();
        if found.items.iter().any(|object| object.metadata.deletion_timestamp.is_none()) {
            drop(
                api.delete_collection(&DeleteParams::background(), &ListParams::default())
                    .await
                    .map_err(text)?,
            );
        }
    }
    if left > 0 {
        return Ok(Some(AGAIN));
    }
    let kept: Vec<String> = namespace
        .spec
        .iter()
        .flat_map(|spec| spec.finalizers.iter().flatten())
        .filter(|finalizer| *finalizer != "kubernetes")
        .cloned()
        .collect();
    let mut body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": namespace.metadata.uid}, "spec": {"finalizers": kept}});
    if kept.is_empty() {
        body["spec"] = json!({});
    }
    let request =
        http::Request::put(format!("/api/v1/namespaces/{}/finalize", namespace.name_any()))
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .map_err(|error| error.to_string())?;
    match client.request_text(request).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        other => other.map(|_| None).map_err(text),
    }
}
