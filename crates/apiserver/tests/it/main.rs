//! Requests over the in-process service, and what they are answered.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod access;
mod apply;
mod batch;
mod errors;
mod evictions;
mod lists;
mod patches;
mod watches;
mod writes;

use serde_json::{Value, json};

/// The folder of ConfigMaps in the default namespace.
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// The folder of StatefulSets in the default namespace.
const SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";

fn map(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn set(name: &str, replicas: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name}, "spec": {
        "replicas": replicas, "serviceName": name, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "busybox"}]}}}})
}
