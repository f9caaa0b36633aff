//! Stories of a whole control plane in the process, on a paused clock.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on says where"
)]

mod batch;
mod cluster;
mod daemon_set;
mod deployment;
mod disruption;
mod garbage;
mod histories;
mod statefulset;
mod volumes;
