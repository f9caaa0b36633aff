//! Every world that a user, a kubelet and a dying controller can make of a StatefulSet, within bounds, and the promises
//! in each of them.

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
