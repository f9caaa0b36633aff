//! The kubelet's HTTP API: logs, exec, attach. The API server hands requests on with their upgrade intact.

use crate::agent::{Agent, Shared};
use axum::Router;
use axum::body::Body;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::StatusCode;
use kube::ResourceExt;
use network::PodRef;
use runtime::{ContainerState, ContainerStatus, ExecIo, ExecRequest};
use serde_json::{Value, json};
use std::io::{BufRead, Read, Seek, SeekFrom};
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// Subprotocols, best first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// How often a followed log is looked at.
const FOLLOW: Duration = Duration::from_millis(50);
/// How much is sent in one message.
const CHUNK: usize = 32 * 1024;

/// The routes of a node's kubelet API.
pub fn router(agent: &Agent) -> Router {
    Router::new()
        .route("/containerLogs/{namespace}/{pod}/{container}", any(logs))
        .route("/exec/{namespace}/{pod}/{container}", any(exec))
        .route("/attach/{namespace}/{pod}/{container}", any(attach))
        .route("/portForward/{namespace}/{pod}", any(port_forward))
        .with_state(agent.shared.clone())
}

type Target = (String, String, String);

fn failure(code: StatusCode, reason: &str, message: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code.as_u16()});
    (code, [(http::header::CONTENT_TYPE, "application/json")], status.to_string()).into_response()
}

/// Where a container's log is.
pub(crate) fn log_path(
    data_dir: &FilePath,
    pod: &PodRef,
    container: &str,
    attempt: u32,
) -> PathBuf {
    log_folder(data_dir, pod).join(container).join(format!("{attempt}.log"))
}

fn log_folder(data_dir: &FilePath, pod: &PodRef) -> PathBuf {
    data_dir.join("logs").join(format!("{}_{}_{}", pod.namespace, pod.name, pod.id))
}

/// Removes the logs of a pod that is gone.
pub(crate) fn remove_logs(data_dir: &FilePath, pod: &PodRef) {
    match std::fs::remove_dir_all(log_folder(data_dir, pod)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(name = pod.name, %error, "the logs of a pod could not be removed")
        }
        _ => {}
    }
}

/// The last lines of a log, without times.
pub(crate) fn last_lines(path: &FilePath, lines: usize, bytes: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let text = all[all.len().saturating_sub(lines)..].join("\n");
    let mut start = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

/// A pod that is here, and its containers.
async fn find(
    shared: &Shared,
    (namespace, name, container): &Target,
) -> Result<(PodRef, Vec<ContainerStatus>), Response> {
    let pod = shared
        .pods
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .get(&(namespace.clone(), name.clone()))
        .cloned();
    let pod = pod.ok_or_else(|| {
        failure(StatusCode::NOT_FOUND, "NotFound", &format!("pods {name:?} not found"))
    })?;
    let reference = PodRef {
        id: pod.uid().unwrap_or_default(),
        namespace: namespace.clone(),
        name: name.clone(),
    };
    let sandbox = shared.config.runtime.status(&reference.id).await.ok();
    let mut containers: Vec<ContainerStatus> = sandbox
        .into_iter()
        .flat_map(|sandbox| sandbox.containers)
        .filter(|status| status.name == *container)
        .collect();
    containers.sort_by_key(|status| status.attempt);
    Ok((reference, containers))
}

#[derive(Debug, Default)]
struct LogOptions {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail: Option<usize>,
    limit: Option<usize>,
    since: Option<jiff::Timestamp>,
}

fn parameters(query: Option<&str>) -> Vec<(String, String)> {
    query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = |index: usize| bytes.get(index).and_then(|byte| (*byte as char).to_digit(16));
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 3;
            }
            (b'+', _, _) => {
                out.push(b' ');
                at += 1;
            }
            (byte, _, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_true(value: &str) -> bool {
    ["true", "1"].contains(&value)
}

impl LogOptions {
    fn of(query: Option<&str>) -> LogOptions {
        let mut options = LogOptions::default();
        for (key, value) in parameters(query) {
            match key.as_str() {
                "follow" => options.follow = is_true(&value),
                "previous" => options.previous = is_true(&value),
                "timestamps" => options.timestamps = is_true(&value),
                "tailLines" => options.tail = value.parse().ok(),
                "limitBytes" => options.limit = value.parse().ok(),
                "sinceSeconds" => {
                    options.since = value.parse::<i64>().ok().and_then(|seconds| {
                        jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() - seconds)
                            .ok()
                    })
                }
                "sinceTime" => options.since = value.parse().ok(),
                _ => {}
            }
        }
        options
    }
}

async fn logs(
    State(shared): State<Arc<Shared>>,
    Path(target): Path<Target>,
    request: Request,
) -> Response {
    let options = LogOptions::of(request.uri().query());
    let (pod, containers) = match find(&shared, &target).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let wanted = if options.previous { containers.iter().rev().nth(1) } else { containers.last() };
    let Some(container) = wanted.cloned() else {
        let (namespace, name, container) = target;
        let message = if options.previous {
            format!("previous terminated container {container:?} in pod {name:?} not found")
        } else {
            format!(
                "container {container:?} in pod {name:?} is waiting to start: ContainerCreating"
            )
        };
        tracing::debug!(namespace, name, message, "no log");
        return failure(StatusCode::BAD_REQUEST, "BadRequest", &message);
    };
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(16);
    tokio::spawn(async move { stream_log(shared, pod, container, options, sender).await });
    let stream = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    });
    ([(http::header::CONTENT_TYPE, "text/plain")], Body::from_stream(stream)).into_response()
}

