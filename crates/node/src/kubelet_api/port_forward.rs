//! `port-forward`: connections to a pod's own loopback, each over a pair of SPDY streams (data, and words on what went
//! wrong), or over the channels of a WebSocket (clients in Python, JavaScript and Java).
//!
//! As upstream: k8s.io/kubelet/pkg/cri/streaming/portforward.

use super::spdy::{Incoming, Sender, Session, Stream};
use super::{Target, failure, find, parameters, upgrade, websocket};
use crate::agent::Shared;
use axum::extract::ws::{Message, WebSocket};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::StatusCode;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Inside a SPDY connection.
const SPDY_PROTOCOLS: &[&str] = &["portforward.k8s.io"];
/// Inside a WebSocket: SPDY again, or two channels for each port.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const WEBSOCKET_PROTOCOLS: &[&str] = &[TUNNEL, "v4.channel.k8s.io"];
/// Streams that wait for the other of their pair.
const MAX_HALVES: usize = 64;
const CHUNK: usize = 32 * 1024;

/// Where ports are: a pod's network namespace, or the machine's own.
#[derive(Debug, Clone)]
struct Pod {
    name: String,
    uid: String,
    namespace: Option<PathBuf>,
}

impl Pod {
    /// Connects to a port of the pod's loopback.
    async fn dial(&self, port: u16) -> Result<TcpStream, String> {
        let dialled = match &self.namespace {
            Some(namespace) => network::pods::dial_loopback(namespace, port).await,
            None => TcpStream::connect(("localhost", port)).await,
        };
        dialled.map_err(|error| {
            format!(
                "error forwarding port {port} to pod {}, uid {}: failed to connect to localhost:{port} inside the pod: {error}",
                self.name, self.uid
            )
        })
    }
}

/// Forwards connections for as long as the client's own connection lasts.
pub(super) async fn port_forward(
    State(shared): State<Arc<Shared>>,
    Path((namespace, name)): Path<(String, String)>,
    request: Request,
) -> Response {
    let target: Target = (namespace, name, String::new());
    let reference = match find(&shared, &target).await {
        Ok((reference, _)) => reference,
        Err(response) => return response,
    };
    let pod = match shared.config.runtime.status(&reference.id).await {
        Ok(sandbox) if sandbox.ready => {
            Pod { name: reference.name, uid: reference.id, namespace: sandbox.network_namespace }
        }
        _ => {
            let message = format!("unable to forward port: pod {:?} is not running", target.1);
            return failure(StatusCode::BAD_REQUEST, "BadRequest", &message);
        }
    };
    if upgrade::is_spdy(request.headers()) {
        return upgrade::spdy(request, SPDY_PROTOCOLS, async move |session| {
            serve(session, pod).await;
        });
    }
    let ports = ports(request.uri().query());
    match upgrade::websocket(request, WEBSOCKET_PROTOCOLS).await {
        Ok(upgrade) => upgrade.on_upgrade(async move |socket| {
            if socket.protocol().is_some_and(|protocol| protocol == TUNNEL) {
                serve(Session::serve(upgrade::tunnel(socket)), pod).await;
            } else {
                channels(socket, pod, ports).await;
            }
        }),
        Err(response) => response,
    }
}

/// The two streams of one forwarded connection, as they come.
#[derive(Debug, Default)]
struct Halves {
    data: Option<Stream>,
    error: Option<Stream>,
}

async fn serve(mut session: Session, pod: Pod) {
    let mut halves: HashMap<(u16, String), Halves> = HashMap::new();
    let mut connections = JoinSet::new();
    while let Some(stream) = session.accept().await {
        while connections.try_join_next().is_some() {}
        let header = |name: &str| stream.headers.get(name).cloned().unwrap_or_default();
        let (kind, port) = (header("streamtype"), header("port").parse::<u16>());
        let (Ok(port @ 1..), true) = (port, halves.len() < MAX_HALVES) else {
            stream.sender.refuse().await;
            continue;
        };
        let key = (port, header("requestid"));
        let pair = halves.entry(key.clone()).or_default();
        match kind.as_str() {
            "data" => pair.data = Some(stream),
            "error" => pair.error = Some(stream),
            _ => stream.sender.refuse().await,
        }
        if pair.data.is_some()
            && pair.error.is_some()
            && let Some(Halves { data: Some(data), error: Some(error) }) = halves.remove(&key)
        {
            let pod = pod.clone();
            connections.spawn(async move { connect(&pod, port, data, error).await });
        }
    }
    session.close();
}

