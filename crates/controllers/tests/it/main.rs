//! Stories of a whole control plane in the process, on a paused clock.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod cluster;
mod garbage;
mod statefulset;
mod volumes;
