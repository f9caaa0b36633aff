//! Nodes without containers: their pods become Ready at once, or do what their annotations say. For tests of scale and
//! of operators. The annotations are described in `docs/simulated-nodes.md`.

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// On a pod: milliseconds until it becomes Ready.
pub const READY_AFTER: &str = "abide.dev/simulated-ready-after-ms";
/// On a pod, also while it runs: `false` makes it not Ready, `true` (or nothing) Ready.
pub const READY: &str = "abide.dev/simulated-ready";
/// On a pod, also while it runs: its containers end with this exit code, as often as they are started.
pub const EXIT_CODE: &str = "abide.dev/simulated-exit-code";
/// On a pod: milliseconds until its containers end so.
pub const EXIT_AFTER: &str = "abide.dev/simulated-exit-after-ms";
/// Pods that are worked on at once.
const AT_ONCE: usize = 256;
/// The prefix of the nodes' names.
const PREFIX: &str = "simulated-";

/// Makes `count` nodes and plays their kubelets until `closing` fires.
pub async fn run(
    client: Client,
    count: u32,
    kubernetes_version: String,
    closing: CancellationToken,
) {
    closing.run_until_cancelled(async {
        for number in 0..count {
            if let Err(error) = register(&client, number, &kubernetes_version).await {
                tracing::error!(node = format!("{PREFIX}{number}"), %error, "a simulated node could not be registered");
            }
        }
        play(client).await;
    }).await;
}

async fn register(client: &Client, number: u32, version: &str) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let name = format!("{PREFIX}{number}");
    let labels = json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"});
    let node: Node = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}))
        .map_err(kube::Error::SerdeError)?;
    match nodes.create(&PostParams::default(), &node).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        other => drop(other?),
    }
    let amounts = json!({"cpu": "1000", "memory": "1Ti", "pods": "100000"});
    let now = whole_now();
    let status = json!({"status": {"capacity": amounts, "allocatable": amounts, "addresses": [{"type": "Hostname", "address": name}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "Simulated", "message": "this node is simulated", "lastHeartbeatTime": now, "lastTransitionTime": now}],
        "nodeInfo": {"machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "simulated", "containerRuntimeVersion": "simulated://0",
            "kubeletVersion": version, "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64"}}});
    nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.map(drop)
}

fn whole_now() -> String {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default().to_string()
}

async fn play(client: Client) {
    let api: Api<Pod> = Api::all(client.clone());
    let mut events = watcher::watcher(api, watcher::Config::default()).boxed();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let addresses = Arc::new(AtomicU32::new(0));
    loop {
        match events.try_next().await {
            Ok(Some(Event::Apply(pod) | Event::InitApply(pod))) => {
                let mine = pod
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.node_name.as_deref())
                    .is_some_and(|node| node.starts_with(PREFIX));
                if !mine {
                    continue;
                }
                let Ok(place) = places.clone().acquire_owned().await else { return };
                let (client, addresses) = (client.clone(), addresses.clone());
                tokio::spawn(async move {
                    if let Err(error) = act(&client, &pod, &addresses).await {
                        tracing::debug!(name = pod.name_any(), %error, "a simulated pod could not be played");
                    }
                    drop(place);
                });
            }
            Ok(Some(Event::Delete(_) | Event::Init | Event::InitDone)) => {}
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "the watch of simulated pods broke and is taken up again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn act(client: &Client, pod: &Pod, addresses: &AtomicU32) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    let result = if pod.metadata.deletion_timestamp.is_some() {
        let only_this = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        api.delete(
            &name,
            &DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(only_this),
                ..DeleteParams::default()
            },
        )
        .await
        .map(drop)
    } else {
        let Some((delay, play)) = next(pod) else { return Ok(()) };
        tokio::time::sleep(delay).await;
        let known = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        let ip = known.unwrap_or_else(|| {
            let number = addresses.fetch_add(1, Ordering::Relaxed) % 0x00ff_0000;
            std::net::Ipv4Addr::from(0x0a80_0001 + number).to_string()
        });
        // Only if nothing has happened to the pod meanwhile; otherwise its next event tells what to play.
        let metadata =
            json!({"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version});
        let change = json!({"metadata": metadata, "status": status(pod, &ip, play)});
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(change)).await.map(drop)
    };
    match result {
        // Gone or changed meanwhile: its next event tells.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other,
    }
}

/// What a pod is made to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Play {
    Running {
        ready: bool,
    },
    /// It ended, and is not started again.
    Ended {
        exit_code: i32,
    },
    /// It ended for the so-manieth time, and waits to be started again.
    Waiting {
        exit_code: i32,
        restarts: i32,
    },
}

/// What happens to a pod next, and after what time. None: nothing.
fn next(pod: &Pod) -> Option<(Duration, Play)> {
    let told = |name: &str| pod.annotations().get(name);
    let after = |name: &str| {
        Duration::from_millis(told(name).and_then(|text| text.parse().ok()).unwrap_or(0))
    };
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    let container = status.and_then(|status| status.container_statuses.as_ref()?.first());
    let restarts = container.map_or(0, |container| container.restart_count);
    let is_waiting = container
        .and_then(|container| container.state.as_ref())
        .is_some_and(|state| state.waiting.is_some());
    let ready = told(READY).is_none_or(|word| word != "false");
    let is_ready = container.is_some_and(|container| container.ready);
    let exit_code = told(EXIT_CODE).and_then(|text| text.parse::<i32>().ok());
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    match (phase, exit_code) {
        ("Succeeded" | "Failed", _) => None,
        ("Pending", _) => Some((after(READY_AFTER), Play::Running { ready })),
        (_, Some(exit_code)) if !is_waiting => {
            let again = policy == Some("Always") || policy == Some("OnFailure") && exit_code != 0;
            let play = if again {
                Play::Waiting { exit_code, restarts: restarts.saturating_add(1) }
            } else {
                Play::Ended { exit_code }
            };
            Some((after(EXIT_AFTER), play))
        }
        // As the kubelet: ten seconds, twenty, at most five minutes.
        (_, Some(_)) => {
            let seconds = 10u64.saturating_mul(1 << restarts.saturating_sub(1).clamp(0, 5));
            Some((Duration::from_secs(seconds.min(300)), Play::Running { ready }))
        }
        (_, None) if is_waiting || is_ready != ready => {
            Some((Duration::ZERO, Play::Running { ready }))
        }
        (_, None) => None,
    }
}

