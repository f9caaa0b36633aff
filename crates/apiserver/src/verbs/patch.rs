//! PATCH.

use super::{Call, Part, decode, unhonoured};
use crate::registry::parse;
use api::ApiError;
use api::patch::{PatchType, apply};
use axum::body::Body;
use http::Response;
use std::sync::{Mutex, PoisonError};

/// Patches an object or its status.
pub(super) async fn patch(call: &Call<'_>, part: Part) -> Result<Response<Body>, ApiError> {
    if call.media_type.starts_with("application/apply-patch") {
        let mut error = ApiError::unsupported_media_type(&api::patch::MEDIA_TYPES);
        error.message.push_str("; server-side apply is not served in this version");
        return Err(error);
    }
    let patch_type = PatchType::of(&call.media_type)?;
    let (patch, _) = call.json()?;
    let warnings = Mutex::new(Vec::new());
    let updated = {
        let change = super::update::change(call, part, |old| {
            let patched = apply(patch_type, call.kind.definition, old.value(), &patch)?;
            let (mut object, found) =
                decode(call.kind, patched, &[], call.query.get("fieldValidation"))?;
            *warnings.lock().unwrap_or_else(PoisonError::into_inner) = found;
            // Only a patch that names a resource version insists on it.
            if patch.pointer("/metadata/resourceVersion").is_none() {
                object.remove("/metadata/resourceVersion");
            }
            Ok(object)
        });
        change.await?
    };
    let mut warnings = warnings.into_inner().unwrap_or_else(PoisonError::into_inner);
    warnings.extend(unhonoured(call.kind, &parse(updated.entry())?));
    let mut response = call.show(200, updated.entry())?;
    crate::serve::warn(&mut response, &warnings);
    Ok(response)
}
