//! The Kubernetes API over a [`store::Store`].
//!
//! Every request, also one from inside the process, passes the same chain (`serve`): who is it, what does it ask for,
//! may it, is it well formed. The server looks kinds up in a registry that starts from [`api::kinds::KINDS`] and never
//! matches on a kind's name.

mod admission;
mod authz;
mod bootstrap;
mod compression;
mod documents;
mod field_manager;
mod listen;
mod negotiation;
mod nodes;
mod protobuf;
mod registry;
mod request_info;
mod serve;
mod verbs;

pub use listen::listen;
pub use registry::indexer;

use api::{ApiError, Kind};
use axum::body::Body;
use std::convert::Infallible;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The version of the Kubernetes API types that the server is built on.
pub const KUBERNETES_VERSION: &str = "v1.37.0";

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User name, e.g. `system:serviceaccount:kube-system:statefulset-controller`.
    pub user: String,
    /// Groups, e.g. `system:masters`.
    pub groups: Vec<String>,
}

impl Identity {
    /// A part of the control plane.
    pub fn internal(user: &str) -> Identity {
        Identity {
            user: user.to_owned(),
            groups: vec!["system:authenticated".to_owned(), "system:control-plane".to_owned()],
        }
    }

    /// Whoever shows no certificate.
    pub fn anonymous() -> Identity {
        Identity {
            user: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
        }
    }
}

/// A node's kubelet API: an HTTP service with upstream's kubelet paths (`/containerLogs/NAMESPACE/POD/CONTAINER`,
/// `/exec/NAMESPACE/POD/CONTAINER`, `/attach/…`, `/portForward/NAMESPACE/POD`), handed requests with their upgrade
/// intact (`hyper::upgrade::OnUpgrade` in the request's extensions).
pub type NodeService =
    tower::util::BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// Finds the way to a node's kubelet API: in process for the own node, over TLS for others.
pub trait NodeConnector: Send + Sync + fmt::Debug {
    /// The service of the node with this name, if it can be reached.
    fn connect(&self, node_name: &str) -> Option<NodeService>;
}

/// What an API server is made from.
#[derive(Debug)]
pub struct Config {
    /// Where state lives. Its entries must be indexed by [`indexer`].
    pub store: Arc<dyn store::Store>,
    /// Range of ClusterIPs, e.g. 10.43.0.0/16: address and prefix length.
    pub service_cidr: (Ipv4Addr, u8),
    /// The way to the nodes.
    pub nodes: Arc<dyn NodeConnector>,
}

/// The API server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiServer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    kinds: Vec<&'static Kind>,
    registry: registry::Registry,
    addresses: admission::ServiceAddresses,
    nodes: Arc<dyn NodeConnector>,
    /// Ends watches, so that the process can end.
    closing: CancellationToken,
}

impl ApiServer {
    /// Starts from what the store has, and makes what every cluster has (the namespaces, the Service `kubernetes`).
    pub async fn new(config: Config, closing: CancellationToken) -> Result<ApiServer, ApiError> {
        let registry = registry::Registry::new(config.store);
        let addresses =
            admission::ServiceAddresses::recover(&registry, config.service_cidr).await?;
        let kinds = api::kinds::KINDS.to_vec();
        let server = ApiServer {
            inner: Arc::new(Inner { kinds, registry, addresses, nodes: config.nodes, closing }),
        };
        bootstrap::namespaces(&server).await?;
        Ok(server)
    }

    /// Makes the Service `default/kubernetes` and its endpoints at `address:port`.
    pub async fn publish_itself(&self, address: Ipv4Addr, port: u16) -> Result<(), ApiError> {
        bootstrap::kubernetes_service(self, address, port).await
    }

    /// Answers one request. Its `Identity` stands in the request's extensions; without one it is anonymous.
    pub async fn answer(&self, request: http::Request<Body>) -> http::Response<Body> {
        serve::answer(self, request).await
    }

    /// A client for a part of the process: its requests pass the same chain, without a socket.
    pub fn client_for(&self, identity: Identity) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (server, identity) = (server.clone(), identity.clone());
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(identity);
                Ok::<_, Infallible>(server.answer(request).await)
            }
        });
        kube::Client::new(service, "default")
    }

    fn kind(&self, group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        self.inner.kinds.iter().copied().find(|kind| {
            kind.names.group == group
                && kind.names.version == version
                && kind.names.plural == plural
        })
    }
}
