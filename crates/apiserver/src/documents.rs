//! Discovery, OpenAPI, version and health.

use crate::{ApiServer, KUBERNETES_VERSION};
use api::{ApiError, discovery, openapi};
use axum::body::Body;
use http::{HeaderMap, Response};
use serde_json::{Value, json};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answers a path that is no resource.
pub(crate) fn answer(
    server: &ApiServer,
    path: &str,
    verbose: bool,
    headers: &HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let kinds = &server.inner.kinds;
    let accept =
        headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts[..] {
        [] => json_answer(
            &json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]}),
        ),
        ["api"] | ["apis"] if wants_aggregated(accept) => {
            let document = discovery::aggregated(kinds, parts[0] == "api");
            let mut answer = json_answer(&document)?;
            answer
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(AGGREGATED));
            Ok(answer)
        }
        ["api"] => json_answer(&discovery::core_versions()),
        ["apis"] => json_answer(&discovery::groups(kinds)),
        ["api", version] => found(discovery::resources(kinds, "", version)),
        ["apis", group] => found(discovery::group(kinds, group)),
        ["apis", group, version] => found(discovery::resources(kinds, group, version)),
        ["openapi", "v2"]
            if accept.contains("protobuf")
                && !accept.contains("json")
                && !accept.contains("*/*") =>
        {
            Err(ApiError::not_acceptable(&["application/json"]))
        }
        ["openapi", "v2"] => json_answer(&openapi::v2(kinds)),
        ["openapi", "v3"] => json_answer(&openapi::v3_index(kinds, env!("CARGO_PKG_VERSION"))),
        ["openapi", "v3", ..] => found(openapi::v3(kinds, &parts[2..].join("/"))),
        ["version"] => json_answer(&version()),
        ["healthz" | "livez" | "readyz", ..] => Ok(health(parts[0], verbose)),
        _ => Err(ApiError::unknown_path()),
    }
}

fn wants_aggregated(accept: &str) -> bool {
    accept.split(',').next().is_some_and(|first| {
        first.contains("g=apidiscovery.k8s.io") && first.contains("v=v2;")
            || first.contains("g=apidiscovery.k8s.io") && first.ends_with("v=v2")
    }) || accept.contains("v=v2;g=apidiscovery.k8s.io")
        || accept.contains("g=apidiscovery.k8s.io;v=v2;")
}

fn found(document: Option<Value>) -> Result<Response<Body>, ApiError> {
    json_answer(&document.ok_or_else(ApiError::unknown_path)?)
}

fn json_answer(document: &Value) -> Result<Response<Body>, ApiError> {
    crate::serve::json(200, serde_json::to_vec(document).map_err(ApiError::internal)?.into())
}

fn version() -> Value {
    let minor = KUBERNETES_VERSION.split('.').nth(1).unwrap_or_default();
    json!({"major": "1", "minor": minor, "gitVersion": format!("{KUBERNETES_VERSION}+abide"), "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64"})
}

/// Whoever gets an answer at all has a server whose store was opened and read: there is nothing else to be ready.
fn health(check: &str, verbose: bool) -> Response<Body> {
    let text = if verbose {
        format!("[+]ping ok\n[+]store ok\n{check} check passed\n")
    } else {
        "ok".to_owned()
    };
    let mut answer = Response::new(Body::from(text));
    answer.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    answer
}
