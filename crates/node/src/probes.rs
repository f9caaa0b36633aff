//! Probes: exec, HTTP and TCP, from the node.

use crate::agent::Shared;
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use runtime::ExecRequest;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// How much of an answer is read.
const MAX_ANSWER: u64 = 10 * 1024;

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Startup,
    Readiness,
    Liveness,
}

/// What a probe found.
#[derive(Debug, Clone)]
pub(crate) enum Finding {
    /// A threshold was passed: the probe's word has changed (or is its first).
    Now(bool),
    /// It failed, and why; for an event.
    Failed(String),
}

/// What is told to the worker.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) container_id: String,
    pub(crate) which: Which,
    pub(crate) finding: Finding,
}

/// Where the probed container is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) sandbox: String,
    pub(crate) container_id: String,
    pub(crate) ip: Ipv4Addr,
}

/// Probes until it is aborted (with the container's end).
pub(crate) async fn run(
    shared: Arc<Shared>,
    which: Which,
    probe: Probe,
    container: Container,
    place: Place,
    reports: mpsc::Sender<Report>,
) {
    let seconds = |value: Option<i32>, default: u64| {
        value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default)
    };
    let (period, timeout) = (
        Duration::from_secs(seconds(probe.period_seconds, 10).max(1)),
        Duration::from_secs(seconds(probe.timeout_seconds, 1).max(1)),
    );
    let (to_succeed, to_fail) =
        (seconds(probe.success_threshold, 1).max(1), seconds(probe.failure_threshold, 3).max(1));
    tokio::time::sleep(Duration::from_secs(seconds(probe.initial_delay_seconds, 0))).await;
    let (mut successes, mut failures, mut word) = (0, 0, None);
    // A container that has just started is asked more often than its period says until it first answers well, so that
    // it is Ready when it is, and not up to a period later. Failures are counted by the period alone.
    let mut early = Duration::from_millis(20);
    let mut since_counted = period;
    loop {
        let outcome =
            match tokio::time::timeout(timeout, once(&shared, &probe, &container, &place)).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    Err(format!("command timed out: probe took longer than {}s", timeout.as_secs()))
                }
            };
        let counts = since_counted >= period;
        if counts {
            since_counted = Duration::ZERO;
        }
        let send = |finding: Finding| {
            reports.send(Report { container_id: place.container_id.clone(), which, finding })
        };
        let changed = match outcome {
            Ok(()) => {
                failures = 0;
                successes += 1;
                (successes >= to_succeed && word != Some(true)).then_some(true)
            }
            Err(why) if counts => {
                successes = 0;
                failures += 1;
                if send(Finding::Failed(why)).await.is_err() {
                    return;
                }
                (failures >= to_fail && word != Some(false)).then_some(false)
            }
            Err(_) => None,
        };
        if let Some(now) = changed {
            word = Some(now);
            if send(Finding::Now(now)).await.is_err() {
                return;
            }
        }
        let hurried = word.is_none() && which != Which::Liveness && successes == 0;
        let pause = if hurried {
            early.min(period - since_counted.min(period)).max(Duration::from_millis(10))
        } else {
            period
        };
        if hurried {
            early = (early * 2).min(Duration::from_millis(500));
        }
        tokio::time::sleep(pause).await;
        since_counted += pause;
    }
}

async fn once(
    shared: &Shared,
    probe: &Probe,
    container: &Container,
    place: &Place,
) -> Result<(), String> {
    if let Some(exec) = &probe.exec {
        return run_command(shared, place, exec.command.clone().unwrap_or_default()).await;
    }
    if let Some(get) = &probe.http_get {
        let port = port(&get.port, container)?;
        let host = get.host.clone().unwrap_or_else(|| place.ip.to_string());
        if get.scheme.as_deref() == Some("HTTPS") {
            // As upstream the certificate is not checked; a server that speaks TLS at all answers the handshake.
            return connect(&host, port).await.map(drop);
        }
        let headers: String = get
            .http_headers
            .iter()
            .flatten()
            .map(|header| format!("{}: {}\r\n", header.name, header.value))
            .collect();
        return http_get(&host, port, get.path.as_deref().unwrap_or("/"), &headers).await;
    }
    if let Some(tcp) = &probe.tcp_socket {
        let host = tcp.host.clone().unwrap_or_else(|| place.ip.to_string());
        return connect(&host, port(&tcp.port, container)?).await.map(drop);
    }
    Ok(())
}

/// A port by number, or by the name that the container gives it.
pub(crate) fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_ref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok()),
    };
    number.and_then(|number| u16::try_from(number).ok()).ok_or_else(|| format!("no port {port:?}"))
}

pub(crate) async fn run_command(
    shared: &Shared,
    place: &Place,
    command: Vec<String>,
) -> Result<(), String> {
    let request = ExecRequest { command, tty: false, stdin: false };
    let mut io = shared
        .config
        .runtime
        .exec(&place.sandbox, &place.container_id, request)
        .await
        .map_err(|error| error.to_string())?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let reading = async {
        let stdout = async { (&mut io.stdout).take(MAX_ANSWER).read_to_end(&mut out).await };
        let stderr = async {
            match &mut io.stderr {
                Some(stderr) => stderr.take(MAX_ANSWER).read_to_end(&mut err).await,
                None => Ok(0),
            }
        };
        tokio::join!(stdout, stderr)
    };
    let (_read, code) = tokio::join!(reading, &mut io.exit);
    match code.map_err(|error| error.to_string())? {
        0 => Ok(()),
        code if out.is_empty() && err.is_empty() => Err(format!("command exited with code {code}")),
        _ => Err(String::from_utf8_lossy(&[out, err].concat()).trim().to_owned()),
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port))
        .await
        .map_err(|error| format!("dial tcp {host}:{port}: {error}"))
}

pub(crate) async fn http_get(
    host: &str,
    port: u16,
    path: &str,
    headers: &str,
) -> Result<(), String> {
    let url = format!("http://{host}:{port}{path}");
    let failed = |error: std::io::Error| format!("Get {url:?}: {error}");
    let mut stream = TcpStream::connect((host, port))
        .await
        .map_err(|error| format!("Get {url:?}: dial tcp {host}:{port}: {error}"))?;
    let host_header = if headers.to_ascii_lowercase().contains("host:") {
        String::new()
    } else {
        format!("Host: {host}:{port}\r\n")
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\n{host_header}{headers}User-Agent: kube-probe/1.37\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    let mut head = (&mut stream).take(MAX_ANSWER);
    let mut buffer = [0; 1024];
    while !answer.windows(2).any(|pair| pair == b"\r\n") {
        match head.read(&mut buffer).await.map_err(failed)? {
            0 => break,
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    let line = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    match line.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()) {
        Some(200..400) => Ok(()),
        Some(code) => Err(format!("HTTP probe failed with statuscode: {code}")),
        None => Err(format!("Get {url:?}: malformed HTTP response")),
    }
}
