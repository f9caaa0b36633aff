//! What the server adds to or refuses in an object beyond what its kind says: rules that look at other objects.

mod addresses;

pub(crate) use addresses::ServiceAddresses;

use crate::ApiServer;
use crate::registry::parse;
use api::kind::{Deletion, Kind, Scope};
use api::{ApiError, Object};
use serde_json::{Value, json};
use store::Page;

/// How long pods stay on a node that is in trouble. As upstream: DefaultTolerationSeconds.
const TOLERATED_SECONDS: i64 = 300;

/// Before a create, defaults applied.
pub(crate) async fn create(
    server: &ApiServer,
    kind: &Kind,
    object: &mut Object,
) -> Result<(), ApiError> {
    if kind.scope == Scope::Namespaced {
        namespace_takes_more(server, kind, object).await?;
    }
    match kind.definition {
        definition if definition == api::kinds::pod::KIND.definition => pod(server, object).await,
        definition if definition == api::kinds::persistent_volume_claim::KIND.definition => {
            claim(server, object).await
        }
        definition if definition == api::kinds::service::KIND.definition => {
            server.inner.addresses.admit(object, None)
        }
        _ => Ok(()),
    }
}

/// Before an update, given the stored object.
pub(crate) async fn update(
    server: &ApiServer,
    kind: &Kind,
    new: &mut Object,
    old: &Object,
) -> Result<(), ApiError> {
    match kind.definition {
        definition if definition == api::kinds::service::KIND.definition => {
            server.inner.addresses.admit(new, Some(old))
        }
        definition if definition == api::kinds::persistent_volume_claim::KIND.definition => {
            resize(server, new, old).await
        }
        _ => Ok(()),
    }
}

/// After an object is gone, or was not made after all.
pub(crate) fn released(server: &ApiServer, kind: &Kind, object: &Object) {
    if kind.definition == api::kinds::service::KIND.definition {
        server.inner.addresses.release(object);
    }
}

async fn namespace_takes_more(
    server: &ApiServer,
    kind: &Kind,
    object: &Object,
) -> Result<(), ApiError> {
    let namespaces = server.kind("", "v1", "namespaces").ok_or_else(ApiError::unknown_path)?;
    let namespace = server.inner.registry.object(namespaces, "", object.namespace()).await?;
    if namespace.is_terminating() {
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            object.namespace()
        );
        let mut error =
            ApiError::forbidden(kind.names.group, kind.names.plural, object.name(), &why);
        if let Some(details) = &mut error.details {
            details["causes"] = json!([{"reason": "NamespaceTerminating", "message": format!("namespace {} is being terminated", object.namespace()), "field": "metadata.namespace"}]);
        }
        return Err(error);
    }
    Ok(())
}

async fn pod(server: &ApiServer, pod: &mut Object) -> Result<(), ApiError> {
    debug_assert!(api::kinds::pod::KIND.deletion == Deletion::Graceful);
    if pod.str_at("/spec/serviceAccountName").is_empty() {
        pod.set("/spec/serviceAccountName", json!("default"));
        pod.set("/spec/serviceAccount", json!("default"));
    }
    let account = pod.str_at("/spec/serviceAccountName").to_owned();
    let accounts = server.kind("", "v1", "serviceaccounts").ok_or_else(ApiError::unknown_path)?;
    if let Err(error) = server.inner.registry.entry(accounts, pod.namespace(), &account).await {
        let why =
            format!("error looking up service account {}/{account}: {error}", pod.namespace());
        return Err(ApiError::forbidden("", "pods", pod.name(), &why));
    }
    let mut tolerations = pod.list_at("/spec/tolerations").to_vec();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = tolerations.iter().any(|t| {
            let named = t["key"] == key || t.get("key").is_none() && t["operator"] == "Exists";
            named && (t["effect"] == "NoExecute" || t.get("effect").is_none())
        });
        if !tolerated {
            tolerations.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATED_SECONDS}));
        }
    }
    pod.set("/spec/tolerations", json!(tolerations));
    if pod.at("/spec/priority").is_none() {
        pod.set("/spec/priority", json!(0));
        pod.set("/spec/preemptionPolicy", json!("PreemptLowerPriority"));
    }
    Ok(())
}

/// A claim that names no class gets the newest default class. As upstream: DefaultStorageClass.
async fn claim(server: &ApiServer, claim: &mut Object) -> Result<(), ApiError> {
    if claim.at("/spec/storageClassName").is_some() {
        return Ok(());
    }
    let mut classes = classes(server).await?;
    classes
        .retain(|class| class.annotation(api::kinds::storage_class::DEFAULT_CLASS) == Some("true"));
    classes.sort_by(|a, b| {
        a.str_at("/metadata/creationTimestamp")
            .cmp(b.str_at("/metadata/creationTimestamp"))
            .then(b.name().cmp(a.name()))
    });
    if let Some(class) = classes.last() {
        claim.set("/spec/storageClassName", json!(class.name()));
    }
    Ok(())
}

async fn classes(server: &ApiServer) -> Result<Vec<Object>, ApiError> {
    let kind =
        server.kind("storage.k8s.io", "v1", "storageclasses").ok_or_else(ApiError::unknown_path)?;
    let listing = server
        .inner
        .registry
        .store
        .list(&crate::registry::prefix(kind, ""), Page::default())
        .await
        .map_err(crate::registry::store_error)?;
    listing.entries.iter().map(parse).collect()
}

/// Only a class that says so lets claims grow. As upstream: PersistentVolumeClaimResize.
async fn resize(server: &ApiServer, new: &Object, old: &Object) -> Result<(), ApiError> {
    const REQUEST: &str = "/spec/resources/requests/storage";
    let amount = |object: &Object| api::quantity::Quantity::parse(object.str_at(REQUEST)).ok();
    if amount(new) <= amount(old) {
        return Ok(());
    }
    let refuse =
        |why: &str| Err(ApiError::forbidden("", "persistentvolumeclaims", new.name(), why));
    if old.str_at("/status/phase") != "Bound" {
        return refuse("Only bound persistent volume claims can be expanded");
    }
    let class = old.str_at("/spec/storageClassName");
    let allowed = classes(server)
        .await?
        .iter()
        .any(|c| c.name() == class && c.at("/allowVolumeExpansion") == Some(&Value::Bool(true)));
    if !allowed {
        return refuse(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        );
    }
    Ok(())
}
