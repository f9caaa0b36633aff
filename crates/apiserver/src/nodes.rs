//! Logs, exec, attach and port-forward: handed to the pod's node with the request's upgrade intact.

use crate::ApiServer;
use crate::request_info::{Query, ResourceRequest};
use api::{ApiError, Object};
use axum::body::Body;
use http::{Request, Response, Uri};
use serde_json::Value;
use tower::ServiceExt;

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Forwards to the kubelet API of the pod's node.
pub(crate) async fn forward(
    server: &ApiServer,
    info: &ResourceRequest,
    query: &Query,
    mut request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let kind = server.kind("", "v1", "pods").ok_or_else(ApiError::unknown_path)?;
    let pod = server.inner.registry.object(kind, &info.namespace, &info.name).await?;
    let node = pod.str_at("/spec/nodeName");
    if node.is_empty() {
        return Err(ApiError::bad_request(format!(
            "pod {} does not have a host assigned",
            info.name
        )));
    }
    let verb = match info.subresource.as_str() {
        "log" => "containerLogs",
        "portforward" => "portForward",
        other => other,
    };
    let service = server.inner.nodes.connect(node).ok_or_else(|| {
        ApiError::internal(format!("error dialing backend: node {node:?} cannot be reached"))
    })?;
    let container = match verb {
        "portForward" => String::new(),
        _ => format!("/{}", container(&pod, query.get("container"))?),
    };
    let query = request.uri().query().map_or(String::new(), |query| format!("?{query}"));
    let uri = format!("/{verb}/{}/{}{container}{query}", info.namespace, info.name);
    *request.uri_mut() = uri.parse::<Uri>().map_err(ApiError::internal)?;
    match service.oneshot(request).await {
        Ok(response) => Ok(response),
        Err(never) => match never {},
    }
}

/// The container that is meant.
fn container(pod: &Object, asked: &str) -> Result<String, ApiError> {
    let names = |list: &str| -> Vec<String> {
        pod.list_at(&format!("/spec/{list}"))
            .iter()
            .filter_map(|c| c.get("name").and_then(Value::as_str))
            .map(str::to_owned)
            .collect()
    };
    let (containers, inits) = (names("containers"), names("initContainers"));
    if !asked.is_empty() {
        let known = containers.iter().chain(&inits).any(|name| name == asked);
        return if known {
            Ok(asked.to_owned())
        } else {
            Err(ApiError::bad_request(format!(
                "container {asked} is not valid for pod {}",
                pod.name()
            )))
        };
    }
    if let Some(name) =
        pod.annotation(DEFAULT_CONTAINER).filter(|name| containers.iter().any(|c| c == name))
    {
        return Ok(name.to_owned());
    }
    match &containers[..] {
        [only] => Ok(only.clone()),
        _ => {
            let inits = if inits.is_empty() {
                String::new()
            } else {
                format!(" or one of the init containers: [{}]", inits.join(" "))
            };
            Err(ApiError::bad_request(format!(
                "a container name must be specified for pod {}, choose one of: [{}]{inits}",
                pod.name(),
                containers.join(" ")
            )))
        }
    }
}
