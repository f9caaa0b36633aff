//! PATCH.

use super::update::Ownership;
use super::{Call, Part, decode};
use crate::field_manager::check_options;
use api::patch::{PatchType, apply};
use api::{ApiError, Object};
use axum::body::Body;
use http::Response;
use std::sync::{Mutex, PoisonError};

/// Patches an object or its status.
pub(super) async fn patch(call: &Call<'_>, part: Part) -> Result<Response<Body>, ApiError> {
    let is_apply = api::patch::is_apply(&call.media_type);
    check_options("PatchOptions", &call.query, is_apply)?;
    if is_apply {
        return super::apply::apply_patch(call, part).await;
    }
    let patch_type = PatchType::of(&call.media_type)?;
    let (patch, _) = call.json()?;
    let warnings = Mutex::new(Vec::new());
    let updated = {
        let change = super::update::change(call, part, Ownership::Compared(call.writer()), |old| {
            let patched = apply(patch_type, call.kind.definition, old.value(), &patch)?;
            let (mut object, found) =
                decode(call.kind, patched, &[], call.query.get("fieldValidation"))?;
            *warnings.lock().unwrap_or_else(PoisonError::into_inner) = found;
            insist_on_what_differs(&mut object, old);
            Ok(object)
        });
        change.await?
    };
    let mut warnings = warnings.into_inner().unwrap_or_else(PoisonError::into_inner);
    warnings.extend(call.unhonoured(updated.entry())?);
    let mut response = call.show(200, updated.entry())?;
    crate::serve::warn(&mut response, &warnings);
    Ok(response)
}

/// Only a patch that names a resource version insists on it: one that is not the stored one is a conflict, the stored
/// one is checked again if somebody else is faster.
pub(super) fn insist_on_what_differs(object: &mut Object, old: &Object) {
    if object.resource_version() == old.resource_version() {
        object.remove("/metadata/resourceVersion");
    }
}