/// Carries one connection until the pod's side ends, or the client gives it up.
async fn connect(pod: &Pod, port: u16, data: Stream, error: Stream) {
    let Stream { incoming, sender, .. } = data;
    match pod.dial(port).await {
        Ok(connection) => carry(connection, incoming, &sender).await,
        Err(why) => {
            tracing::debug!(name = pod.name, why, "a port was not forwarded");
            // The client may have gone meanwhile.
            let _gone = error.sender.send(why.as_bytes()).await;
        }
    }
    sender.finish().await;
    error.sender.finish().await;
}

async fn carry(connection: TcpStream, mut incoming: mpsc::Receiver<Incoming>, sender: &Sender) {
    let (mut from_pod, mut to_pod) = connection.into_split();
    let downward = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = from_pod.read(&mut buffer).await {
            if sender.send(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    let upward = async {
        loop {
            match incoming.recv().await {
                Some(Incoming::Data(bytes)) => {
                    if to_pod.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
                Some(Incoming::Reset) => return,
                None => break,
            }
        }
        // The pod may have closed its side already.
        let _closed = to_pod.shutdown().await;
        std::future::pending().await
    };
    tokio::select! {
        () = downward => {}
        () = upward => {}
    }
}

/// The ports that a client without SPDY names.
fn ports(query: Option<&str>) -> Vec<u16> {
    parameters(query)
        .iter()
        .filter(|(key, _)| key == "ports")
        .flat_map(|(_, value)| value.split(','))
        .filter_map(|port| port.parse().ok())
        .filter(|port| *port != 0)
        .collect()
}

/// One connection for each port: channel 2n carries its data, 2n + 1 words on what went wrong; each begins with the port's
/// number in two bytes, the lower first.
async fn channels(socket: WebSocket, pod: Pod, ports: Vec<u16>) {
    let (mut sink, mut source) = socket.split();
    let (outgoing, mut messages) = mpsc::channel::<Vec<u8>>(16);
    let mut inputs = Vec::new();
    let mut connections = JoinSet::new();
    for (port, channel) in ports.into_iter().zip((0u8..=254).step_by(2)) {
        let (input, incoming) = mpsc::channel::<Bytes>(16);
        inputs.push(input);
        let (pod, outgoing) = (pod.clone(), outgoing.clone());
        connections
            .spawn(async move { channel_pair(&pod, port, channel, incoming, outgoing).await });
    }
    drop(outgoing);
    let sending = async {
        while let Some(message) = messages.recv().await {
            if sink.send(Message::Binary(message.into())).await.is_err() {
                return;
            }
        }
        websocket::close(sink).await;
    };
    let receiving = async {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(mut bytes) if !bytes.is_empty() => {
                    let channel = bytes.split_to(1)[0];
                    if let (Some(input), 0) = (inputs.get(usize::from(channel / 2)), channel % 2) {
                        // The pod may have closed its side already.
                        let _closed = input.send(bytes).await;
                    }
                }
                Message::Close(_) => return,
                Message::Binary(_) | Message::Text(_) | Message::Ping(_) | Message::Pong(_) => {}
            }
        }
    };
    tokio::select! {
        () = sending => {}
        () = receiving => {}
    }
}

async fn channel_pair(
    pod: &Pod,
    port: u16,
    channel: u8,
    mut incoming: mpsc::Receiver<Bytes>,
    outgoing: mpsc::Sender<Vec<u8>>,
) {
    let message = |channel: u8, bytes: &[u8]| [&[channel], bytes].concat();
    for channel in [channel, channel + 1] {
        if outgoing.send(message(channel, &port.to_le_bytes())).await.is_err() {
            return;
        }
    }
    let connection = match pod.dial(port).await {
        Ok(connection) => connection,
        Err(why) => {
            // The client may have gone meanwhile.
            let _gone = outgoing.send(message(channel + 1, why.as_bytes())).await;
            return;
        }
    };
    let (mut from_pod, mut to_pod) = connection.into_split();
    let upward = async {
        while let Some(bytes) = incoming.recv().await {
            if to_pod.write_all(&bytes).await.is_err() {
                break;
            }
        }
        std::future::pending().await
    };
    let downward = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = from_pod.read(&mut buffer).await {
            if outgoing.send(message(channel, &buffer[..count])).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = downward => {}
        () = upward => {}
    }
}
