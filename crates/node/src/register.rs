//! The Node object: made once, kept alive.

use crate::agent::Shared;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How often the node says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// As many pods as upstream's kubelet takes.
const MAX_PODS: u32 = 110;

/// Registers the node and goes on saying that it is alive.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut first = true;
    loop {
        if let Err(error) = beat(&shared, first).await {
            tracing::warn!(node = shared.config.node_name, %error, "the node could not say that it is alive");
            tokio::time::sleep(Duration::from_millis(500)).await;
            continue;
        }
        first = false;
        tokio::time::sleep(HEARTBEAT).await;
    }
}

async fn beat(shared: &Shared, first: bool) -> Result<(), kube::Error> {
    let config = &shared.config;
    let name = &config.node_name;
    let nodes: Api<Node> = Api::all(config.client.clone());
    if first {
        match nodes.create(&PostParams::default(), &node(name, &config.pod_cidr)).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => drop(other?),
        }
        let status = json!({"status": status(shared, &nodes.get(name).await?)});
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
    }
    let leases: Api<Lease> = Api::namespaced(config.client.clone(), "kube-node-lease");
    let spec = json!({"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(Timestamp::now())});
    match leases.patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let lease: Lease =
                serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))
                    .map_err(kube::Error::SerdeError)?;
            leases.create(&PostParams::default(), &lease).await.map(drop)
        }
        other => other.map(drop),
    }
}

fn node(name: &str, pod_cidr: &str) -> Node {
    let labels = json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": arch(), "node-role.kubernetes.io/control-plane": ""});
    let node = json!({"metadata": {"name": name, "labels": labels}, "spec": {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr]}});
    serde_json::from_value(node).unwrap_or_default()
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn status(shared: &Shared, before: &Node) -> Value {
    let config = &shared.config;
    let memory_kib = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            text.lines().find_map(|line| {
                line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
            })
        })
        .unwrap_or(0);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let amounts = json!({"cpu": cores.to_string(), "memory": format!("{memory_kib}Ki"), "pods": MAX_PODS.to_string()});
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
    let since = |kind: &str, status: &str| {
        let conditions = before.status.as_ref().and_then(|status| status.conditions.as_ref());
        let kept = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == kind && condition.status == status);
        kept.and_then(|condition| condition.last_transition_time.as_ref())
            .map_or(now, |time| time.0)
            .to_string()
    };
    let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({"type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": now.to_string(), "lastTransitionTime": since(kind, status)});
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let os = read("/etc/os-release")
        .lines()
        .find_map(|line| {
            line.strip_prefix("PRETTY_NAME=").map(|name| name.trim_matches('"').to_owned())
        })
        .unwrap_or_default();
    json!({
        "capacity": amounts, "allocatable": amounts,
        "addresses": [{"type": "InternalIP", "address": config.node_ip.to_string()}, {"type": "Hostname", "address": config.node_name}],
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ],
        "nodeInfo": {"machineID": read("/etc/machine-id"), "systemUUID": "", "bootID": read("/proc/sys/kernel/random/boot_id"), "kernelVersion": read("/proc/sys/kernel/osrelease"),
            "osImage": os, "containerRuntimeVersion": format!("abide://{}", env!("CARGO_PKG_VERSION")), "kubeletVersion": format!("{}+abide", config.kubernetes_version),
            "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": arch()},
    })
}
