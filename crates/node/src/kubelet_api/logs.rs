//! A container's log: where it is, and its lines in the form that a client asked for.

use super::{Target, failure, find, is_true, parameters};
use crate::agent::Shared;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use network::PodRef;
use runtime::{ContainerState, ContainerStatus};
use std::io::{BufRead, Read, Seek, SeekFrom};
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// How often a followed log is looked at.
const FOLLOW: Duration = Duration::from_millis(50);

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

#[derive(Debug, Default)]
struct LogOptions {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail: Option<usize>,
    limit: Option<usize>,
    since: Option<jiff::Timestamp>,
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

/// Sends a container's log.
pub(super) async fn logs(
    State(shared): State<Arc<Shared>>,
    Path(target): Path<Target>,
    request: Request,
) -> Response {
    let options = LogOptions::of(request.uri().query());
    let (pod, containers) = match find(&shared, &target).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let wanted = if options.previous {
        // A try that has just begun is not in the status yet.
        previous(&shared, &target, &containers).or_else(|| containers.iter().rev().nth(1))
    } else {
        containers.last()
    };
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

/// The try before the one that a container is in: while it waits to be started again that is its last one.
fn previous<'a>(
    shared: &Shared,
    (namespace, name, container): &Target,
    containers: &'a [ContainerStatus],
) -> Option<&'a ContainerStatus> {
    let pods = shared.pods.read().unwrap_or_else(PoisonError::into_inner);
    let status = pods.get(&(namespace.clone(), name.clone()))?.status.as_ref()?;
    let statuses = [&status.container_statuses, &status.init_container_statuses];
    let status =
        statuses.into_iter().flatten().flatten().find(|status| status.name == *container)?;
    let id = status.last_state.as_ref()?.terminated.as_ref()?.container_id.as_deref()?;
    containers.iter().find(|container| id.ends_with(&container.id))
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
