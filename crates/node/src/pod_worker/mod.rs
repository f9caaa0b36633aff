//! One worker per pod: observe, ask the planner, act.

mod checks;
mod containers;
mod ending;
mod images;
mod sandbox;

pub(crate) use ending::remove_everything;

use crate::agent::{Change, Shared};
use crate::probes::{self, Finding, Place, Report, Which};
use crate::{environment, volumes};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use network::PodRef;
use planner::pod::back_off::BackOffs;
use planner::pod::{
    Observed, Obstacle, Probed, Seen, State, is_over, next_step, past_deadline, status,
};
use runtime::{
    ContainerConfig, ContainerState, Image, Mount, Resources, RuntimeError, SandboxConfig,
    SandboxStatus, Security,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;

/// How long something that failed for reasons of its own rests before it is tried again.
const RETRY: Duration = Duration::from_secs(1);

struct Worker {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    /// What is wanted of the pod by now, for whoever works long.
    wanted: watch::Receiver<Option<Arc<Pod>>>,
    reference: PodRef,
    ip: Option<Ipv4Addr>,
    places: Option<BTreeMap<String, PathBuf>>,
    back_offs: BackOffs,
    obstacles: BTreeMap<String, Obstacle>,
    pull_waits: BTreeMap<String, Duration>,
    /// Why each container's last pull failed.
    pull_errors: BTreeMap<String, String>,
    probed: BTreeMap<String, Probed>,
    probes: BTreeMap<String, Vec<JoinHandle<()>>>,
    reports: mpsc::Sender<Report>,
    /// The status that was written last.
    written: Option<PodStatus>,
    /// Crashes that were told already.
    told: BTreeMap<String, u32>,
    adopted: bool,
}

/// What the worker does after a turn.
enum Next {
    Wait(Option<Duration>),
    Again,
}

/// Runs a pod from its arrival at the node until it is gone.
pub(crate) async fn run(shared: Arc<Shared>, mut pods: watch::Receiver<Option<Arc<Pod>>>) {
    let Some(pod) = pods.borrow_and_update().clone() else { return };
    let reference = PodRef {
        id: pod.uid().unwrap_or_default(),
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
    };
    let mut changes = shared.changes.subscribe();
    let (reports, mut reported) = mpsc::channel(64);
    let mut worker = Worker {
        shared,
        pod,
        wanted: pods.clone(),
        reference,
        ip: None,
        places: None,
        back_offs: BackOffs::default(),
        obstacles: BTreeMap::new(),
        pull_waits: BTreeMap::new(),
        pull_errors: BTreeMap::new(),
        probed: BTreeMap::new(),
        probes: BTreeMap::new(),
        reports,
        written: None,
        told: BTreeMap::new(),
        adopted: false,
    };
    loop {
        let latest = pods.borrow_and_update().clone();
        match latest {
            Some(pod) => worker.pod = pod,
            None => return worker.bury().await,
        }
        if worker.pod.metadata.deletion_timestamp.is_some() {
            return worker.terminate(&mut pods).await;
        }
        let pause = match worker.turn().await {
            Ok(Next::Again) => continue,
            Ok(Next::Wait(pause)) => pause,
            Err(error) => {
                tracing::warn!(
                    namespace = worker.reference.namespace,
                    name = worker.reference.name,
                    error,
                    "a pod's turn failed and is tried again"
                );
                Some(RETRY)
            }
        };
        tokio::select! {
            changed = pods.changed() => if changed.is_err() { return },
            change = relevant(&mut changes, &worker.reference) => if let Change::Configuration(..) = change { volumes::refresh(&worker.shared, &worker.pod, worker.ip).await },
            Some(report) = reported.recv() => worker.hear(report).await,
            () = tokio::time::sleep(pause.unwrap_or(Duration::from_secs(3600))) => {}
        }
        while let Ok(report) = reported.try_recv() {
            worker.hear(report).await;
        }
    }
}

/// The next change that may concern this pod.
async fn relevant(changes: &mut broadcast::Receiver<Change>, pod: &PodRef) -> Change {
    loop {
        match changes.recv().await {
            Ok(Change::Runtime(sandbox)) if sandbox != pod.id => {}
            Ok(Change::Configuration(namespace, _)) if namespace != pod.namespace => {}
            Ok(change) => return change,
            // Something was missed: look at everything.
            Err(broadcast::error::RecvError::Lagged(_)) => return Change::Runtime(pod.id.clone()),
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn seen(sandbox: Option<&SandboxStatus>, messages: &dyn Fn(&str, u32) -> String) -> Vec<Seen> {
    let containers = sandbox.map(|sandbox| sandbox.containers.as_slice()).unwrap_or_default();
    containers
        .iter()
        .map(|container| Seen {
            name: container.name.clone(),
            id: container.id.clone(),
            attempt: container.attempt,
            image_id: images::exact_name(container),
            state: match &container.state {
                ContainerState::Created => State::Created,
                ContainerState::Running { started_at, .. } => {
                    State::Running { started_at: *started_at }
                }
                ContainerState::Exited {
                    started_at,
                    finished_at,
                    exit_code,
                    oom_killed,
                    message,
                } => {
                    let message = if message.is_empty() {
                        messages(&container.name, container.attempt)
                    } else {
                        message.clone()
                    };
                    State::Exited {
                        started_at: *started_at,
                        finished_at: *finished_at,
                        exit_code: *exit_code,
                        oom_killed: *oom_killed,
                        message,
                    }
                }
            },
        })
        .collect()
}

impl Worker {
    fn spec(&self) -> &k8s_openapi::api::core::v1::PodSpec {
        static EMPTY: std::sync::OnceLock<k8s_openapi::api::core::v1::PodSpec> =
            std::sync::OnceLock::new();
        self.pod.spec.as_ref().unwrap_or_else(|| EMPTY.get_or_init(Default::default))
    }

    fn host_network(&self) -> bool {
        self.spec().host_network == Some(true)
    }

    fn container(&self, name: &str) -> Option<Container> {
        let spec = self.spec();
        spec.init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
            .find(|container| container.name == name)
            .cloned()
    }

    async fn sandbox(&self) -> Option<SandboxStatus> {
        self.shared.config.runtime.status(&self.reference.id).await.ok()
    }

    fn seen(&self, sandbox: Option<&SandboxStatus>) -> Vec<Seen> {
        seen(sandbox, &|name, attempt| self.termination_message(name, attempt))
    }

    /// What a container wrote into its termination message file, or the end of its log where that counts.
    fn termination_message(&self, name: &str, attempt: u32) -> String {
        let file = self.message_file(name, attempt);
        let text = std::fs::read(&file)
            .map(|bytes| String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]).into_owned())
            .unwrap_or_default();
        let fallback = self.container(name).is_some_and(|container| {
            container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError")
        });
        if text.is_empty() && fallback {
            return crate::kubelet_api::last_lines(&self.log_path(name, attempt), 80, 2048);
        }
        text
    }

    fn message_file(&self, name: &str, attempt: u32) -> PathBuf {
        volumes::pod_folder(&self.shared, &self.reference.id)
            .join("messages")
            .join(format!("{name}-{attempt}"))
    }

    fn log_path(&self, name: &str, attempt: u32) -> PathBuf {
        crate::kubelet_api::log_path(&self.shared.config.data_dir, &self.reference, name, attempt)
    }

    fn tell(&self, container: Option<&str>, kind: &str, reason: &str, message: &str) {
        self.shared.recorder.tell(&self.pod, container, kind, reason, message);
    }

    /// Observes, decides, acts, reports.
    async fn turn(&mut self) -> Result<Next, String> {
        let mut sandbox = self.sandbox().await;
        self.adopt(sandbox.as_ref()).await;
        let ended = self
            .pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            .is_some_and(|phase| phase == "Succeeded" || phase == "Failed");
        if ended {
            // What has ended stays so; its logs are kept until it is deleted.
            if sandbox.as_ref().is_some_and(|sandbox| sandbox.ready) {
                self.stop_all(sandbox.as_ref(), Duration::from_secs(30)).await?;
                self.shared
                    .config
                    .runtime
                    .stop_pod_sandbox(&self.reference.id)
                    .await
                    .map_err(|error| error.to_string())?;
            }
            return Ok(Next::Wait(None));
        }
        if self.is_over(sandbox.as_ref()) {
            if sandbox.is_some() {
                self.stop_all(sandbox.as_ref(), self.grace()).await?;
            }
            sandbox = self.sandbox().await;
            self.report(sandbox.as_ref()).await?;
            return Ok(Next::Wait(None));
        }
        if let Err(pause) = self.ready_to_start(&mut sandbox).await {
            self.report(sandbox.as_ref()).await?;
            return Ok(Next::Wait(Some(pause)));
        }
        self.follow_containers(sandbox.as_ref());
        let step = self.with_observed(sandbox.as_ref(), next_step);
        for (name, _) in &step.backing_off {
            self.tell_back_off(name, sandbox.as_ref());
        }
        let acted = !step.start.is_empty();
        if acted {
            self.report(sandbox.as_ref()).await?;
        }
        for (name, attempt) in step.start {
            self.start(&name, attempt).await;
        }
        if acted {
            return Ok(Next::Again);
        }
        self.report(sandbox.as_ref()).await?;
        Ok(Next::Wait(step.look_again_after))
    }

    fn is_over(&self, sandbox: Option<&SandboxStatus>) -> bool {
        self.with_observed(sandbox, |observed| is_over(observed) || past_deadline(observed))
    }

    fn with_observed<T>(
        &self,
        sandbox: Option<&SandboxStatus>,
        decide: impl FnOnce(&Observed<'_>) -> T,
    ) -> T {
        let seen = self.seen(sandbox);
        let ip = self.ip.map(|ip| ip.to_string());
        decide(&Observed {
            pod: &self.pod,
            seen: &seen,
            probed: &self.probed,
            obstacles: &self.obstacles,
            back_offs: &self.back_offs,
            ip: ip.as_deref(),
            now: Timestamp::now(),
        })
    }

    /// Containers of an earlier server go on; what was known of them stands in the pod's status.
    async fn adopt(&mut self, sandbox: Option<&SandboxStatus>) {
        if std::mem::replace(&mut self.adopted, true) {
            return;
        }
        let statuses = self.pod.status.iter().flat_map(|status| {
            status
                .container_statuses
                .iter()
                .flatten()
                .chain(status.init_container_statuses.iter().flatten())
        });
        for status in statuses {
            let id = status
                .container_id
                .as_deref()
                .and_then(|id| id.strip_prefix("abide://"))
                .unwrap_or_default();
            let running = sandbox.is_some_and(|sandbox| {
                sandbox.ready
                    && sandbox
                        .containers
                        .iter()
                        .any(|c| c.id == id && matches!(c.state, ContainerState::Running { .. }))
            });
            if running {
                self.probed.insert(
                    id.to_owned(),
                    Probed { started: status.started == Some(true), ready: status.ready },
                );
            }
        }
    }

    fn tell_back_off(&mut self, name: &str, sandbox: Option<&SandboxStatus>) {
        let attempt = sandbox
            .into_iter()
            .flat_map(|sandbox| &sandbox.containers)
            .filter(|container| container.name == name)
            .map(|container| container.attempt)
            .max()
            .unwrap_or(0);
        if self.told.insert(name.to_owned(), attempt) != Some(attempt) {
            let pod = format!(
                "{}_{}({})",
                self.reference.name, self.reference.namespace, self.reference.id
            );
            self.tell(
                Some(name),
                "Warning",
                "BackOff",
                &format!("Back-off restarting failed container {name} in pod {pod}"),
            );
        }
    }

    /// Writes the status, if it differs from what was written.
    async fn report(&mut self, sandbox: Option<&SandboxStatus>) -> Result<(), String> {
        let host_ip = self.shared.config.node_ip.to_string();
        let now = self.with_observed(sandbox, |observed| status(observed, &host_ip));
        if self.written.as_ref() == Some(&now) {
            return Ok(());
        }
        let api: Api<Pod> =
            Api::namespaced(self.shared.config.client.clone(), &self.reference.namespace);
        let mut value = serde_json::to_value(&now).map_err(|error| error.to_string())?;
        // A merge patch keeps what it does not name: what is no more is named as absent.
        if let Some(former) = self
            .written
            .as_ref()
            .or(self.pod.status.as_ref())
            .and_then(|former| serde_json::to_value(former).ok())
        {
            for key in former.as_object().into_iter().flatten().map(|(key, _)| key) {
                if value.get(key).is_none() {
                    value[key] = serde_json::Value::Null;
                }
            }
        }
        match api
            .patch_status(
                &self.reference.name,
                &PatchParams::default(),
                &Patch::Merge(json!({"metadata": {"uid": self.reference.id}, "status": value})),
            )
            .await
        {
            Ok(pod) => {
                self.written = Some(now);
                // Times of conditions are kept from what is stored.
                self.pod = Arc::new(pod);
                Ok(())
            }
            // Gone, or another pod of that name: the watch tells.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn grace(&self) -> Duration {
        let seconds = self
            .pod
            .metadata
            .deletion_grace_period_seconds
            .or(self.spec().termination_grace_period_seconds)
            .unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }
}
