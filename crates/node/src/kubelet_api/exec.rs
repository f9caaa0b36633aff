//! `exec` and `attach`, over WebSocket or SPDY.

use super::remote_command::{self, Client, Input, Output};
use super::spdy::{Incoming, Sender, Session, Stream};
use super::{Target, failure, find, is_true, parameters, upgrade, websocket};
use crate::agent::Shared;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use network::PodRef;
use runtime::{ContainerState, ContainerStatus, ExecIo, ExecRequest};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// What a SPDY connection may speak. v4 has the outcome as a Status. (v3 and older say it in words.)
const SPDY_PROTOCOLS: &[&str] = &["v4.channel.k8s.io"];
/// How long a client may take to open its streams. As upstream: DefaultStreamCreationTimeout.
const STREAMS_WAIT: Duration = Duration::from_secs(30);

/// What the client asked for, and which of the streams it will open.
#[derive(Debug, Default)]
struct Wanted {
    request: ExecRequest,
    stdout: bool,
    stderr: bool,
}

impl Wanted {
    fn of(query: Option<&str>) -> Wanted {
        let mut wanted = Wanted::default();
        for (key, value) in parameters(query) {
            match key.as_str() {
                "command" => wanted.request.command.push(value),
                "stdin" | "input" => wanted.request.stdin = is_true(&value),
                "stdout" | "output" => wanted.stdout = is_true(&value),
                "stderr" | "error" => wanted.stderr = is_true(&value),
                "tty" => wanted.request.tty = is_true(&value),
                _ => {}
            }
        }
        wanted
    }

    /// The types of the streams that a SPDY client opens.
    fn streams(&self) -> Vec<&'static str> {
        let all = [
            ("error", true),
            ("stdin", self.request.stdin),
            ("stdout", self.stdout),
            ("stderr", self.stderr && !self.request.tty),
            ("resize", self.request.tty),
        ];
        all.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect()
    }
}

async fn running(shared: &Shared, target: &Target) -> Result<(PodRef, ContainerStatus), Response> {
    let (pod, containers) = find(shared, target).await?;
    let container = containers
        .into_iter()
        .rev()
        .find(|container| matches!(container.state, ContainerState::Running { .. }));
    container.map(|container| (pod, container)).ok_or_else(|| {
        let message = format!(
            "Internal error occurred: unable to upgrade connection: container not found ({:?})",
            target.2
        );
        failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &message)
    })
}

/// Runs a command in a container.
pub(super) async fn exec(
    State(shared): State<Arc<Shared>>,
    Path(target): Path<Target>,
    request: Request,
) -> Response {
    let wanted = Wanted::of(request.uri().query());
    if wanted.request.command.is_empty() {
        return failure(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            "you must specify at least 1 command for the container",
        );
    }
    let (pod, container) = match running(&shared, &target).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let command = wanted.request.clone();
    let start = async move {
        let io = shared.config.runtime.exec(&pod.id, &container.id, command).await;
        io.map_err(|error| error.to_string())
    };
    talk(request, wanted, start).await
}

/// Opens the streams of a container's main process.
pub(super) async fn attach(
    State(shared): State<Arc<Shared>>,
    Path(target): Path<Target>,
    request: Request,
) -> Response {
    let wanted = Wanted::of(request.uri().query());
    let (pod, container) = match running(&shared, &target).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let stdin = wanted.request.stdin;
    let start = async move {
        let io = shared.config.runtime.attach(&pod.id, &container.id, stdin).await;
        io.map_err(|error| error.to_string())
    };
    talk(request, wanted, start).await
}

/// Upgrades the connection as the client asks, and carries what `start` starts.
async fn talk(
    request: Request,
    wanted: Wanted,
    start: impl Future<Output = Result<ExecIo, String>> + Send + 'static,
) -> Response {
    if upgrade::is_spdy(request.headers()) {
        return upgrade::spdy(request, SPDY_PROTOCOLS, async move |session| {
            let mut session = session;
            match streams(&mut session, &wanted).await {
                Ok(streams) => {
                    carry(&mut session, streams, remote_command::converse(start.await)).await;
                }
                Err(missing) => tracing::debug!(?missing, "streams were not opened"),
            }
            session.close();
        });
    }
    match upgrade::websocket(request, websocket::PROTOCOLS).await {
        Ok(upgrade) => upgrade.on_upgrade(async move |socket| {
            websocket::carry(socket, remote_command::converse(start.await)).await;
        }),
        Err(response) => response,
    }
}

/// The streams that the client said it would open, by their type; or those that it did not open in time.
async fn streams(
    session: &mut Session,
    wanted: &Wanted,
) -> Result<BTreeMap<&'static str, Stream>, Vec<&'static str>> {
    let mut missing = wanted.streams();
    let mut opened = BTreeMap::new();
    let until = tokio::time::Instant::now() + STREAMS_WAIT;
    while !missing.is_empty() {
        let Ok(Some(stream)) = tokio::time::timeout_at(until, session.accept()).await else {
            return Err(missing);
        };
        let kind = stream.headers.get("streamtype").map_or("", String::as_str);
        match missing.iter().position(|wanted| *wanted == kind) {
            Some(at) => {
                opened.insert(missing.swap_remove(at), stream);
            }
            None => stream.sender.refuse().await,
        }
    }
    Ok(opened)
}

/// Carries a conversation over a SPDY connection's streams until one side ends it.
async fn carry(session: &mut Session, mut streams: BTreeMap<&'static str, Stream>, client: Client) {
    let Client { input, output } = client;
    let senders: BTreeMap<&'static str, Sender> =
        streams.iter().map(|(kind, stream)| (*kind, stream.sender.clone())).collect();
    // `input` itself stays: the client is there for as long as its connection is, also when its streams have ended.
    let typed = receive(streams.remove("stdin"), input.clone(), Input::Stdin);
    let sized = receive(streams.remove("resize"), input.clone(), Input::Resize);
    let gone = async {
        while let Some(stream) = session.accept().await {
            stream.sender.refuse().await;
        }
    };
    tokio::select! {
        () = send(&senders, output) => {}
        () = async { tokio::join!(typed, sized, gone); } => {}
    }
}

/// Hands on what comes over a stream.
async fn receive(
    stream: Option<Stream>,
    input: mpsc::Sender<Input>,
    wrap: fn(bytes::Bytes) -> Input,
) {
    let Some(mut stream) = stream else { return };
    while let Some(Incoming::Data(bytes)) = stream.incoming.recv().await {
        if input.send(wrap(bytes)).await.is_err() {
            return;
        }
    }
    if matches!(wrap(bytes::Bytes::new()), Input::Stdin(_)) {
        // The process may have ended meanwhile.
        let _ended = input.send(Input::StdinEnd).await;
    }
}

async fn send(senders: &BTreeMap<&'static str, Sender>, mut output: mpsc::Receiver<Output>) {
    while let Some(message) = output.recv().await {
        let (kind, bytes) = match &message {
            Output::Stdout(bytes) => ("stdout", &bytes[..]),
            Output::Stderr(bytes) => ("stderr", &bytes[..]),
            Output::Outcome(status) => ("error", status.as_bytes()),
        };
        if let Some(sender) = senders.get(kind)
            && sender.send(bytes).await.is_err()
        {
            return;
        }
    }
    for sender in senders.values() {
        sender.finish().await;
    }
}
