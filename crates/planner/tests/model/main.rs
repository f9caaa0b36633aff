//! Every world that a user, a kubelet and a dying controller can make of a StatefulSet, within bounds, and the promises
//! in each of them.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it has seen"
)]

mod explore;
mod plans;
mod promises;
mod scenes;
mod world;
