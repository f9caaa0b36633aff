//! The chain that every request passes, in order, on one page.

use crate::field_manager::FieldManager;
use crate::negotiation::form;
use crate::request_info::{Query, RequestInfo, ResourceRequest};
use crate::verbs::{self, Call};
use crate::{ApiServer, Identity, authz, compression, documents, nodes};
use api::ApiError;
use api::kind::Subresource;
use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderValue, Request, Response};
use std::panic::AssertUnwindSafe;

/// The largest body that is read. As upstream.
pub(crate) const MAX_BODY: usize = 3 * 1024 * 1024;

/// Answers one request.
pub(crate) async fn answer(server: &ApiServer, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let compressed = compression::is_wanted(&request);
    match AssertUnwindSafe(chain(server, request)).catch_unwind().await {
        Ok(Ok(response)) if compressed => compression::compress(response).await,
        Ok(Ok(response)) => response,
        Ok(Err(error)) => failure(&error),
        Err(_) => {
            tracing::error!(path, "a request made the server panic");
            failure(&ApiError::internal(
                "the server has an error in it; the request was not carried out",
            ))
        }
    }
}

async fn chain(server: &ApiServer, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    // 1. Who is it?
    let identity =
        request.extensions().get::<Identity>().cloned().unwrap_or_else(Identity::anonymous);
    // 2. What does it ask for?
    let query = Query::of(request.uri());
    let info = RequestInfo::of(request.method(), request.uri(), &query);
    // 3. May it?
    authz::authorize(&identity, &info, request.method())?;
    match info {
        RequestInfo::Path(path) => {
            documents::answer(server, &path, query.is_true("verbose"), request.headers())
        }
        RequestInfo::Resource(info) => resource(server, &identity, info, query, request).await,
    }
}

async fn resource(
    server: &ApiServer,
    identity: &Identity,
    info: ResourceRequest,
    query: Query,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let kind = server
        .kind(&info.group, &info.version, &info.resource)
        .ok_or_else(ApiError::unknown_path)?;
    let namespaced = kind.scope == api::kind::Scope::Namespaced;
    if !namespaced && !info.namespace.is_empty()
        || namespaced && info.namespace.is_empty() && !info.name.is_empty()
    {
        return Err(ApiError::unknown_path());
    }
    let subresource = match info.subresource.as_str() {
        "" => None,
        name => Some(
            kind.subresources
                .iter()
                .find(|s| api::discovery::subresource_name(s) == name)
                .ok_or_else(ApiError::unknown_path)?,
        ),
    };
    if let Some(
        Subresource::Log | Subresource::Exec | Subresource::Attach | Subresource::PortForward,
    ) = subresource
    {
        return nodes::forward(server, &info, &query, request).await;
    }
    if info.verb.is_empty() || subresource.is_none() && !kind.verbs.contains(&info.verb) {
        return Err(ApiError::method_not_allowed(kind.names.group, kind.names.plural, info.verb));
    }
    let form = form(request.headers(), query.get("includeObject"))?;
    let media_type = request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let manager = FieldManager::of(identity, &query, request.headers());
    let body = body(request.into_body()).await?;
    let call = Call { server, kind, info, query, form, media_type, body, manager };
    // 4. Do it.
    verbs::carry_out(call, subresource).await
}

async fn body(body: Body) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| ApiError::too_large(format!("Request entity too large: limit is {MAX_BODY}")))
}

/// An answer of JSON.
pub(crate) fn json(code: u16, bytes: Bytes) -> Result<Response<Body>, ApiError> {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = http::StatusCode::from_u16(code).map_err(ApiError::internal)?;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn failure(error: &ApiError) -> Response<Body> {
    let bytes = serde_json::to_vec(&error.status()).unwrap_or_default();
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() =
        http::StatusCode::from_u16(error.code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = error.retry_after_seconds() {
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds `Warning` headers. As upstream: RFC 7234 §5.5, code 299.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings.iter().take(50) {
        let text = format!("299 - \"{}\"", warning.replace('\\', "\\\\").replace('"', "\\\""));
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}
