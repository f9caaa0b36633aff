//! F: whole applications, from the manifests of `examples/`.

mod entry_points;
mod etcd;
mod mysql;
mod postgres;
mod queues;
mod redis;

/// The folder of an example.
fn example(name: &str) -> String {
    format!("{}/../examples/{name}", env!("CARGO_MANIFEST_DIR"))
}
