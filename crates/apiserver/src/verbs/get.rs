//! GET of one object.

use super::Call;
use api::ApiError;
use axum::body::Body;
use http::Response;

/// Reads one object: stored bytes, as they are.
pub(super) async fn get(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let entry =
        call.server.inner.registry.entry(call.kind, &call.info.namespace, &call.info.name).await?;
    call.show(200, &entry)
}