/// Turns CRI's lines into what was printed.
fn printed(line: &str, options: &LogOptions) -> Option<String> {
    let mut words = line.splitn(4, ' ');
    let (time, _stream, tag, text) =
        (words.next()?, words.next()?, words.next()?, words.next().unwrap_or_default());
    if let Some(since) = options.since
        && time.parse::<jiff::Timestamp>().is_ok_and(|time| time < since)
    {
        return None;
    }
    let end = if tag == "F" { "\n" } else { "" };
    Some(if options.timestamps { format!("{time} {text}{end}") } else { format!("{text}{end}") })
}

async fn stream_log(
    shared: Arc<Shared>,
    pod: PodRef,
    container: ContainerStatus,
    options: LogOptions,
    to: mpsc::Sender<Result<Bytes, std::io::Error>>,
) {
    let older = container.log_path.with_extension("log.1");
    let mut lines: Vec<String> = Vec::new();
    let mut position = 0;
    for path in [&older, &container.log_path] {
        let Ok(file) = std::fs::File::open(path) else { continue };
        let mut reader = std::io::BufReader::new(file);
        let mut line = Vec::new();
        position = 0;
        while let Ok(count @ 1..) = reader.read_until(b'\n', &mut line) {
            if !line.ends_with(b"\n") {
                break; // Half a line: it is read again when it is whole.
            }
            position += count as u64;
            lines.extend(printed(String::from_utf8_lossy(&line).trim_end_matches('\n'), &options));
            line.clear();
        }
    }
    if let Some(tail) = options.tail {
        lines.drain(..lines.len().saturating_sub(tail));
    }
    let mut budget = options.limit.unwrap_or(usize::MAX);
    for line in lines {
        let bytes = Bytes::from(line).split_to_limit(&mut budget);
        if to.send(Ok(bytes)).await.is_err() || budget == 0 {
            return;
        }
    }
    let mut ended = false;
    while options.follow && !ended {
        // Look for the end first: what was written before it is then surely read.
        let status = shared.config.runtime.status(&pod.id).await.ok();
        ended = !status.is_some_and(|sandbox| {
            sandbox.ready
                && sandbox.containers.iter().any(|c| {
                    c.id == container.id && !matches!(c.state, ContainerState::Exited { .. })
                })
        });
        if std::fs::metadata(&container.log_path).is_ok_and(|metadata| metadata.len() < position) {
            position = 0; // The log was rotated.
        }
        let mut fresh = Vec::new();
        if let Ok(mut file) = std::fs::File::open(&container.log_path) {
            let read =
                file.seek(SeekFrom::Start(position)).and_then(|_| file.read_to_end(&mut fresh));
            if read.is_err() {
                return;
            }
        }
        let whole = fresh.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        position += whole as u64;
        let text: String = String::from_utf8_lossy(&fresh[..whole])
            .lines()
            .filter_map(|line| printed(line, &options))
            .collect();
        if !text.is_empty() {
            let bytes = Bytes::from(text).split_to_limit(&mut budget);
            if to.send(Ok(bytes)).await.is_err() || budget == 0 {
                return;
            }
        }
        if !ended {
            tokio::select! {
                () = to.closed() => return,
                () = tokio::time::sleep(FOLLOW) => {}
            }
        }
    }
}

