//! EndpointSlices and Endpoints of Services with a selector.

use crate::harness::{Caches, Change, Key, LABEL, drive, queue, with_labels};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use planner::endpoints::{CONTROLLER, MANAGED_BY, SERVICE_LABEL, endpoints, selects, slices};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Runs for ever.
pub(crate) async fn run(client: Client, caches: Caches) {
    let (queue, keys) = queue();
    queue.feed(&caches.services, |change: &Change<Service>| {
        change
            .new
            .as_ref()
            .or(change.old.as_ref())
            .map(|service| (service.namespace().unwrap_or_default(), service.name_any()))
            .into_iter()
            .collect()
    });
    queue.feed(&caches.pods, {
        let services = caches.services.clone();
        move |change: &Change<Pod>| {
            let Some(namespace) =
                change.new.as_ref().or(change.old.as_ref()).and_then(|pod| pod.namespace())
            else {
                return Vec::new();
            };
            let mut keys: Vec<Key> = Vec::new();
            for pod in [&change.old, &change.new].into_iter().flatten() {
                let candidates = pod.labels().iter().flat_map(|(key, value)| {
                    services.found(LABEL, &namespace, &format!("{key}={value}"))
                });
                for service in candidates {
                    let key = (namespace.clone(), service.name_any());
                    let selected = selects(&service).is_some_and(|selector| {
                        selector.matches_optional(pod.metadata.labels.as_ref())
                    });
                    if selected && !keys.contains(&key) {
                        keys.push(key);
                    }
                }
            }
            keys
        }
    });
    queue.feed(&caches.slices, |change: &Change<EndpointSlice>| {
        // Only what somebody else took away concerns us.
        let gone = change.old.as_ref().filter(|_| change.new.is_none());
        gone.and_then(|slice| {
            Some((slice.namespace()?, slice.labels().get(SERVICE_LABEL)?.clone()))
        })
        .into_iter()
        .collect()
    });
    tokio::join!(
        caches.services.synced(),
        caches.pods.synced(),
        caches.slices.synced(),
        caches.endpoints.synced()
    );
    drive("endpoints", queue, keys, move |key| {
        let (client, caches) = (client.clone(), caches.clone());
        async move { reconcile(&client, &caches, &key).await }
    })
    .await;
}

async fn reconcile(
    client: &Client,
    caches: &Caches,
    (namespace, name): &Key,
) -> Result<Option<Duration>, String> {
    let Some(service) = caches
        .services
        .get(namespace, name)
        .filter(|service| service.metadata.deletion_timestamp.is_none())
    else {
        return Ok(None);
    };
    let Some(selector) = selects(&service) else { return Ok(None) };
    let pairs = service.spec.iter().flat_map(|spec| spec.selector.iter().flatten());
    let selected: Vec<Arc<Pod>> = with_labels(&caches.pods, namespace, pairs)
        .into_iter()
        .filter(|pod| selector.matches_optional(pod.metadata.labels.as_ref()))
        .collect();
    let pods: Vec<&Pod> = selected.iter().map(|pod| &**pod).collect();
    let wanted = slices(&service, &pods);
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    for slice in &wanted {
        let slice_name = slice.name_any();
        let written = match caches.slices.get(namespace, &slice_name) {
            Some(found) if found.endpoints == slice.endpoints && found.ports == slice.ports && found.metadata.labels == slice.metadata.labels => None,
            Some(_) => Some(api.patch(&slice_name, &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": slice.metadata.labels}, "ports": slice.ports, "endpoints": slice.endpoints}))).await),
            None => Some(api.create(&PostParams::default(), slice).await),
        };
        if let Some(written) = written {
            caches.slices.wait_for_write(&written.map_err(|error| error.to_string())?).await;
        }
    }
    let ours = |slice: &EndpointSlice| {
        slice.labels().get(SERVICE_LABEL) == Some(name)
            && slice.labels().get(MANAGED_BY).is_some_and(|by| by == CONTROLLER)
    };
    for slice in caches.slices.with_prefix(namespace, name).iter().filter(|slice| {
        ours(slice) && wanted.iter().all(|wanted| wanted.name_any() != slice.name_any())
    }) {
        match api.delete(&slice.name_any(), &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => drop(other.map_err(|error| error.to_string())?),
        }
    }
    let older = endpoints(&service, &wanted);
    let api: Api<Endpoints> = Api::namespaced(client.clone(), namespace);
    let written = match caches.endpoints.get(namespace, name) {
        Some(found) if found.subsets == older.subsets => None,
        Some(_) => Some(
            api.patch(
                name,
                &PatchParams::default(),
                &Patch::Merge(json!({"subsets": older.subsets})),
            )
            .await,
        ),
        None => Some(api.create(&PostParams::default(), &older).await),
    };
    if let Some(written) = written {
        caches.endpoints.wait_for_write(&written.map_err(|error| error.to_string())?).await;
    }
    Ok(None)
}
