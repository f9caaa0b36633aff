//! What controllers do to the objects that they control: take, let go of, delete. Each waits until the cache has seen it.

use crate::harness::{Cache, Cached, Change, Key};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

/// A kind of a namespace.
pub(crate) trait Namespaced: Cached + Resource<Scope = NamespaceResourceScope> {}
impl<K: Cached + Resource<Scope = NamespaceResourceScope>> Namespaced for K {}

/// What the API server said.
pub(crate) fn words(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error { status.message.clone() } else { error.to_string() }
}

/// Namespace and name of what changed.
pub(crate) fn key_of<K: Resource<DynamicType = ()>>(change: &Change<K>) -> Option<Key> {
    let object = change.new.as_ref().or(change.old.as_ref())?;
    let metadata = object.meta();
    Some((metadata.namespace.clone()?, metadata.name.clone()?))
}

/// The owners of this kind that control what changed, before or after.
pub(crate) fn controllers_of<K: Resource<DynamicType = ()>>(
    change: &Change<K>,
    kind: &str,
) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    for object in [&change.old, &change.new].into_iter().flatten() {
        let metadata = object.meta();
        let owner = planner::workload::controller(metadata).filter(|owner| owner.kind == kind);
        let namespace = metadata.namespace.clone().unwrap_or_default();
        keys.extend(owner.map(|owner| (namespace, owner.name.clone())));
    }
    keys.dedup();
    keys
}

/// A live look whether an owner is still itself and not about to go: a cache may not know yet.
pub(crate) async fn insist_on<O: Namespaced>(client: &Client, owner: &O) -> Result<(), String> {
    let (namespace, name) = (owner.namespace().unwrap_or_default(), owner.name_any());
    let live = Api::<O>::namespaced(client.clone(), &namespace)
        .get(&name)
        .await
        .map_err(|error| words(&error))?;
    if live.uid() == owner.uid() && live.meta().deletion_timestamp.is_none() {
        return Ok(());
    }
    let (kind, uid) = (O::kind(&()), live.uid().unwrap_or_default());
    Err(format!("original {kind} {namespace}/{name} is gone: got uid {uid}"))
}

/// Takes an orphan for `owner`.
pub(crate) async fn adopt<O: Namespaced, K: Namespaced>(
    client: &Client,
    owner: &O,
    reference: &OwnerReference,
    cache: &Cache<K>,
    (name, uid): (&str, &str),
) -> Result<(), String> {
    insist_on(client, owner).await?;
    let namespace = owner.namespace().unwrap_or_default();
    let change = json!({"metadata": {"uid": uid, "ownerReferences": [reference]}});
    let api = Api::<K>::namespaced(client.clone(), &namespace);
    let adopted = api
        .patch(name, &PatchParams::default(), &Patch::Strategic(change))
        .await
        .map_err(|error| words(&error))?;
    cache.wait_for_write(&adopted).await;
    Ok(())
}

/// Lets go of what `owner` controlled.
pub(crate) async fn release<O: Namespaced, K: Namespaced>(
    client: &Client,
    owner: &O,
    cache: &Cache<K>,
    (name, uid): (&str, &str),
) -> Result<(), String> {
    let own = owner.uid().unwrap_or_default();
    let change =
        json!({"metadata": {"uid": uid, "ownerReferences": [{"$patch": "delete", "uid": own}]}});
    let api = Api::<K>::namespaced(client.clone(), &owner.namespace().unwrap_or_default());
    match api.patch(name, &PatchParams::default(), &Patch::Strategic(change)).await {
        Ok(released) => cache.wait_for_write(&released).await,
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(words(&error)),
    }
    Ok(())
}

/// Deletes exactly this object. Returns whether there was something to delete.
pub(crate) async fn delete<K: Namespaced>(
    client: &Client,
    namespace: &str,
    cache: &Cache<K>,
    (name, uid): (&str, &str),
) -> Result<bool, kube::Error> {
    let only_this = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let how = DeleteParams {
        preconditions: Some(only_this),
        propagation_policy: Some(kube::api::PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    match Api::<K>::namespaced(client.clone(), namespace).delete(name, &how).await {
        Ok(deleted) => {
            let version = deleted.left().and_then(|object| object.resource_version());
            if let Some(version) = version.and_then(|version| version.parse().ok()) {
                cache.wait_until_seen(version).await;
            }
            Ok(true)
        }
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a status that differs from the one before. An object that is gone, or is another by now, needs none.
pub(crate) async fn write_status<K: Namespaced, S: serde::Serialize + PartialEq>(
    client: &Client,
    cache: &Cache<K>,
    object: &K,
    (before, status): (Option<&S>, &S),
) -> Result<(), String> {
    if before == Some(status) {
        return Ok(());
    }
    let mut value = serde_json::to_value(status).unwrap_or_default();
    // What the new status no longer says is taken away.
    let before = serde_json::to_value(before).unwrap_or_default();
    if let (Some(before), Some(now)) = (before.as_object(), value.as_object_mut()) {
        for field in before.keys() {
            now.entry(field.clone()).or_insert(serde_json::Value::Null);
        }
    }
    let change = json!({"metadata": {"uid": object.uid()}, "status": value});
    let api = Api::<K>::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    match api.patch_status(&object.name_any(), &PatchParams::default(), &Patch::Merge(change)).await
    {
        Ok(written) => cache.wait_for_write(&written).await,
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
        Err(error) => return Err(words(&error)),
    }
    Ok(())
}