trait Limited {
    fn split_to_limit(self, budget: &mut usize) -> Bytes;
}
impl Limited for Bytes {
    fn split_to_limit(mut self, budget: &mut usize) -> Bytes {
        let part = self.split_to(self.len().min(*budget));
        *budget -= part.len();
        part
    }
}

async fn port_forward() -> Response {
    failure(
        StatusCode::NOT_IMPLEMENTED,
        "NotImplemented",
        "port-forward is not served in this version; use `kubectl exec` or reach the pod's address",
    )
}

fn exec_request(query: Option<&str>) -> ExecRequest {
    let mut request = ExecRequest::default();
    for (key, value) in parameters(query) {
        match key.as_str() {
            "command" => request.command.push(value),
            "stdin" | "input" => request.stdin = is_true(&value),
            "tty" => request.tty = is_true(&value),
            _ => {}
        }
    }
    request
}

async fn upgrade(request: Request) -> Result<WebSocketUpgrade, Response> {
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await.map_err(|_| {
        failure(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            "Upgrade request required: this server speaks WebSocket",
        )
    })?;
    Ok(upgrade.protocols(PROTOCOLS))
}

async fn running(shared: &Shared, target: &Target) -> Result<(PodRef, ContainerStatus), Response> {
    let (pod, containers) = find(shared, target).await?;
    let container = containers
        .into_iter()
        .rev()
        .find(|container| matches!(container.state, ContainerState::Running { .. }));
    container.map(|container| (pod, container)).ok_or_else(|| {
        failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            &format!(
                "Internal error occurred: unable to upgrade connection: container not found ({:?})",
                target.2
            ),
        )
    })
}

async fn exec(
    State(shared): State<Arc<Shared>>,
    Path(target): Path<Target>,
    request: Request,
) -> Response {
    let wanted = exec_request(request.uri().query());
    if wanted.command.is_empty() {
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
    let upgrade = match upgrade(request).await {
        Ok(upgrade) => upgrade,
        Err(response) => return response,
    };
    upgrade.on_upgrade(move |socket| async move {
        let tty = wanted.tty;
        let io = shared.config.runtime.exec(&pod.id, &container.id, wanted).await;
        converse(socket, io.map_err(|error| error.to_string()), tty).await;
    })
}

async fn attach(
    State(shared): State<Arc<Shared>>,
    Path(target): Path<Target>,
    request: Request,
) -> Response {
    let wanted = exec_request(request.uri().query());
    let (pod, container) = match running(&shared, &target).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let upgrade = match upgrade(request).await {
        Ok(upgrade) => upgrade,
        Err(response) => return response,
    };
    upgrade.on_upgrade(move |socket| async move {
        let io = shared.config.runtime.attach(&pod.id, &container.id).await.map(|mut io| {
            if !wanted.stdin {
                io.stdin = None;
            }
            io
        });
        converse(socket, io.map_err(|error| error.to_string()), wanted.tty).await;
    })
}

/// The Status that ends a conversation.
fn outcome(code: Result<i32, String>) -> Value {
    match code {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => {
            json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}})
        }
        Err(why) => {
            json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "message": format!("error executing command in container: {why}"), "code": 500})
        }
    }
}

