//! Feeds Services and EndpointSlices to the network: addresses and names.

use crate::agent::Shared;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How long a burst of changes is gathered before the kernel is told.
const GATHER: Duration = Duration::from_millis(5);

type Key = (String, String);

enum Seen {
    Service(Box<Service>, bool),
    Slice(Box<EndpointSlice>, bool),
    Nothing,
}

/// Runs for as long as the node does.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut seen = stream::select(services(&shared), slices(&shared));
    let mut by_service: BTreeMap<Key, BTreeMap<String, EndpointSlice>> = BTreeMap::new();
    let mut dirty: BTreeSet<Key> = BTreeSet::new();
    loop {
        let next = if dirty.is_empty() {
            seen.next().await.map(Some)
        } else {
            tokio::time::timeout(GATHER, seen.next())
                .await
                .map_or(Some(None), |next| next.map(Some))
        };
        match next {
            None => return,
            Some(Some(Seen::Nothing)) => {}
            Some(Some(Seen::Service(service, there))) => {
                let key = (service.namespace().unwrap_or_default(), service.name_any());
                let mut all = shared.services.write().unwrap_or_else(PoisonError::into_inner);
                if there {
                    all.insert(key.clone(), *service)
                } else {
                    all.remove(&key)
                };
                drop(all);
                tell_dns(&shared, &key, &by_service);
                dirty.insert(key);
            }
            Some(Some(Seen::Slice(slice, there))) => {
                let Some(name) = slice.labels().get("kubernetes.io/service-name").cloned() else {
                    continue;
                };
                let key = (slice.namespace().unwrap_or_default(), name);
                let slices = by_service.entry(key.clone()).or_default();
                if there {
                    slices.insert(slice.name_any(), *slice)
                } else {
                    slices.remove(&slice.name_any())
                };
                tell_dns(&shared, &key, &by_service);
                dirty.insert(key);
            }
            Some(None) => {
                let changes = std::mem::take(&mut dirty).into_iter().map(|key| {
                    let (service, slices) = current(&shared, &key, &by_service);
                    (key, service, slices)
                });
                if let Err(error) = shared.config.services.update(changes.collect()).await {
                    tracing::error!(%error, "the addresses of Services could not be updated");
                }
            }
        }
    }
}

fn current(
    shared: &Shared,
    key: &Key,
    slices: &BTreeMap<Key, BTreeMap<String, EndpointSlice>>,
) -> (Option<Service>, Vec<EndpointSlice>) {
    let service = shared.services.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
    (service, slices.get(key).into_iter().flat_map(|slices| slices.values().cloned()).collect())
}

/// Names are true at once.
fn tell_dns(shared: &Shared, key: &Key, slices: &BTreeMap<Key, BTreeMap<String, EndpointSlice>>) {
    let (service, slices) = current(shared, key, slices);
    shared.config.dns.update(key.clone(), service.as_ref(), &slices);
}

fn services(shared: &Shared) -> BoxStream<'static, Seen> {
    let api: Api<Service> = Api::all(shared.config.client.clone());
    watched(api)
        .map(|found| {
            found.map_or(Seen::Nothing, |(service, there)| Seen::Service(Box::new(service), there))
        })
        .boxed()
}

fn slices(shared: &Shared) -> BoxStream<'static, Seen> {
    let api: Api<EndpointSlice> = Api::all(shared.config.client.clone());
    watched(api)
        .map(|found| {
            found.map_or(Seen::Nothing, |(slice, there)| Seen::Slice(Box::new(slice), there))
        })
        .boxed()
}

/// Objects, and whether they are there.
fn watched<K>(api: Api<K>) -> impl futures::Stream<Item = Option<(K, bool)>>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    watcher::watcher(api, watcher::Config::default()).then(|event| async move {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => Some((object, true)),
            Ok(Event::Delete(object)) => Some((object, false)),
            Ok(Event::Init | Event::InitDone) => None,
            Err(error) => {
                tracing::debug!(%error, "a watch of Services broke and is taken up again");
                tokio::time::sleep(Duration::from_millis(200)).await;
                None
            }
        }
    })
}
