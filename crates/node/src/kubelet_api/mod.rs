//! The kubelet's HTTP API: logs, exec, attach, port-forward. The API server hands requests on with their upgrade intact.

mod exec;
mod logs;
mod port_forward;
mod remote_command;
mod spdy;
mod upgrade;
mod websocket;

pub(crate) use logs::{last_lines, log_path, remove_logs};

use crate::agent::{Agent, Shared};
use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::StatusCode;
use kube::ResourceExt;
use network::PodRef;
use runtime::ContainerStatus;
use serde_json::json;
use std::sync::PoisonError;

/// The routes of a node's kubelet API.
pub fn router(agent: &Agent) -> Router {
    Router::new()
        .route("/containerLogs/{namespace}/{pod}/{container}", any(logs::logs))
        .route("/exec/{namespace}/{pod}/{container}", any(exec::exec))
        .route("/attach/{namespace}/{pod}/{container}", any(exec::attach))
        .route("/portForward/{namespace}/{pod}", any(port_forward::port_forward))
        .with_state(agent.shared.clone())
}

type Target = (String, String, String);

fn failure(code: StatusCode, reason: &str, message: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code.as_u16()});
    (code, [(http::header::CONTENT_TYPE, "application/json")], status.to_string()).into_response()
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
