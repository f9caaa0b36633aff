//! PUT.

use super::{Call, Part, decode};
use crate::admission;
use crate::field_manager::check_options;
use crate::registry::{Updated, modified, parse};
use api::patch::apply::{Writer, keep_times, record};
use api::{ApiError, Kind, Object, metadata};
use axum::body::Body;
use http::Response;
use serde_json::json;

/// Replaces an object, its status, or its finalizers.
pub(super) async fn update(call: &Call<'_>, part: Part) -> Result<Response<Body>, ApiError> {
    check_options("UpdateOptions", &call.query, false)?;
    let (value, duplicates) = call.json()?;
    let (given, mut warnings) =
        decode(call.kind, value, &duplicates, call.query.get("fieldValidation"))?;
    if !given.name().is_empty() && given.name() != call.info.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            given.name(),
            call.info.name
        )));
    }
    if !given.namespace().is_empty() && given.namespace() != call.info.namespace {
        return Err(ApiError::bad_request(format!(
            "the namespace of the object ({}) does not match the namespace on the URL ({})",
            given.namespace(),
            call.info.namespace
        )));
    }
    let updated =
        change(call, part, Ownership::Compared(call.writer()), |_| Ok(given.clone())).await?;
    warnings.extend(call.unhonoured(updated.entry())?);
    let mut response = call.show(200, updated.entry())?;
    crate::serve::warn(&mut response, &warnings);
    Ok(response)
}

/// How a write says who manages what it changes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ownership<'a> {
    /// Who writes manages what differs.
    Compared(Writer<'a>),
    /// The object says it itself.
    Said,
}

/// The one way to change an object: `make` gives the client's wish, given the stored object.
pub(super) async fn change(
    call: &Call<'_>,
    part: Part,
    ownership: Ownership<'_>,
    make: impl Fn(&Object) -> Result<Object, ApiError>,
) -> Result<Updated, ApiError> {
    let (kind, info) = (call.kind, &call.info);
    let registry = &call.server.inner.registry;
    // Admission looks at other objects, which takes time: it runs before, on the object as it was a moment ago, and what
    // it adds is part of the wish.
    let admitted = if part == Part::Main {
        let old = registry.object(kind, &info.namespace, &info.name).await?;
        let wish = make(&old)?;
        let mut new = prepared(kind, part, ownership, wish.clone(), &old);
        admission::update(call.server, kind, &mut new, &old).await?;
        Some((old, wish, new))
    } else {
        None
    };
    let updated = registry
        .update(kind, &info.namespace, &info.name, call.dry_run()?, |old| {
            let (wish, mut new) = match &admitted {
                Some((seen, wish, new)) if seen == old => (wish.clone(), new.clone()),
                _ => {
                    let wish = make(old)?;
                    (wish.clone(), prepared(kind, part, ownership, wish, old))
                }
            };
            check_identity(kind, &wish, old)?;
            validate(kind, part, &new, old)?;
            keep_times(&mut new, old);
            new.set("/metadata/resourceVersion", json!(wish.resource_version()));
            Ok(new)
        })
        .await?;
    if let Updated::Gone(entry) = &updated {
        admission::released(call.server, kind, &parse(entry)?);
    }
    Ok(updated)
}

/// The wish, with everything that is not the client's to say taken from the stored object.
fn prepared(
    kind: &Kind,
    part: Part,
    ownership: Ownership<'_>,
    mut new: Object,
    old: &Object,
) -> Object {
    new.remove("/metadata/selfLink");
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        let pointer = format!("/metadata/{field}");
        match old.at(&pointer) {
            // A deletion cannot be taken back, nor asked for by writing.
            Some(value)
                if new.at(&pointer).is_none()
                    || field.starts_with("deletion")
                    || field == "generation" =>
            {
                new.set(&pointer, value.clone())
            }
            None if field.starts_with("deletion") || field == "generation" => {
                drop(new.remove(&pointer))
            }
            _ => {}
        }
    }
    if part == Part::Main {
        (kind.default)(&mut new);
    }
    if part == Part::Finalize {
        new = with_finalizers_of(old, &new);
    }
    if let Ownership::Compared(writer) = ownership {
        record(kind, Some(old), &mut new, &writer);
    }
    match part {
        Part::Main => (kind.prepare.update)(&mut new, old),
        Part::Status => (kind.prepare.update_status)(&mut new, old),
        Part::Finalize => {}
    }
    new
}

fn with_finalizers_of(old: &Object, new: &Object) -> Object {
    let mut object = old.clone();
    match new.list_at("/spec/finalizers") {
        [] => drop(object.remove("/spec/finalizers")),
        finalizers => object.set("/spec/finalizers", json!(finalizers)),
    }
    object
}

fn check_identity(kind: &Kind, wish: &Object, old: &Object) -> Result<(), ApiError> {
    if !wish.uid().is_empty() && wish.uid() != old.uid() {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            wish.uid(),
            old.uid()
        );
        return Err(ApiError::conflict(kind.names.group, kind.names.plural, old.name(), &why));
    }
    if !wish.resource_version().is_empty() && wish.resource_version() != old.resource_version() {
        return Err(modified(kind, old.name()));
    }
    Ok(())
}

fn validate(kind: &Kind, part: Part, new: &Object, old: &Object) -> Result<(), ApiError> {
    let mut errors = metadata::validate_update(new, old);
    errors.extend(match part {
        Part::Main => (kind.validate.update)(new, old),
        Part::Status => (kind.validate.update_status)(new, old),
        Part::Finalize => Vec::new(),
    });
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(kind.names.group, kind.names.kind, new.name(), &errors))
    }
}