/// Carries streams over the channels of one WebSocket: 0 input, 1 output, 2 errors, 3 the outcome, 4 the terminal's size.
async fn converse(socket: WebSocket, io: Result<ExecIo, String>, tty: bool) {
    let (mut sink, mut source) = socket.split();
    let io = match io {
        Ok(io) => io,
        Err(why) => {
            let message = [&[3], outcome(Err(why)).to_string().as_bytes()].concat();
            if let Err(error) = sink.send(Message::Binary(message.into())).await {
                tracing::debug!(%error, "an outcome could not be sent");
            }
            return close(sink).await;
        }
    };
    let ExecIo { mut stdin, stdout, stderr, resize, exit } = io;
    let (messages, mut outgoing) = mpsc::channel::<Vec<u8>>(16);
    let out = tokio::spawn(pump(stdout, 1, messages.clone()));
    let err = stderr.filter(|_| !tty).map(|stderr| tokio::spawn(pump(stderr, 2, messages.clone())));
    drop(messages);
    let sending = async {
        while let Some(message) = outgoing.recv().await {
            if sink.send(Message::Binary(message.into())).await.is_err() {
                return None;
            }
        }
        Some(sink)
    };
    let receiving = async {
        while let Some(Ok(message)) = source.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Close(_) => return,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) => continue,
            };
            match bytes.split_first() {
                Some((0, input)) => {
                    let written = match &mut stdin {
                        Some(stdin) => {
                            stdin.write_all(input).await.is_ok() && stdin.flush().await.is_ok()
                        }
                        None => true,
                    };
                    if !written {
                        stdin = None;
                    }
                }
                // v5: the client closes a stream.
                Some((255, [0, ..])) => stdin = None,
                Some((4, size)) => {
                    let size: Value = serde_json::from_slice(size).unwrap_or_default();
                    let number = |key: &str| {
                        size[key].as_u64().and_then(|number| u16::try_from(number).ok())
                    };
                    if let (Some(resize), Some(columns), Some(rows)) =
                        (&resize, number("Width"), number("Height"))
                    {
                        // The process may have ended meanwhile.
                        let _ended = resize.send((columns, rows)).await;
                    }
                }
                _ => {}
            }
        }
    };
    let finished = async {
        let (sink, code) = tokio::join!(sending, exit);
        (sink, code)
    };
    tokio::pin!(finished);
    let (sink, code) = tokio::select! {
        done = &mut finished => done,
        // The client has gone: dropping the streams ends the process.
        () = receiving => {
            out.abort();
            if let Some(err) = err {
                err.abort();
            }
            return;
        }
    };
    if let Some(mut sink) = sink {
        let message =
            [&[3], outcome(code.map_err(|error| error.to_string())).to_string().as_bytes()]
                .concat();
        if let Err(error) = sink.send(Message::Binary(message.into())).await {
            tracing::debug!(%error, "an outcome could not be sent");
        }
        close(sink).await;
    }
}

async fn close(mut sink: futures::stream::SplitSink<WebSocket, Message>) {
    // The other side may have closed first.
    let normal = CloseFrame { code: axum::extract::ws::close_code::NORMAL, reason: "".into() };
    let _closed = sink.send(Message::Close(Some(normal))).await;
}

async fn pump(mut from: Box<dyn AsyncRead + Send + Unpin>, channel: u8, to: mpsc::Sender<Vec<u8>>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let mut message = Vec::with_capacity(count + 1);
        message.push(channel);
        message.extend_from_slice(&buffer[..count]);
        if to.send(message).await.is_err() {
            return;
        }
    }
}
