//! An API server over a store in memory.

use apiserver::{ApiServer, Config, Identity, NodeConnector, NodeService};
use axum::body::Body;
use http::{HeaderMap, Request};
use serde_json::Value;
use std::sync::Arc;
use store::{Embedded, Options};
use tokio_util::sync::{CancellationToken, DropGuard};

#[derive(Debug)]
struct NoNodes;

impl NodeConnector for NoNodes {
    fn connect(&self, _: &str) -> Option<NodeService> {
        None
    }
}

/// An API server for one test. Its watches end with it.
#[derive(Debug)]
pub struct TestServer {
    /// The server itself.
    pub api: ApiServer,
    closing: CancellationToken,
    _closes: DropGuard,
}

/// What a request was answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub code: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as it came.
    pub bytes: Vec<u8>,
}

impl Answer {
    /// The body, read as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.bytes)))
    }

    /// The `Warning` headers.
    pub fn warnings(&self) -> Vec<&str> {
        self.headers.get_all("warning").iter().map(|value| value.to_str().unwrap()).collect()
    }
}

impl TestServer {
    /// An empty cluster.
    pub async fn start() -> TestServer {
        TestServer::with(Options::default()).await
    }

    /// An empty cluster whose store remembers only so much.
    pub async fn with(options: Options) -> TestServer {
        let closing = CancellationToken::new();
        let config = Config {
            store: Arc::new(Embedded::in_memory(options)),
            service_cidr: ([10, 43, 0, 0].into(), 16),
            nodes: Arc::new(NoNodes),
        };
        let api = ApiServer::new(config, closing.clone()).await.unwrap();
        TestServer { api, closing: closing.clone(), _closes: closing.drop_guard() }
    }

    /// Ends with the server.
    pub fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// A client for a part of the control plane.
    pub fn client(&self, user: &str) -> kube::Client {
        self.api.client_for(Identity::internal(user))
    }

    /// One request of an administrator; `body` may be empty, `headers` are pairs.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let admin = Identity {
            user: "admin".to_owned(),
            groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
        };
        self.request_as(Some(admin), method, path, headers, body).await
    }

    /// One request of somebody, or of nobody.
    pub async fn request_as(
        &self,
        identity: Option<Identity>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body.into()).unwrap();
        if let Some(identity) = identity {
            request.extensions_mut().insert(identity);
        }
        let (parts, body) = self.api.answer(request).await.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
        Answer { code: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "").await
    }

    /// POST of JSON.
    pub async fn post(&self, path: &str, object: &Value) -> Answer {
        self.request("POST", path, &[("content-type", "application/json")], object.to_string())
            .await
    }

    /// PUT of JSON.
    pub async fn put(&self, path: &str, object: &Value) -> Answer {
        self.request("PUT", path, &[("content-type", "application/json")], object.to_string()).await
    }

    /// PATCH, `kind` being `json`, `merge` or `strategic-merge`.
    pub async fn patch(&self, path: &str, kind: &str, patch: &Value) -> Answer {
        let media_type = format!("application/{kind}-patch+json");
        self.request("PATCH", path, &[("content-type", &media_type)], patch.to_string()).await
    }

    /// PATCH with a configuration: server-side apply. `query` is e.g. `fieldManager=helm&force=true`.
    pub async fn apply(&self, path: &str, query: &str, configuration: &Value) -> Answer {
        let headers = [("content-type", "application/apply-patch+yaml")];
        let path = format!("{path}?{query}");
        self.request("PATCH", &path, &headers, configuration.to_string()).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path, &[], "").await
    }
}
