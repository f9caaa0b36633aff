//! Table tests of the rules: a sketch of a cluster in, rules and sentences out.

mod pods;
mod sets;

use super::diagnose;
use crate::finding::{Diagnosis, Finding};
use crate::observed::{Log, Observed};
use crate::subject::Subject;
use serde_json::{Value, json};

const NOW: &str = "2026-01-01T01:00:00Z";
const LATELY: &str = "2026-01-01T00:59:55Z";
const LONG_AGO: &str = "2026-01-01T00:00:00Z";

fn merge(base: &mut Value, more: Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (key, value) in more {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, more) => *base = more,
    }
}

fn with(mut base: Value, more: Value) -> Value {
    merge(&mut base, more);
    base
}

/// A set of two pods, up to date.
fn set(name: &str, more: Value) -> Value {
    with(
        json!({
            "metadata": {"name": name, "namespace": "n", "uid": name, "generation": 1, "creationTimestamp": LONG_AGO},
            "spec": {"replicas": 2, "serviceName": "", "podManagementPolicy": "OrderedReady", "updateStrategy": {"type": "RollingUpdate"},
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "app:1"}]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]},
            "status": {"replicas": 2, "observedGeneration": 1, "currentRevision": "r1", "updateRevision": "r1"}
        }),
        more,
    )
}

/// A Ready pod of a set.
fn pod(set: &str, ordinal: u32, more: Value) -> Value {
    let name = format!("{set}-{ordinal}");
    with(
        json!({
            "metadata": {"name": name, "namespace": "n", "uid": name, "creationTimestamp": LONG_AGO,
                "labels": {"app": set, "controller-revision-hash": "r1"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": set, "uid": set, "controller": true}]},
            "spec": {"nodeName": "node", "containers": [{"name": "main", "image": "app:1"}]},
            "status": {"phase": "Running", "podIP": format!("10.0.0.{ordinal}"),
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": LONG_AGO}],
                "containerStatuses": [{"name": "main", "image": "app:1", "imageID": "", "containerID": "c", "ready": true, "restartCount": 0, "state": {"running": {"startedAt": LONG_AGO}}}]}
        }),
        more,
    )
}

/// What makes a pod wait, for this reason.
fn waiting(reason: &str, message: &str) -> Value {
    json!({"status": {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{"name": "main", "image": "app:1", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": reason, "message": message}}}]}})
}

/// What makes a pod crash.
fn crashing(code: i32, reason: &str) -> Value {
    json!({"status": {"conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{"name": "main", "image": "app:1", "imageID": "", "containerID": "c", "ready": false, "restartCount": 4,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": code, "reason": reason, "finishedAt": LATELY}}}]}})
}

/// What keeps a pod from a node.
fn unplaced(message: &str) -> Value {
    json!({"spec": {"nodeName": null, "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}}]},
        "status": {"phase": "Pending", "containerStatuses": null,
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}})
}

fn claim(name: &str, more: Value) -> Value {
    with(
        json!({"metadata": {"name": name, "namespace": "n", "uid": name, "creationTimestamp": LONG_AGO, "labels": {"app": "x"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}, "status": {"phase": "Bound"}}),
        more,
    )
}

fn event(kind: &str, name: &str, reason: &str, message: &str) -> Value {
    json!({"metadata": {"name": "e", "namespace": "n"}, "involvedObject": {"kind": kind, "name": name, "namespace": "n"},
        "reason": reason, "message": message, "type": "Warning", "lastTimestamp": LATELY})
}

fn service(name: &str, more: Value) -> Value {
    with(
        json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"clusterIP": "None", "selector": {"app": "web"}}}),
        more,
    )
}

fn parsed<T: serde::de::DeserializeOwned>(world: &Value, key: &str) -> Option<Vec<T>> {
    match world.get(key) {
        Some(Value::Null) => None,
        Some(items) => Some(serde_json::from_value(items.clone()).unwrap()),
        None => Some(Vec::new()),
    }
}

fn observed(world: Value) -> Observed {
    let logs = world["logs"].as_object().into_iter().flatten().map(|(pod, text)| Log {
        namespace: "n".to_owned(),
        pod: pod.clone(),
        container: "main".to_owned(),
        lines: text.as_str().unwrap().lines().map(str::to_owned).collect(),
    });
    Observed {
        now: NOW.parse().unwrap(),
        on_abide: world["abide"] == true,
        sets: parsed(&world, "sets"),
        pods: parsed(&world, "pods"),
        claims: parsed(&world, "claims"),
        volumes: parsed(&world, "volumes"),
        classes: parsed(&world, "classes"),
        services: parsed(&world, "services"),
        events: parsed(&world, "events"),
        revisions: parsed(&world, "revisions"),
        nodes: parsed(&world, "nodes"),
        config_maps: parsed(&world, "configMaps"),
        secrets: parsed(&world, "secrets"),
        workloads: Some(Vec::new()),
        logs: logs.collect(),
        unseen: Vec::new(),
    }
}

fn everything() -> Subject {
    Subject { namespace: Some("n".to_owned()), target: None }
}

fn told(world: Value) -> Diagnosis {
    diagnose(&observed(world), &everything())
}

/// The one finding.
fn only(world: Value) -> Finding {
    let diagnosis = told(world);
    assert_eq!(diagnosis.findings.len(), 1, "{:#?}", diagnosis.findings);
    diagnosis.findings.into_iter().next().unwrap()
}

fn rules(world: Value) -> Vec<&'static str> {
    told(world).findings.iter().map(|finding| finding.rule).collect()
}

fn seen(finding: &Finding, words: &str) -> bool {
    finding
        .evidence
        .iter()
        .any(|evidence| format!("{}: {}", evidence.source, evidence.text).contains(words))
}

fn commands(finding: &Finding) -> Vec<&str> {
    finding.advice.iter().filter_map(|step| step.command.as_deref()).collect()
}
