//! What `kubectl get pods` says. As upstream: `printPod` in `pkg/printers/internalversion/printers.go`.

use super::super::parts::{or_none, text};
use crate::object::Object;
use crate::table::human_duration;
use jiff::Timestamp;
use serde_json::{Value, json};

/// What the first columns say of a pod. They are counted together, because what is counted depends on how far its
/// initialization is.
pub(super) struct Summary {
    /// The STATUS column.
    pub(super) status: String,
    total: usize,
    ready: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    /// Looks at a pod.
    pub(super) fn of(object: &Object) -> Summary {
        let sidecars: Vec<&str> = object
            .list_at("/spec/initContainers")
            .iter()
            .filter(|c| text(c, "restartPolicy") == "Always")
            .map(|c| text(c, "name"))
            .collect();
        let total = object.list_at("/spec/containers").len() + sidecars.len();
        let mut summary = Summary {
            status: reason_of_pod(object),
            total,
            ready: 0,
            restarts: 0,
            last_restart: None,
        };
        let initializing = summary.count_initialization(object, &sidecars);
        if !initializing || condition(object, "Initialized") {
            summary.count_containers(object, &sidecars);
        }
        if object.is_terminating() {
            let phase = object.str_at("/status/phase");
            if object.str_at("/status/reason") == "NodeLost" {
                summary.status = "Unknown".to_owned();
            } else if phase != "Succeeded" && phase != "Failed" {
                summary.status = "Terminating".to_owned();
            }
        }
        summary
    }

    /// `1/2`.
    pub(super) fn ready(&self) -> Value {
        json!(format!("{}/{}", self.ready, self.total))
    }

    /// `2 (5m ago)`.
    pub(super) fn restarts(&self, now: Timestamp) -> Value {
        json!(match self.last_restart {
            Some(last) if self.restarts != 0 => format!(
                "{} ({} ago)",
                self.restarts,
                human_duration(now.as_second().saturating_sub(last.as_second()))
            ),
            _ => self.restarts.to_string(),
        })
    }

    fn count_restarts(&mut self, status: &Value) {
        self.restarts = self.restarts.saturating_add(status["restartCount"].as_i64().unwrap_or(0));
        let finished = status
            .pointer("/lastState/terminated/finishedAt")
            .and_then(Value::as_str)
            .and_then(|time| time.parse().ok());
        self.last_restart = self.last_restart.max(finished);
    }

    /// Whether an init container is not done; then the first such one gives the status.
    fn count_initialization(&mut self, object: &Object, sidecars: &[&str]) -> bool {
        let total = object.list_at("/spec/initContainers").len();
        for (index, status) in object.list_at("/status/initContainerStatuses").iter().enumerate() {
            self.count_restarts(status);
            let ended = state(status, "terminated");
            if ended.is_some_and(|ended| ended["exitCode"] == 0) {
                continue;
            }
            if sidecars.contains(&text(status, "name")) && status["started"] == true {
                self.ready += usize::from(status["ready"] == true);
                continue;
            }
            let waiting = state(status, "waiting").map_or("", |waiting| text(waiting, "reason"));
            self.status = match ended {
                Some(ended) => format!("Init:{}", ending(ended)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => {
                    format!("Init:{waiting}")
                }
                None => format!("Init:{index}/{total}"),
            };
            return true;
        }
        false
    }

    /// Once a pod is initialized, only its sidecars' and containers' restarts count.
    fn count_containers(&mut self, object: &Object, sidecars: &[&str]) {
        (self.restarts, self.last_restart) = (0, None);
        for status in object
            .list_at("/status/initContainerStatuses")
            .iter()
            .filter(|status| sidecars.contains(&text(status, "name")))
        {
            self.count_restarts(status);
        }
        let mut running = false;
        for status in object.list_at("/status/containerStatuses").iter().rev() {
            self.count_restarts(status);
            let waiting = state(status, "waiting").map_or("", |waiting| text(waiting, "reason"));
            if !waiting.is_empty() {
                self.status = waiting.to_owned();
            } else if let Some(ended) = state(status, "terminated") {
                self.status = ending(ended);
            } else if status["ready"] == true && state(status, "running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        // A pod of which one container is done and another runs is shown by what runs.
        if self.status == "Completed" && running {
            self.status =
                if condition(object, "Ready") { "Running" } else { "NotReady" }.to_owned();
        }
    }
}

fn state<'a>(status: &'a Value, which: &str) -> Option<&'a Value> {
    status.get("state")?.get(which).filter(|state| !state.is_null())
}

fn reason_of_pod(object: &Object) -> String {
    let gated = object
        .list_at("/status/conditions")
        .iter()
        .any(|c| text(c, "type") == "PodScheduled" && text(c, "reason") == "SchedulingGated");
    if gated {
        return "SchedulingGated".to_owned();
    }
    let reason = object.str_at("/status/reason");
    if reason.is_empty() { object.str_at("/status/phase") } else { reason }.to_owned()
}

fn condition(object: &Object, kind: &str) -> bool {
    object
        .list_at("/status/conditions")
        .iter()
        .any(|c| text(c, "type") == kind && text(c, "status") == "True")
}

/// `Error`, or `ExitCode:3`, or `Signal:9`.
fn ending(ended: &Value) -> String {
    match (text(ended, "reason"), ended["signal"].as_i64().unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", ended["exitCode"].as_i64().unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// Conditions that the pod must have besides those of its containers.
pub(super) fn gates(object: &Object) -> Value {
    let gates = object.list_at("/spec/readinessGates");
    if gates.is_empty() {
        return or_none("");
    }
    let met = |gate: &&Value| {
        object
            .list_at("/status/conditions")
            .iter()
            .any(|c| c["type"] == gate["conditionType"] && text(c, "status") == "True")
    };
    json!(format!("{}/{}", gates.iter().filter(met).count(), gates.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: Value) -> Object {
        Object::new(json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]}, "status": status})).unwrap()
    }

