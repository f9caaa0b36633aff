//! What `kubectl get pods` says. As upstream: `printPod` in `pkg/printers/internalversion/printers.go`.

use super::super::parts::{or_none, text};
use crate::object::Object;
use crate::table::human_duration;
use jiff::Timestamp;
use serde_json::{Value, json};

/// `1/2`.
pub(super) fn ready(object: &Object) -> Value {
    let sidecars = sidecars(object);
    let is_sidecar = |status: &&Value| sidecars.contains(&text(status, "name"));
    let all = object.list_at("/spec/containers").len() + sidecars.len();
    let ready = |status: &&Value| status["ready"] == true && status.pointer("/state/running").is_some();
    let count = object.list_at("/status/containerStatuses").iter().filter(ready).count()
        + object.list_at("/status/initContainerStatuses").iter().filter(is_sidecar).filter(ready).count();
    json!(format!("{count}/{all}"))
}

fn sidecars(object: &Object) -> Vec<&str> {
    object.list_at("/spec/initContainers").iter().filter(|c| text(c, "restartPolicy") == "Always").map(|c| text(c, "name")).collect()
}

/// `2 (5m ago)`.
pub(super) fn restarts(object: &Object, now: Timestamp) -> Value {
    let statuses = object.list_at("/status/initContainerStatuses").iter().chain(object.list_at("/status/containerStatuses"));
    let (mut count, mut last) = (0, None);
    for status in statuses {
        count += status["restartCount"].as_i64().unwrap_or(0);
        let finished = status.pointer("/lastState/terminated/finishedAt").and_then(Value::as_str).and_then(|time| time.parse::<Timestamp>().ok());
        last = last.max(finished);
    }
    json!(match last {
        Some(last) if count > 0 => format!("{count} ({} ago)", human_duration(now.as_second() - last.as_second())),
        _ => count.to_string(),
    })
}

/// Conditions that the pod must have besides those of its containers.
pub(super) fn gates(object: &Object) -> Value {
    let gates = object.list_at("/spec/readinessGates");
    if gates.is_empty() {
        return or_none("");
    }
    let met = |gate: &&Value| object.list_at("/status/conditions").iter().any(|c| c["type"] == gate["conditionType"] && text(c, "status") == "True");
    json!(format!("{}/{}", gates.iter().filter(met).count(), gates.len()))
}

/// The STATUS column.
pub(super) fn status(object: &Object) -> String {
    let phase = object.str_at("/status/phase");
    let mut reason = if object.str_at("/status/reason").is_empty() { phase.to_owned() } else { object.str_at("/status/reason").to_owned() };
    let gated = object.list_at("/status/conditions").iter().any(|c| text(c, "type") == "PodScheduled" && text(c, "reason") == "SchedulingGated");
    if gated {
        reason = "SchedulingGated".to_owned();
    }
    let initializing = initialization(object);
    if let Some(words) = &initializing {
        reason = words.clone();
    }
    if initializing.is_none() || condition(object, "Initialized") {
        if let Some(words) = of_containers(object, &reason) {
            reason = words;
        }
    }
    if object.is_terminating() {
        return if object.str_at("/status/reason") == "NodeLost" { "Unknown".to_owned() } else if phase == "Succeeded" || phase == "Failed" { reason } else { "Terminating".to_owned() };
    }
    reason
}

fn condition(object: &Object, kind: &str) -> bool {
    object.list_at("/status/conditions").iter().any(|c| text(c, "type") == kind && text(c, "status") == "True")
}

/// The first init container that is not done, if any.
fn initialization(object: &Object) -> Option<String> {
    let statuses = object.list_at("/status/initContainerStatuses");
    let total = object.list_at("/spec/initContainers").len();
    let sidecars = sidecars(object);
    for (index, status) in statuses.iter().enumerate() {
        if let Some(ended) = status.pointer("/state/terminated") {
            if ended["exitCode"] == 0 {
                continue;
            }
            return Some(format!("Init:{}", ending(ended)));
        }
        if sidecars.contains(&text(status, "name")) && status["started"] == true {
            continue;
        }
        let waiting = status.pointer("/state/waiting/reason").and_then(Value::as_str).unwrap_or_default();
        return Some(if !waiting.is_empty() && waiting != "PodInitializing" { format!("Init:{waiting}") } else { format!("Init:{index}/{total}") });
    }
    None
}

/// `Error`, or `ExitCode:3`, or `Signal:9`.
fn ending(ended: &Value) -> String {
    match (text(ended, "reason"), ended["signal"].as_i64().unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", ended["exitCode"]),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn of_containers(object: &Object, before: &str) -> Option<String> {
    let (mut reason, mut running) = (None, false);
    for status in object.list_at("/status/containerStatuses").iter().rev() {
        let waiting = status.pointer("/state/waiting/reason").and_then(Value::as_str).unwrap_or_default();
        if !waiting.is_empty() {
            reason = Some(waiting.to_owned());
        } else if let Some(ended) = status.pointer("/state/terminated") {
            reason = Some(ending(ended));
        } else if status["ready"] == true && status.pointer("/state/running").is_some() {
            running = true;
        }
    }
    // A pod of which one container is done and another runs is shown by what runs.
    if reason.as_deref().unwrap_or(before) == "Completed" && running {
        return Some(if condition(object, "Ready") { "Running" } else { "NotReady" }.to_owned());
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(status: Value) -> String {
        super::status(&Object::new(json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]}, "status": status})).unwrap())
    }

    #[test]
    fn the_status_of_a_pod_is_said_as_upstream_says_it() {
        let waiting = |reason: &str| json!([{"name": "a", "state": {"waiting": {"reason": reason}}}]);
        assert_eq!(shown(json!({"phase": "Pending"})), "Pending");
        assert_eq!(shown(json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}], "containerStatuses": waiting("PodInitializing")})), "Init:0/2");
        assert_eq!(shown(json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]})), "Init:CrashLoopBackOff");
        assert_eq!(shown(json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 3, "reason": "Error"}}}]})), "Init:Error");
        assert_eq!(shown(json!({"phase": "Pending", "containerStatuses": waiting("ContainerCreating")})), "ContainerCreating");
        assert_eq!(shown(json!({"phase": "Running", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 137, "signal": 9}}}]})), "Signal:9");
        assert_eq!(shown(json!({"phase": "Succeeded", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]})), "Completed");
    }

    #[test]
    fn restarts_tell_when_the_last_was() {
        let pod = Object::new(json!({"status": {"containerStatuses": [{"restartCount": 2, "lastState": {"terminated": {"finishedAt": "1970-01-01T00:00:00Z"}}}]}})).unwrap();
        assert_eq!(restarts(&pod, Timestamp::from_second(300).unwrap()), json!("2 (5m ago)"));
    }
}
