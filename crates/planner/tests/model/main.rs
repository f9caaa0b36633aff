//! Every world that a user, a kubelet and a dying controller can make of a StatefulSet, within bounds, and the promises
//! in each of them.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it has seen"
)]

#[path = "explore.rs"]
mod explore;
#[path = "plans.rs"]
mod plans;
#[path = "promises.rs"]
mod promises;
#[path = "scenes.rs"]
mod scenes;
#[path = "world.rs"]
mod world;