    fn shown(status: Value) -> String {
        Summary::of(&pod(status)).status
    }

    #[test]
    fn the_status_of_a_pod_is_said_as_upstream_says_it() {
        let waiting =
            |reason: &str| json!([{"name": "a", "state": {"waiting": {"reason": reason}}}]);
        let init = |state: Value| json!([{"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": state}]);
        for (status, words) in [
            (json!({"phase": "Pending"}), "Pending"),
            (json!({"phase": "Failed", "reason": "Evicted"}), "Evicted"),
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
                "SchedulingGated",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}], "containerStatuses": waiting("PodInitializing")}),
                "Init:0/2",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": init(json!({"waiting": {"reason": "PodInitializing"}}))}),
                "Init:1/2",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": init(json!({"waiting": {"reason": "CrashLoopBackOff"}}))}),
                "Init:CrashLoopBackOff",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": init(json!({"terminated": {"exitCode": 3, "reason": "Error"}}))}),
                "Init:Error",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": init(json!({"terminated": {"exitCode": 3}}))}),
                "Init:ExitCode:3",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": init(json!({"terminated": {"exitCode": 0}})), "containerStatuses": waiting("PodInitializing")}),
                "PodInitializing",
            ),
            (
                json!({"phase": "Pending", "containerStatuses": waiting("ContainerCreating")}),
                "ContainerCreating",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 137, "signal": 9}}}]}),
                "Signal:9",
            ),
            (
                json!({"phase": "Succeeded", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
                "Completed",
            ),
        ] {
            assert_eq!(shown(status.clone()), words, "{status}");
        }
    }

    #[test]
    fn a_pod_with_a_finished_container_is_shown_by_the_one_that_runs() {
        let both = json!([{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}, {"ready": true, "state": {"running": {}}}]);
        assert_eq!(shown(json!({"phase": "Running", "containerStatuses": both})), "NotReady");
        assert_eq!(
            shown(
                json!({"phase": "Running", "containerStatuses": both, "conditions": [{"type": "Ready", "status": "True"}]})
            ),
            "Running"
        );
    }

    #[test]
    fn a_pod_that_goes_is_terminating_unless_it_has_ended_or_its_node_is_lost() {
        let going = |status: Value| {
            let mut pod = pod(status);
            pod.set("/metadata/deletionTimestamp", json!("1970-01-01T00:00:00Z"));
            Summary::of(&pod).status
        };
        assert_eq!(going(json!({"phase": "Running"})), "Terminating");
        assert_eq!(going(json!({"phase": "Running", "reason": "NodeLost"})), "Unknown");
        assert_eq!(
            going(
                json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]})
            ),
            "Error"
        );
    }

    #[test]
    fn restarts_tell_when_the_last_was_and_forget_those_of_initialization() {
        let restarted = json!([{"name": "i", "restartCount": 2, "lastState": {"terminated": {"finishedAt": "1970-01-01T00:00:00Z"}}, "state": {"running": {}}}]);
        let now = Timestamp::from_second(300).unwrap();
        assert_eq!(
            Summary::of(&pod(json!({"containerStatuses": restarted}))).restarts(now),
            json!("2 (5m ago)")
        );
        assert_eq!(
            Summary::of(&pod(json!({"initContainerStatuses": restarted}))).restarts(now),
            json!("2 (5m ago)")
        );
        let initialized = json!({"initContainerStatuses": [{"name": "i", "restartCount": 2, "state": {"terminated": {"exitCode": 0}}}]});
        assert_eq!(Summary::of(&pod(initialized)).restarts(now), json!("0"));
    }

    #[test]
    fn sidecars_count_as_containers() {
        let mut pod = pod(
            json!({"initContainerStatuses": [{"name": "i", "started": true, "ready": true, "state": {"running": {}}}],
            "containerStatuses": [{"name": "a", "ready": true, "state": {"running": {}}}]}),
        );
        pod.set("/spec/initContainers", json!([{"name": "i", "restartPolicy": "Always"}]));
        assert_eq!(Summary::of(&pod).ready(), json!("2/2"));
    }
}
