//! F: whole applications, from the manifests of `examples/`.

mod entry_points;
mod etcd;
mod mysql;
mod postgres;
mod queues;
mod redis;

use crate::harness::Cluster;

/// Waits until a set is complete. Watched, and not asked again and again: databases need the processor themselves.
fn ready(k: &Cluster, set: &str, replicas: u32) {
    k.sh(&format!("kubectl rollout status statefulset/{set} --timeout=240s"));
    k.until_ready(set, replicas);
}

/// The folder of an example.
fn example(name: &str) -> String {
    format!("{}/../examples/{name}", env!("CARGO_MANIFEST_DIR"))
}
