//! Packets: an address per pod, Service rules, cluster DNS. This room is handed Services and EndpointSlices and never
//! fetches them.
//!
//! Pods are routed veths without a bridge: one /32 per pod, a host route to its veth. Services are nf_tables rules.
//! Names are answered from memory.

pub mod dns;
pub mod host;
pub mod pods;
pub mod services;

use async_trait::async_trait;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;

/// Which pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// Sandbox id (the pod's UID): the identity under which an address is held.
    pub id: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// What a pod got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodAddress {
    /// Its address.
    pub ip: Ipv4Addr,
}

/// Why the network refused.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// All addresses of the node's range are in use.
    #[error("no free address in {0}")]
    Exhausted(String),
    /// Anything else, with what was tried.
    #[error("{0}")]
    Other(String),
}

/// Connects pods. CNI's verbs.
#[async_trait]
pub trait PodNetwork: Send + Sync + fmt::Debug {
    /// Gives the network namespace at `netns` an `eth0` with an address and a default route. Idempotent: a pod that
    /// already has an address gets the same.
    async fn add(&self, pod: &PodRef, netns: &Path) -> Result<PodAddress, NetworkError>;
    /// Whether the pod still has what `add` gave it, and what that is. Used after a restart of the server.
    async fn check(&self, pod: &PodRef, netns: &Path) -> Result<PodAddress, NetworkError>;
    /// Takes it away. Idempotent; the namespace may already be gone.
    async fn del(&self, pod: &PodRef) -> Result<(), NetworkError>;
}
