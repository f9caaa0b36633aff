//! DELETE: of one object and of a collection.

use super::list::Selection;
use super::{Call, now};
use crate::admission;
use crate::registry::{Updated, parse, prefix, store_error};
use api::kind::{Deletion, Kind};
use api::{ApiError, Object};
use axum::body::Body;
use http::Response;
use serde_json::{Value, json};
use store::Page;

/// What a client is told that deletes a Job and does not say what becomes of its pods. As upstream:
/// `pkg/registry/batch/job/storage/storage.go`.
const ORPHANS: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

/// How a deletion is meant. As upstream: `metav1.DeleteOptions`.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    grace_seconds: Option<i64>,
    uid: Option<String>,
    pub(super) resource_version: Option<String>,
    propagation: Option<String>,
    pub(super) dry_run: bool,
}

impl Options {
    fn of(call: &Call<'_>) -> Result<Options, ApiError> {
        let body = if call.body.is_empty() { json!({}) } else { call.json()?.0 };
        Options::read(&body, call)
    }

    pub(super) fn read(body: &Value, call: &Call<'_>) -> Result<Options, ApiError> {
        let text = |pointer: &str, name: &str| -> Option<String> {
            let given = body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
            given.or_else(|| Some(call.query.get(name).to_owned())).filter(|text| !text.is_empty())
        };
        let grace = match (
            body.pointer("/gracePeriodSeconds").and_then(Value::as_i64),
            call.query.get("gracePeriodSeconds"),
        ) {
            (Some(seconds), _) => Some(seconds),
            (None, "") => None,
            (None, query) => Some(query.parse().map_err(|_| {
                ApiError::bad_request(format!("gracePeriodSeconds: Invalid value: {query:?}"))
            })?),
        };
        let mut propagation = text("/propagationPolicy", "propagationPolicy");
        if propagation.is_none()
            && (body["orphanDependents"] == true || call.query.get("orphanDependents") == "true")
        {
            propagation = Some("Orphan".to_owned());
        }
        if let Some(other) = propagation
            .as_deref()
            .filter(|policy| !["Background", "Foreground", "Orphan"].contains(policy))
        {
            return Err(ApiError::bad_request(format!(
                "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
            )));
        }
        let dry_run = call.dry_run()?
            || body["dryRun"].as_array().is_some_and(|list| list.iter().any(|word| word == "All"));
        Ok(Options {
            grace_seconds: grace.map(|seconds| seconds.max(0)),
            uid: body.pointer("/preconditions/uid").and_then(Value::as_str).map(str::to_owned),
            resource_version: body
                .pointer("/preconditions/resourceVersion")
                .and_then(Value::as_str)
                .map(str::to_owned),
            propagation,
            dry_run,
        })
    }
}

