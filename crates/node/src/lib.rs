//! The node agent: one worker per pod, volumes, probes, status, kubelet HTTP API.
#![warn(clippy::wildcard_enum_match_arm)]
