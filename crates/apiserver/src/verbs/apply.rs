//! PATCH with a configuration: server-side apply.

use super::create::{in_namespace, make};
use super::patch::insist_on_what_differs;
use super::update::{Ownership, change};
use super::{Call, Part, decode};
use crate::registry::Updated;
use api::patch::apply::apply;
use api::{ApiError, Object};
use axum::body::Body;
use http::Response;
use serde_json::Value;
use store::Entry;

/// How often it is tried again when the object is made or deleted meanwhile.
const TRIES: usize = 8;

/// Applies a configuration to an object or its status; makes the object if there is none.
pub(super) async fn apply_patch(call: &Call<'_>, part: Part) -> Result<Response<Body>, ApiError> {
    let (configuration, mut warnings) = configuration(call)?;
    let (code, entry) = carry_out(call, part, &configuration).await?;
    warnings.extend(call.unhonoured(&entry)?);
    let mut response = call.show(code, &entry)?;
    crate::serve::warn(&mut response, &warnings);
    Ok(response)
}

async fn carry_out(
    call: &Call<'_>,
    part: Part,
    configuration: &Value,
) -> Result<(u16, Entry), ApiError> {
    let registry = &call.server.inner.registry;
    let mut missed = ApiError::internal("the object comes and goes");
    for _ in 0..TRIES {
        let there = registry.entry(call.kind, &call.info.namespace, &call.info.name).await;
        missed = match there {
            Ok(_) => match replace(call, part, configuration).await {
                Err(error) if error.reason == "NotFound" => error,
                other => return other.map(|updated| (200, updated.entry().clone())),
            },
            Err(error) if error.reason == "NotFound" && part == Part::Main => {
                let object = new_object(call, configuration)?;
                let made = make(call.server, call.kind, object, call.dry_run()?, Ownership::Said);
                match made.await {
                    Err(error) if error.reason == "AlreadyExists" => error,
                    other => return other.map(|entry| (201, entry)),
                }
            }
            Err(error) => return Err(error),
        };
    }
    Err(missed)
}

/// Applies a configuration to an object that is there; 404 if there is none.
pub(super) async fn replace(
    call: &Call<'_>,
    part: Part,
    configuration: &Value,
) -> Result<Updated, ApiError> {
    let writer = call.writer();
    let applied = change(call, part, Ownership::Said, |old| {
        let wish = apply(call.kind, Some(old), configuration, &writer, call.forces())?;
        let (mut object, _) = decode(call.kind, wish.into_value(), &[], "")?;
        insist_on_what_differs(&mut object, old);
        let object = in_namespace(call.kind, object, &call.info.namespace)?;
        check_name(call, &object)?;
        Ok(object)
    });
    applied.await
}

fn new_object(call: &Call<'_>, configuration: &Value) -> Result<Object, ApiError> {
    let wish = apply(call.kind, None, configuration, &call.writer(), call.forces())?;
    let (object, _) = decode(call.kind, wish.into_value(), &[], "")?;
    if !object.uid().is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {}, and no existing object was found",
            object.uid()
        );
        let names = &call.kind.names;
        return Err(ApiError::conflict(names.group, names.plural, &call.info.name, &why));
    }
    let object = in_namespace(call.kind, object, &call.info.namespace)?;
    check_name(call, &object)?;
    Ok(object)
}

fn check_name(call: &Call<'_>, object: &Object) -> Result<(), ApiError> {
    let wanted = &call.info.name;
    match object.name() {
        "" => Err(ApiError::bad_request(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        ))),
        name if name != wanted => Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({wanted})"
        ))),
        _ => Ok(()),
    }
}

/// The body, which is YAML or JSON, and warnings about fields that stand twice in it.
pub(super) fn configuration(call: &Call<'_>) -> Result<(Value, Vec<String>), ApiError> {
    let refuse = |why: String| ApiError::bad_request(format!("error decoding patch: {why}"));
    let is_json = call.body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let (value, duplicates) = if is_json
        && serde_json::from_slice::<serde::de::IgnoredAny>(&call.body).is_ok()
    {
        api::decode::parse_json(&call.body)?
    } else {
        let text = std::str::from_utf8(&call.body).map_err(|error| refuse(error.to_string()))?;
        let value = serde_saphyr::from_str::<Value>(text)
            .map_err(|error| refuse(error.without_snippet().to_string()))?;
        (value, Vec::new())
    };
    if !value.is_object() {
        return Err(refuse("expected a map".to_owned()));
    }
    let findings: Vec<String> =
        duplicates.iter().map(|path| format!("duplicate field {path:?}")).collect();
    match call.query.get("fieldValidation") {
        "Strict" if !findings.is_empty() => {
            let why = format!("error strict decoding patch: {}", findings.join(", "));
            Err(ApiError::bad_request(why))
        }
        "Ignore" => Ok((value, Vec::new())),
        _ => Ok((value, findings)),
    }
}
