//! Nodes without containers: their pods become Ready at once. For tests of scale and of operators.

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// On a pod: milliseconds until it becomes Ready.
pub const READY_AFTER: &str = "abide.dev/simulated-ready-after-ms";
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
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
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
    } else if pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running")) {
        Ok(())
    } else {
        if let Some(delay) = pod.annotations().get(READY_AFTER).and_then(|text| text.parse().ok()) {
            tokio::time::sleep(std::time::Duration::from_millis(delay)).await;
        }
        let number = addresses.fetch_add(1, Ordering::Relaxed) % 0x00ff_0000;
        let ip = std::net::Ipv4Addr::from(0x0a80_0001 + number).to_string();
        api.patch_status(
            &name,
            &PatchParams::default(),
            &Patch::Merge(
                json!({"metadata": {"uid": pod.metadata.uid}, "status": running(pod, &ip)}),
            ),
        )
        .await
        .map(drop)
    };
    match result {
        // Gone or changed meanwhile: its next event tells.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other,
    }
}

fn running(pod: &Pod, ip: &str) -> Value {
    let now = whole_now();
    let containers: Vec<Value> = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .map(|container| {
            json!({"name": container.name, "image": container.image, "imageID": "", "ready": true,
        "started": true, "restartCount": 0, "state": {"running": {"startedAt": now}}})
        })
        .collect();
    let conditions: Vec<Value> =
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
            .into_iter()
            .map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": now}))
            .collect();
    json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": now, "conditions": conditions, "containerStatuses": containers})
}
