//! What is owned goes with its owners.

use crate::harness::{Key, Queue, drive, queue};
use crate::namespace::resource;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use planner::garbage::{FOREGROUND, Fate, fate};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Metadata of everything, by uid, and who depends on whom.
#[derive(Default)]
struct Graph {
    objects: HashMap<String, (&'static api::Kind, ObjectMeta)>,
    /// Owner to dependents.
    dependents: HashMap<String, HashSet<String>>,
    /// Kinds whose first listing is complete.
    synced: usize,
}

#[derive(Clone)]
struct Collector {
    client: Client,
    graph: Arc<RwLock<Graph>>,
    queue: Queue,
}

/// Kinds that neither own nor are owned and change all the time.
fn concerns(kind: &api::Kind) -> bool {
    !["events", "leases"].contains(&kind.names.plural)
}

/// Runs for ever.
pub(crate) async fn run(client: Client) {
    let (queue, keys) = queue();
    let collector = Collector { client, graph: Arc::default(), queue: queue.clone() };
    for kind in api::kinds::KINDS.iter().copied().filter(|kind| concerns(kind)) {
        let collector = collector.clone();
        tokio::spawn(async move { collector.follow(kind).await });
    }
    drive("garbagecollector", queue, keys, move |key| {
        let collector = collector.clone();
        async move { collector.reconcile(&key.1).await }
    })
    .await;
}

impl Collector {
    async fn follow(&self, kind: &'static api::Kind) {
        let api: Api<PartialObjectMeta<DynamicObject>> =
            Api::all_with(self.client.clone(), &resource(kind));
        let mut events = watcher::watcher(api, watcher::Config::default()).boxed();
        let mut listed: HashSet<String> = HashSet::new();
        let mut first = true;
        loop {
            match events.try_next().await {
                Ok(Some(Event::Init)) => listed.clear(),
                Ok(Some(Event::InitApply(object))) => {
                    listed.insert(object.metadata.uid.clone().unwrap_or_default());
                    self.put(kind, object);
                }
                Ok(Some(Event::InitDone)) => {
                    let gone: Vec<String> = self.read(|graph| {
                        graph
                            .objects
                            .iter()
                            .filter(|(uid, (of, _))| {
                                of.definition == kind.definition && !listed.contains(*uid)
                            })
                            .map(|(uid, _)| uid.clone())
                            .collect()
                    });
                    gone.iter().for_each(|uid| self.remove(uid));
                    if std::mem::take(&mut first) {
                        self.graph.write().unwrap_or_else(PoisonError::into_inner).synced += 1;
                    }
                }
                Ok(Some(Event::Apply(object))) => self.put(kind, object),
                Ok(Some(Event::Delete(object))) => {
                    self.remove(&object.metadata.uid.unwrap_or_default())
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "a watch of metadata broke and is taken up again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn read<T>(&self, look: impl FnOnce(&Graph) -> T) -> T {
        look(&self.graph.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn ask(&self, uid: &str) {
        let key: Key = (String::new(), uid.to_owned());
        self.queue.add(key);
    }

    fn put(&self, kind: &'static api::Kind, object: PartialObjectMeta<DynamicObject>) {
        let metadata = object.metadata;
        let uid = metadata.uid.clone().unwrap_or_default();
        let owners: Vec<String> =
            metadata.owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect();
        let concerned = !owners.is_empty() || metadata.deletion_timestamp.is_some();
        let mut graph = self.graph.write().unwrap_or_else(PoisonError::into_inner);
        let before = graph.objects.insert(uid.clone(), (kind, metadata));
        for former in before
            .iter()
            .flat_map(|(_, metadata)| metadata.owner_references.iter().flatten())
            .filter(|owner| !owners.contains(&owner.uid))
        {
            if let Some(dependents) = graph.dependents.get_mut(&former.uid) {
                dependents.remove(&uid);
            }
        }
        for owner in &owners {
            graph.dependents.entry(owner.clone()).or_default().insert(uid.clone());
        }
        // An owner that waits for this one looks again.
        let waiting: Vec<String> = owners
            .iter()
            .filter(|owner| {
                graph
                    .objects
                    .get(*owner)
                    .is_some_and(|(_, metadata)| metadata.deletion_timestamp.is_some())
            })
            .cloned()
            .collect();
        drop(graph);
        waiting.iter().for_each(|owner| self.ask(owner));
        if concerned {
            self.ask(&uid);
        }
    }

    fn remove(&self, uid: &str) {
        let mut graph = self.graph.write().unwrap_or_else(PoisonError::into_inner);
        let gone = graph.objects.remove(uid);
        let owners: Vec<String> = gone
            .iter()
            .flat_map(|(_, metadata)| metadata.owner_references.iter().flatten())
            .map(|owner| owner.uid.clone())
            .collect();
        for owner in &owners {
            if let Some(dependents) = graph.dependents.get_mut(owner) {
                dependents.remove(uid);
            }
        }
        let dependents: Vec<String> =
            graph.dependents.get(uid).into_iter().flatten().cloned().collect();
        drop(graph);
        owners.iter().chain(&dependents).for_each(|uid| self.ask(uid));
    }

    async fn reconcile(&self, uid: &str) -> Result<Option<Duration>, String> {
        let all = api::kinds::KINDS.iter().filter(|kind| concerns(kind)).count();
        if self.read(|graph| graph.synced) < all {
            return Ok(Some(Duration::from_millis(20)));
        }
        let Some((kind, metadata)) = self.read(|graph| graph.objects.get(uid).cloned()) else {
            return Ok(None);
        };
        let dependents: Vec<(&'static api::Kind, ObjectMeta)> = self.read(|graph| {
            graph
                .dependents
                .get(uid)
                .into_iter()
                .flatten()
                .filter_map(|uid| graph.objects.get(uid).cloned())
                .collect()
        });
        let blocks = |metadata: &ObjectMeta| {
            metadata
                .owner_references
                .iter()
                .flatten()
                .any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
        };
        let blocking = dependents.iter().filter(|(_, metadata)| blocks(metadata)).count();
        let exists = |owner: &str| self.read(|graph| graph.objects.contains_key(owner));
        match fate(&metadata, exists, dependents.len(), blocking) {
            Fate::Stays => {}
            Fate::Goes => {
                for owner in metadata.owner_references.iter().flatten() {
                    if self.lives(&metadata, owner).await? {
                        return Ok(None);
                    }
                }
                self.delete(kind, &metadata, PropagationPolicy::Background).await?;
            }
            Fate::WaitsForDependents => {
                for (kind, dependent) in dependents
                    .iter()
                    .filter(|(_, dependent)| dependent.deletion_timestamp.is_none())
                {
                    self.delete(kind, dependent, PropagationPolicy::Foreground).await?;
                }
            }
            Fate::LetsGo => {
                for (kind, dependent) in &dependents {
                    let kept: Vec<&OwnerReference> = dependent
                        .owner_references
                        .iter()
                        .flatten()
                        .filter(|owner| owner.uid != uid)
                        .collect();
                    self.patch(kind, dependent, json!({"ownerReferences": kept})).await?;
                }
                return Ok(Some(Duration::from_millis(20)));
            }
            Fate::Release(finalizer) => {
                if finalizer == FOREGROUND {
                    // Dependents that do not block go by themselves, once the owner is gone.
                    tracing::debug!(uid, "nothing holds an owner up any more");
                }
                let kept: Vec<&String> = metadata
                    .finalizers
                    .iter()
                    .flatten()
                    .filter(|name| *name != finalizer)
                    .collect();
                self.patch(kind, &metadata, json!({"finalizers": kept})).await?;
            }
        }
        Ok(None)
    }

    /// A live look at an owner that the graph does not know.
    async fn lives(&self, dependent: &ObjectMeta, owner: &OwnerReference) -> Result<bool, String> {
        let (group, version) =
            owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let kind = api::kinds::KINDS.iter().find(|kind| {
            kind.names.group == group
                && kind.names.version == version
                && kind.names.kind == owner.kind
        });
        // An owner of a kind that is not served cannot be looked at: what it owns stays.
        let Some(kind) = kind else { return Ok(true) };
        let found = self
            .api(kind, dependent.namespace.as_deref())
            .get_metadata_opt(&owner.name)
            .await
            .map_err(|error| error.to_string())?;
        Ok(found.is_some_and(|found| found.metadata.uid.as_ref() == Some(&owner.uid)))
    }

    fn api(&self, kind: &api::Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        match (kind.scope, namespace) {
            (api::kind::Scope::Namespaced, Some(namespace)) => {
                Api::namespaced_with(self.client.clone(), namespace, &resource(kind))
            }
            (api::kind::Scope::Namespaced, None) | (api::kind::Scope::Cluster, _) => {
                Api::all_with(self.client.clone(), &resource(kind))
            }
        }
    }

    async fn delete(
        &self,
        kind: &api::Kind,
        metadata: &ObjectMeta,
        policy: PropagationPolicy,
    ) -> Result<(), String> {
        let only_this = Preconditions { uid: metadata.uid.clone(), resource_version: None };
        let options = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(only_this),
            ..DeleteParams::default()
        };
        settled(
            self.api(kind, metadata.namespace.as_deref())
                .delete(metadata.name.as_deref().unwrap_or_default(), &options)
                .await
                .map(drop),
        )
    }

    async fn patch(
        &self,
        kind: &api::Kind,
        metadata: &ObjectMeta,
        mut change: serde_json::Value,
    ) -> Result<(), String> {
        change["uid"] = json!(metadata.uid);
        let api = self.api(kind, metadata.namespace.as_deref());
        settled(
            api.patch(
                metadata.name.as_deref().unwrap_or_default(),
                &PatchParams::default(),
                &Patch::Merge(json!({"metadata": change})),
            )
            .await
            .map(drop),
        )
    }
}

/// Somebody else may have been faster, which is what is wanted.
fn settled(result: Result<(), kube::Error>) -> Result<(), String> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other.map_err(|error| error.to_string()),
    }
}
