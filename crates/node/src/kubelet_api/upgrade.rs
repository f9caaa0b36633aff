//! The ways in which a client's connection becomes streams: WebSocket, or SPDY/3.1 over the bare connection (clients
//! before 1.31, and clients written in Go), or inside a WebSocket (port-forward since 1.31).

use super::failure;
use super::spdy::Session;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Names the protocol inside a SPDY connection.
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
const TUNNEL_BUFFER: usize = 64 * 1024;

/// Whether the client asks for SPDY over its bare connection.
pub(super) fn is_spdy(headers: &HeaderMap) -> bool {
    let has = |name, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    has(UPGRADE, "SPDY/3.1") && has(CONNECTION, "Upgrade")
}

/// Answers with 101 and hands the connection's session to `serve`, in a task of its own. The protocol is the first of
/// `protocols` that the client offers.
pub(super) fn spdy<F, Done>(
    mut request: Request<Body>,
    protocols: &'static [&'static str],
    serve: F,
) -> Response
where
    F: FnOnce(Session) -> Done + Send + 'static,
    Done: Future<Output = ()> + Send,
{
    let offered: Vec<&str> = request
        .headers()
        .get_all(STREAM_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .collect();
    let Some(protocol) = protocols.iter().find(|protocol| offered.contains(protocol)) else {
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {protocols:?}"
        );
        return failure(StatusCode::FORBIDDEN, "Forbidden", &message);
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => serve(Session::serve(TokioIo::new(connection))).await,
            Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    response
}

/// A WebSocket with one of these subprotocols, the best first.
pub(super) async fn websocket(
    request: Request<Body>,
    protocols: &'static [&'static str],
) -> Result<WebSocketUpgrade, Response> {
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await.map_err(|_| {
        failure(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            "Upgrade request required: this server speaks WebSocket and SPDY/3.1",
        )
    })?;
    Ok(upgrade.protocols(protocols.iter().copied()))
}

/// The bytes that a WebSocket's binary messages carry.
pub(super) fn tunnel(socket: WebSocket) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(TUNNEL_BUFFER);
    tokio::spawn(async move {
        let (mut sink, mut source) = socket.split();
        let (mut from, mut to) = tokio::io::split(theirs);
        let outward = async {
            let mut buffer = vec![0; TUNNEL_BUFFER];
            while let Ok(count @ 1..) = from.read(&mut buffer).await {
                let message = Message::Binary(buffer[..count].to_vec().into());
                if sink.send(message).await.is_err() {
                    return;
                }
            }
            super::websocket::close(sink).await;
        };
        let inward = async {
            while let Some(Ok(message)) = source.next().await {
                let written = match message {
                    Message::Binary(bytes) => to.write_all(&bytes).await.is_ok(),
                    Message::Close(_) => false,
                    Message::Text(_) | Message::Ping(_) | Message::Pong(_) => true,
                };
                if !written {
                    return;
                }
            }
        };
        tokio::select! {
            () = outward => {}
            () = inward => {}
        }
    });
    ours
}
