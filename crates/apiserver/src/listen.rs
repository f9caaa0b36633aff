//! Sockets: TLS, HTTP/1.1 and HTTP/2, and who stands behind a client certificate.

use crate::compression::LocalPeer;
use crate::{ApiServer, Identity};
use axum::body::Body;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How many connections are served at once; more wait to be accepted.
const CONNECTIONS: usize = 4096;
/// How long a client may take to prove who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of a request.
const HEADERS: Duration = Duration::from_secs(30);

/// Serves the API on a listener until `closing` fires.
pub async fn listen(
    server: ApiServer,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    closing: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = tokio_util::task::TaskTracker::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let (stream, peer) = tokio::select! {
            () = closing.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                // Out of file descriptors, or a client that left at once: others may come.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::task::yield_now().await;
                    continue;
                }
            },
        };
        let (server, acceptor, closing) = (server.clone(), acceptor.clone(), closing.clone());
        connections.spawn(async move {
            serve_connection(server, acceptor, stream, peer.ip().is_loopback(), closing).await;
            drop(place);
        });
    }
    connections.close();
    // Watches end with `closing`; what does not end soon is cut off with the process.
    let _unfinished = tokio::time::timeout(Duration::from_secs(2), connections.wait()).await;
}

async fn serve_connection(
    server: ApiServer,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    is_local: bool,
    closing: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection waits to fill its packets");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a client's TLS handshake failed"),
        Err(_) => return tracing::debug!("a client did not finish its TLS handshake"),
    };
    let identity = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|certificate| identity_of(certificate))
        .unwrap_or_else(Identity::anonymous);
    let service =
        hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let (server, identity) = (server.clone(), identity.clone());
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(identity);
                if is_local {
                    request.extensions_mut().insert(LocalPeer);
                }
                Ok::<_, Infallible>(server.answer(request).await)
            }
        });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .adaptive_window(true)
        .keep_alive_interval(Duration::from_secs(30));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = &mut connection => if let Err(error) = ended { tracing::debug!(%error, "a connection broke") },
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            if let Err(error) = connection.await { tracing::debug!(%error, "a connection broke") }
        }
    }
}

/// The user is the certificate's common name, the groups its organisations.
fn identity_of(certificate: &[u8]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let user = certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    let mut groups: Vec<String> = certificate
        .subject()
        .iter_organization()
        .filter_map(|name| name.as_str().ok().map(str::to_owned))
        .collect();
    groups.push("system:authenticated".to_owned());
    Some(Identity { user, groups })
}
