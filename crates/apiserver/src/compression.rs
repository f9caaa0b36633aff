//! Large answers are compressed for whoever accepts it. As upstream:
//! `k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/writers.go`.

use axum::body::Body;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, Request, Response, header};
use http_body::Body as _;
use std::io::Write;

/// Smaller answers are not worth it, in bytes. As upstream.
const THRESHOLD: u64 = 128 * 1024;
/// Quick rather than small.
const LEVEL: u32 = 1;

/// Stands in the extensions of requests from this very machine: there, packing costs more than it saves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalPeer;

/// Whether an answer to this request may be compressed.
pub(crate) fn is_wanted(request: &Request<Body>) -> bool {
    let accepted = request
        .headers()
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|encoding| encoding.split(';').next().unwrap_or_default().trim() == "gzip");
    accepted && request.extensions().get::<LocalPeer>().is_none()
}

/// Compresses an answer whose length is known and large.
pub(crate) async fn compress(response: Response<Body>) -> Response<Body> {
    let length = response.body().size_hint().exact().unwrap_or(0);
    if length < THRESHOLD || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // The body is in memory already; reading it cannot fail.
    let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
        return Response::from_parts(parts, Body::empty());
    };
    let plain = bytes.clone();
    let packed = tokio::task::spawn_blocking(move || {
        let mut encoder =
            GzEncoder::new(Vec::with_capacity(plain.len() / 8), Compression::new(LEVEL));
        encoder.write_all(&plain)?;
        encoder.finish()
    });
    match packed.await {
        Ok(Ok(packed)) => {
            parts.headers.remove(header::CONTENT_LENGTH);
            parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            Response::from_parts(parts, Body::from(packed))
        }
        _ => Response::from_parts(parts, Body::from(bytes)),
    }
}
