//! The Kubernetes API over a [`store::Store`].
//!
//! Every request, also one from inside the process, passes the same chain: who is it, what does it ask for, may it, is
//! it well formed. The server looks kinds up in a registry that starts from [`api::kinds::KINDS`] and never matches on
//! a kind's name.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User name, e.g. `system:serviceaccount:kube-system:statefulset-controller`.
    pub user: String,
    /// Groups, e.g. `system:masters`.
    pub groups: Vec<String>,
}

/// A node's kubelet API: an HTTP service with upstream's kubelet paths (`/containerLogs/NAMESPACE/POD/CONTAINER`,
/// `/exec/NAMESPACE/POD/CONTAINER`, `/attach/…`, `/portForward/NAMESPACE/POD`), handed requests with their upgrade
/// intact (`hyper::upgrade::OnUpgrade` in the request's extensions).
pub type NodeService = tower::util::BoxCloneSyncService<
    http::Request<axum::body::Body>,
    http::Response<axum::body::Body>,
    std::convert::Infallible,
>;

/// Finds the way to a node's kubelet API: in process for the own node, over TLS for others.
pub trait NodeConnector: Send + Sync + fmt::Debug {
    /// The service of the node with this name, if it can be reached.
    fn connect(&self, node_name: &str) -> Option<NodeService>;
}

/// What an API server is made from.
#[derive(Debug)]
pub struct Config {
    /// Where state lives.
    pub store: Arc<dyn store::Store>,
    /// Range of ClusterIPs, e.g. 10.43.0.0/16: address and prefix length.
    pub service_cidr: (Ipv4Addr, u8),
    /// The way to the nodes.
    pub nodes: Arc<dyn NodeConnector>,
}