/// The status of a pod that is so.
fn status(pod: &Pod, ip: &str, play: Play) -> Value {
    let now = whole_now();
    let before = pod.status.as_ref();
    let (phase, ready) = match play {
        Play::Running { ready } => ("Running", ready),
        Play::Waiting { .. } => ("Running", false),
        Play::Ended { exit_code: 0 } => ("Succeeded", false),
        Play::Ended { .. } => ("Failed", false),
    };
    let ended = |exit_code: i32| json!({"exitCode": exit_code, "reason": if exit_code == 0 { "Completed" } else { "Error" }, "startedAt": now, "finishedAt": now});
    let containers: Vec<Value> = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .map(|container| {
            let former = before
                .and_then(|status| status.container_statuses.as_ref())
                .and_then(|all| all.iter().find(|one| one.name == container.name));
            let restarts = former.map_or(0, |former| former.restart_count);
            let last = former.and_then(|former| serde_json::to_value(&former.last_state).ok());
            let (state, last, restarts) = match play {
                Play::Running { .. } => (json!({"running": {"startedAt": now}}), last, restarts),
                Play::Ended { exit_code } => (json!({"terminated": ended(exit_code)}), last, restarts),
                Play::Waiting { exit_code, restarts } => {
                    let waiting = json!({"reason": "CrashLoopBackOff", "message": format!("back-off restarting failed container={}", container.name)});
                    (json!({"waiting": waiting}), Some(json!({"terminated": ended(exit_code)})), restarts)
                }
            };
            json!({"name": container.name, "image": container.image, "imageID": "", "ready": ready,
                "started": matches!(play, Play::Running { .. }), "restartCount": restarts, "state": state,
                "lastState": last.unwrap_or_default()})
        })
        .collect();
    let conditions: Vec<Value> =
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
            .into_iter()
            .map(|kind| {
                let holds = ready || !kind.ends_with("Ready");
                let word = if holds { "True" } else { "False" };
                let former = before
                    .iter()
                    .flat_map(|status| status.conditions.iter().flatten())
                    .find(|condition| condition.type_ == kind && condition.status == word)
                    .and_then(|condition| condition.last_transition_time.clone());
                let since = former.map_or_else(|| now.clone(), |time| time.0.to_string());
                json!({"type": kind, "status": word, "lastTransitionTime": since})
            })
            .collect();
    let start = before
        .and_then(|status| status.start_time.clone())
        .map_or_else(|| now.clone(), |time| time.0.to_string());
    json!({"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}], "startTime": start, "conditions": conditions, "containerStatuses": containers})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(annotations: Value, policy: &str, status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "annotations": annotations},
            "spec": {"restartPolicy": policy, "containers": [{"name": "main"}]}, "status": status}))
        .unwrap()
    }

    /// Plays a pod for some steps.
    fn played(annotations: Value, policy: &str, steps: usize) -> Vec<(u64, Play)> {
        let mut now = pod(annotations, policy, json!({"phase": "Pending"}));
        let mut seen = Vec::new();
        for _ in 0..steps {
            let Some((delay, play)) = next(&now) else { break };
            seen.push((u64::try_from(delay.as_millis()).unwrap(), play));
            now.status = Some(serde_json::from_value(status(&now, "10.128.0.1", play)).unwrap());
        }
        seen
    }

    #[test]
    fn a_pod_becomes_ready_after_its_time_and_stays_so() {
        assert_eq!(played(json!({}), "Always", 5), [(0, Play::Running { ready: true })]);
        assert_eq!(
            played(json!({READY_AFTER: "500", READY: "false"}), "Always", 5),
            [(500, Play::Running { ready: false })]
        );
    }

    #[test]
    fn a_pod_that_ends_is_restarted_or_not_as_its_policy_says() {
        assert_eq!(
            played(json!({EXIT_CODE: "0", EXIT_AFTER: "100"}), "OnFailure", 5),
            [(0, Play::Running { ready: true }), (100, Play::Ended { exit_code: 0 })]
        );
        assert_eq!(
            played(json!({EXIT_CODE: "3"}), "Always", 5),
            [
                (0, Play::Running { ready: true }),
                (0, Play::Waiting { exit_code: 3, restarts: 1 }),
                (10_000, Play::Running { ready: true }),
                (0, Play::Waiting { exit_code: 3, restarts: 2 }),
                (20_000, Play::Running { ready: true }),
            ]
        );
    }

    #[test]
    fn readiness_follows_the_annotation() {
        let mut running = pod(json!({}), "Always", json!({"phase": "Pending"}));
        let (_, play) = next(&running).unwrap();
        running.status =
            Some(serde_json::from_value(status(&running, "10.128.0.1", play)).unwrap());
        assert_eq!(next(&running), None);
        running.annotations_mut().insert(READY.to_owned(), "false".to_owned());
        assert_eq!(next(&running), Some((Duration::ZERO, Play::Running { ready: false })));
    }
}
