//! Reconcile loops and the scheduler loop: observe, ask the planner, act through `kube::Client`.
#![warn(clippy::wildcard_enum_match_arm)]
