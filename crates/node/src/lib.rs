//! The node agent: one worker per pod, volumes, probes, status, kubelet HTTP API.
//!
//! It knows the control plane only through the Kubernetes API, and containers and packets only through the seams of
//! their rooms. After a restart it goes on with the pods that run.
#![warn(clippy::wildcard_enum_match_arm)]

mod agent;
mod environment;
mod events;
pub mod kubelet_api;
mod pod_worker;
mod probes;
mod register;
mod service_proxy;
pub mod simulated;
mod volumes;

pub use agent::{Agent, AgentConfig};
