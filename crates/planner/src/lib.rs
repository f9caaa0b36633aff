//! Every decision, as pure functions over Kubernetes types: seen in, plan out, nothing else.
//!
//! This room has no clock (time is an argument), no randomness, no file, no task and no client. Problems are data.

pub mod claim_binding;
pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod garbage;
pub mod job;
pub mod pod;
pub mod replica_set;
pub mod scheduling;
pub mod statefulset;
pub mod workload;
