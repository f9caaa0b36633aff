//! The embedded runtime with real namespaces, mounts and control groups. Needs root and a static /bin/busybox.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod images;
mod life;
mod survival;
mod world;