/// Deletes one object.
pub(super) async fn delete(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let options = Options::of(call)?;
    let updated = remove(call, &call.info.namespace, &call.info.name, &options).await?;
    let object = parse(updated.entry())?;
    let still_there = matches!(updated, Updated::Now(_));
    let mut response = if still_there || call.kind.deletion == Deletion::Graceful {
        call.show(200, updated.entry())?
    } else {
        call.show_value(200, &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": object.name(), "group": call.kind.names.group, "kind": call.kind.names.plural, "uid": object.uid()}}))?
    };
    if call.kind.deletion == Deletion::Orphaning && options.propagation.is_none() {
        crate::serve::warn(&mut response, &[ORPHANS.to_owned()]);
    }
    Ok(response)
}

/// Deletes everything that is selected.
pub(super) async fn delete_collection(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let selection = Selection::of(call)?;
    let options = Options::of(call)?;
    let listing = call
        .server
        .inner
        .registry
        .store
        .list(&prefix(call.kind, &call.info.namespace), Page::default())
        .await
        .map_err(store_error)?;
    let mut items = Vec::new();
    for entry in listing.entries.iter().filter(|entry| selection.matches(entry)) {
        let object = parse(entry)?;
        match remove(call, object.namespace(), object.name(), &options).await {
            Ok(updated) => items.push(parse(updated.entry())?.into_value()),
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let names = &call.kind.names;
    call.show_value(200, &json!({"kind": format!("{}List", names.kind), "apiVersion": names.api_version(), "metadata": {"resourceVersion": listing.revision.to_string()}, "items": items}))
}

async fn remove(
    call: &Call<'_>,
    namespace: &str,
    name: &str,
    options: &Options,
) -> Result<Updated, ApiError> {
    remove_with(call, (namespace, name), options, |_| {}).await
}

/// Deletes one object, and says so in it: `mark` changes it in the same write.
pub(super) async fn remove_with(
    call: &Call<'_>,
    (namespace, name): (&str, &str),
    options: &Options,
    mark: impl Fn(&mut Object),
) -> Result<Updated, ApiError> {
    let updated = call
        .server
        .inner
        .registry
        .update(call.kind, namespace, name, options.dry_run, |old| {
            let mut new = dying(call.kind, old, options)?;
            mark(&mut new);
            Ok(new)
        })
        .await?;
    if let Updated::Gone(entry) = &updated {
        admission::released(call.server, call.kind, &parse(entry)?);
    }
    Ok(updated)
}

/// The object as a deletion leaves it; one that nothing holds is then gone.
fn dying(kind: &Kind, old: &Object, options: &Options) -> Result<Object, ApiError> {
    let conflict = |what: &str, given: &str, is: &str| {
        Err(ApiError::conflict(
            kind.names.group,
            kind.names.plural,
            old.name(),
            &format!(
                "Precondition failed: {what} in precondition: {given}, {what} in object meta: {is}"
            ),
        ))
    };
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != old.uid()) {
        return conflict("UID", uid, old.uid());
    }
    if let Some(version) =
        options.resource_version.as_deref().filter(|version| *version != old.resource_version())
    {
        return conflict("ResourceVersion", version, old.resource_version());
    }
    let mut new = old.clone();
    new.remove("/metadata/resourceVersion");
    let grace = grace_seconds(kind, old, options);
    let before = old.int_at("/metadata/deletionGracePeriodSeconds");
    if !old.is_terminating() {
        let at = jiff::Timestamp::from_second(now().as_second().saturating_add(grace))
            .unwrap_or_default();
        new.set("/metadata/deletionTimestamp", json!(at.to_string()));
        new.set("/metadata/deletionGracePeriodSeconds", json!(grace));
        if old.generation() > 0 {
            new.set("/metadata/generation", json!(old.generation() + 1));
        }
        if new.at("/spec/finalizers").is_some() {
            new.set("/status/phase", json!("Terminating"));
        }
        propagate(&mut new, kind, options);
    } else if before.is_none_or(|before| grace < before) && kind.deletion == Deletion::Graceful {
        // A deletion under way can be hurried, never slowed down.
        let at = jiff::Timestamp::from_second(now().as_second().saturating_add(grace))
            .unwrap_or_default();
        new.set("/metadata/deletionTimestamp", json!(at.to_string()));
        new.set("/metadata/deletionGracePeriodSeconds", json!(grace));
    }
    Ok(new)
}

/// What the dependents are to do, as finalizers that the garbage collector acts upon.
fn propagate(object: &mut Object, kind: &Kind, options: &Options) {
    let mut finalizers: Vec<Value> = object.list_at("/metadata/finalizers").to_vec();
    match options.propagation.as_deref() {
        None if kind.deletion == Deletion::Orphaning => finalizers.push(json!("orphan")),
        Some("Orphan") => finalizers.push(json!("orphan")),
        Some("Foreground") => finalizers.push(json!("foregroundDeletion")),
        Some(_) => finalizers.retain(|name| name != "orphan" && name != "foregroundDeletion"),
        None => {}
    }
    finalizers.dedup();
    if !finalizers.is_empty() || object.at("/metadata/finalizers").is_some() {
        object.set("/metadata/finalizers", json!(finalizers));
    }
}

/// How long the object may take to end. Nobody ends what no node runs, or what has already ended.
fn grace_seconds(kind: &Kind, object: &Object, options: &Options) -> i64 {
    if kind.deletion != Deletion::Graceful {
        return 0;
    }
    let ended = ["Succeeded", "Failed"].contains(&object.str_at("/status/phase"));
    if object.str_at("/spec/nodeName").is_empty() || ended {
        return 0;
    }
    options
        .grace_seconds
        .unwrap_or_else(|| object.int_at("/spec/terminationGracePeriodSeconds").unwrap_or(30))
        .max(0)
}
