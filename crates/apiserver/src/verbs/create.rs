//! POST: new objects, and a pod's binding to a node.

use super::update::Ownership;
use super::{Call, decode, timestamp};
use crate::field_manager::check_options;
use crate::registry::{Updated, encode};
use crate::{ApiServer, admission};
use api::kind::Scope;
use api::patch::apply::record;
use api::{ApiError, Kind, Object, metadata};
use axum::body::Body;
use http::Response;
use serde_json::{Value, json};
use store::Entry;

/// How often another name is made when a generated one is taken.
const NAME_TRIES: usize = 8;

/// Makes an object.
pub(super) async fn create(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    if !call.info.name.is_empty() {
        return Err(ApiError::method_not_allowed(
            call.kind.names.group,
            call.kind.names.plural,
            "create",
        ));
    }
    check_options("CreateOptions", &call.query, false)?;
    let (value, duplicates) = call.json()?;
    let (object, mut warnings) =
        decode(call.kind, value, &duplicates, call.query.get("fieldValidation"))?;
    let object = in_namespace(call.kind, object, &call.info.namespace)?;
    let entry =
        make(call.server, call.kind, object, call.dry_run()?, Ownership::Compared(call.writer()))
            .await?;
    warnings.extend(call.unhonoured(&entry)?);
    let mut response = call.show(201, &entry)?;
    crate::serve::warn(&mut response, &warnings);
    Ok(response)
}

/// Makes an object of our own.
pub(crate) async fn create_value(
    server: &ApiServer,
    kind: &'static Kind,
    namespace: &str,
    value: Value,
) -> Result<Entry, ApiError> {
    let (object, _) = decode(kind, value, &[], "Strict")?;
    make(server, kind, in_namespace(kind, object, namespace)?, false, Ownership::Said).await
}

pub(super) fn in_namespace(
    kind: &Kind,
    mut object: Object,
    namespace: &str,
) -> Result<Object, ApiError> {
    if kind.scope == Scope::Cluster {
        object.remove("/metadata/namespace");
        return Ok(object);
    }
    if namespace.is_empty() {
        return Err(ApiError::bad_request("an empty namespace may not be set during creation"));
    }
    if object.namespace().is_empty() {
        object.set("/metadata/namespace", json!(namespace));
    }
    if object.namespace() != namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(object)
}

/// Makes an object. Who manages it is what the object says, or follows from who makes it.
pub(super) async fn make(
    server: &ApiServer,
    kind: &'static Kind,
    mut object: Object,
    dry_run: bool,
    ownership: Ownership<'_>,
) -> Result<Entry, ApiError> {
    for field in [
        "resourceVersion",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "generation",
    ] {
        object.remove(&format!("/metadata/{field}"));
    }
    object.set("/metadata/uid", json!(uuid::Uuid::new_v4().to_string()));
    object.set("/metadata/creationTimestamp", timestamp());
    (kind.default)(&mut object);
    if let Ownership::Compared(writer) = ownership {
        record(kind, None, &mut object, &writer);
    }
    let generated = object.name().is_empty();
    for attempt in 1.. {
        let mut object = object.clone();
        let base = object.str_at("/metadata/generateName").to_owned();
        if generated && !base.is_empty() {
            object.set("/metadata/name", json!(metadata::generate_name(&base, rand::random())));
        }
        (kind.prepare.create)(&mut object);
        // Defaults that follow from the name, and those that a later version of the kind adds to what prepare left.
        (kind.default)(&mut object);
        admission::create(server, kind, &mut object).await?;
        let mut errors = metadata::validate_create(&object, kind.validate.name);
        errors.extend((kind.validate.create)(&object));
        if !errors.is_empty() {
            admission::released(server, kind, &object);
            return Err(ApiError::invalid(
                kind.names.group,
                kind.names.kind,
                object.name(),
                &errors,
            ));
        }
        if dry_run {
            let key = crate::registry::key(kind, object.namespace(), object.name());
            admission::released(server, kind, &object);
            let store::Written { bytes, index, .. } = encode(kind, "ADDED", object)(0);
            return Ok(Entry { key: key.into(), bytes, revision: 0, index });
        }
        match server.inner.registry.create(kind, object.clone()).await {
            Ok(entry) => return Ok(entry),
            Err(error) => {
                admission::released(server, kind, &object);
                if !(error.reason == "AlreadyExists" && generated && attempt < NAME_TRIES) {
                    return Err(error);
                }
            }
        }
    }
    Err(ApiError::internal("no free name could be made"))
}

/// Binds a pod to a node.
pub(super) async fn bind(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let (binding, _) = call.json()?;
    let node = binding.pointer("/target/name").and_then(Value::as_str).unwrap_or_default();
    if node.is_empty() {
        return Err(ApiError::invalid(
            "",
            "Binding",
            &call.info.name,
            &[api::FieldError::required(&api::FieldPath::new("target").child("name"), "")],
        ));
    }
    let now = timestamp();
    let updated = call
        .server
        .inner
        .registry
        .update(call.kind, &call.info.namespace, &call.info.name, call.dry_run()?, |pod| {
            let refuse = |why: &str| Err(ApiError::conflict("", "pods/binding", pod.name(), why));
            if pod.is_terminating() {
                return refuse(&format!("pod {} is being deleted, cannot be assigned to a host", pod.name()));
            }
            if !pod.str_at("/spec/nodeName").is_empty() {
                return refuse(&format!("pod {} is already assigned to node {:?}", pod.name(), pod.str_at("/spec/nodeName")));
            }
            let mut pod = pod.clone();
            pod.remove("/metadata/resourceVersion");
            pod.set("/spec/nodeName", json!(node));
            let mut conditions: Vec<Value> = pod.list_at("/status/conditions").iter().filter(|c| c["type"] != "PodScheduled").cloned().collect();
            conditions.push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
            pod.set("/status/conditions", json!(conditions));
            Ok(pod)
        })
        .await?;
    debug_assert!(matches!(updated, Updated::Now(_)), "a living pod was bound");
    call.show_value(201, &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}))
}
