//! One worker per pod: observe, ask the planner, act.

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
    ContainerConfig, ContainerState, Mount, Resources, RuntimeError, SandboxConfig, SandboxStatus,
    Security,
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
/// Image pulls wait so long at most.
const LONGEST_PULL_WAIT: Duration = Duration::from_secs(300);

struct Worker {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    reference: PodRef,
    ip: Option<Ipv4Addr>,
    places: Option<BTreeMap<String, PathBuf>>,
    back_offs: BackOffs,
    obstacles: BTreeMap<String, Obstacle>,
    pull_waits: BTreeMap<String, Duration>,
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
        reference,
        ip: None,
        places: None,
        back_offs: BackOffs::default(),
        obstacles: BTreeMap::new(),
        pull_waits: BTreeMap::new(),
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
            image_id: container.image_id.clone(),
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

    /// Volumes, sandbox, address. An error is how long to wait.
    async fn ready_to_start(
        &mut self,
        sandbox: &mut Option<SandboxStatus>,
    ) -> Result<(), Duration> {
        if self.places.is_none() {
            match volumes::prepare(&self.shared, &self.pod, self.ip).await {
                Ok(places) => self.places = Some(places),
                Err(why) => {
                    self.tell(None, "Warning", "FailedMount", &why);
                    return Err(RETRY);
                }
            }
        }
        if sandbox.as_ref().is_none_or(|sandbox| !sandbox.ready) || self.ip.is_none() {
            match self.make_sandbox(sandbox.as_ref()).await {
                Ok(made) => *sandbox = Some(made),
                Err(why) => {
                    self.tell(
                        None,
                        "Warning",
                        "FailedCreatePodSandBox",
                        &format!("Failed to create pod sandbox: {why}"),
                    );
                    return Err(RETRY);
                }
            }
        }
        Ok(())
    }

    async fn make_sandbox(
        &mut self,
        before: Option<&SandboxStatus>,
    ) -> Result<SandboxStatus, String> {
        let config = &self.shared.config;
        if before.is_some_and(|sandbox| !sandbox.ready) {
            // Its supervisor is dead (or the machine was started anew): what it had is made anew, the tries are counted on.
            return self.remake_sandbox().await;
        }
        let hostname = if self.host_network() {
            host_name()
        } else {
            self.spec().hostname.clone().unwrap_or_else(|| self.reference.name.clone())
        };
        let labels = BTreeMap::from([
            ("namespace".to_owned(), self.reference.namespace.clone()),
            ("name".to_owned(), self.reference.name.clone()),
        ]);
        let wanted = SandboxConfig {
            id: self.reference.id.clone(),
            hostname: hostname.chars().take(63).collect(),
            host_network: self.host_network(),
            labels,
            resources: Resources::default(),
        };
        let made =
            config.runtime.run_pod_sandbox(&wanted).await.map_err(|error| error.to_string())?;
        self.ip = Some(match &made.network_namespace {
            Some(namespace) => {
                let ip = config
                    .network
                    .add(&self.reference, namespace)
                    .await
                    .map_err(|error| error.to_string())?
                    .ip;
                config.dns.set_pod(ip, Some(&self.reference.namespace));
                ip
            }
            None => config.node_ip,
        });
        self.write_etc()?;
        Ok(made)
    }

    /// A new sandbox in the place of a dead one. The number of tries is what the status said.
    async fn remake_sandbox(&mut self) -> Result<SandboxStatus, String> {
        self.end_probes();
        self.shared
            .config
            .runtime
            .remove_pod_sandbox(&self.reference.id)
            .await
            .map_err(|error| error.to_string())?;
        self.shared.config.network.del(&self.reference).await.map_err(|error| error.to_string())?;
        self.ip = None;
        Box::pin(self.make_sandbox(None)).await
    }

    fn etc(&self, name: &str) -> PathBuf {
        volumes::pod_folder(&self.shared, &self.reference.id).join(name)
    }

    fn write_etc(&self) -> Result<(), String> {
        let Some(ip) = self.ip else { return Ok(()) };
        let folder = volumes::pod_folder(&self.shared, &self.reference.id);
        let write = |name: &str, text: String| {
            std::fs::write(folder.join(name), text)
                .map_err(|error| format!("write {name}: {error}"))
        };
        std::fs::create_dir_all(folder.join("messages"))
            .map_err(|error| format!("make the pod's folder: {error}"))?;
        write("hosts", environment::hosts(&self.shared, &self.pod, ip))?;
        write("resolv.conf", environment::resolv_conf(&self.shared, &self.pod))
    }

    /// Starts one try of a container. What keeps it from starting becomes an obstacle, with an event.
    async fn start(&mut self, name: &str, attempt: u32) {
        let Some(container) = self.container(name) else { return };
        // After a reboot or a lost sandbox the number of tries goes on from what was reported.
        let reported = self
            .pod
            .status
            .iter()
            .flat_map(|status| {
                status
                    .container_statuses
                    .iter()
                    .flatten()
                    .chain(status.init_container_statuses.iter().flatten())
            })
            .find(|status| status.name == name);
        let attempt = match reported {
            Some(status) if attempt == 0 && status.container_id.is_some() => {
                u32::try_from(status.restart_count).unwrap_or(0) + 1
            }
            _ => attempt,
        };
        let image_id = match self.image(&container).await {
            Ok(id) => id,
            Err(obstacle) => return drop(self.obstacles.insert(name.to_owned(), obstacle)),
        };
        let config = match self.container_config(&container, attempt, image_id).await {
            Ok(config) => config,
            Err(why) => {
                return self.hinder(
                    name,
                    "CreateContainerConfigError",
                    &why,
                    "Failed",
                    &format!("Error: {why}"),
                );
            }
        };
        let runtime = self.shared.config.runtime.clone();
        let id = match runtime.create_container(&self.reference.id, &config).await {
            Ok(id) => id,
            Err(RuntimeError::Config(why)) => {
                return self.hinder(
                    name,
                    "CreateContainerConfigError",
                    &why,
                    "Failed",
                    &format!("Error: {why}"),
                );
            }
            Err(error) => {
                return self.hinder(
                    name,
                    "CreateContainerError",
                    &error.to_string(),
                    "Failed",
                    &format!("Error: {error}"),
                );
            }
        };
        self.obstacles.remove(name);
        self.tell(Some(name), "Normal", "Created", &format!("Created container: {name}"));
        if attempt > 0 {
            self.back_offs.step(name, Timestamp::now());
        }
        match runtime.start_container(&self.reference.id, &id).await {
            Ok(()) => {
                self.tell(Some(name), "Normal", "Started", &format!("Started container {name}"));
                self.post_start(&container, &id).await;
            }
            Err(error) => self.tell(
                Some(name),
                "Warning",
                "Failed",
                &format!("Error: failed to start container {name:?}: {error}"),
            ),
        }
        self.forget_old_tries(name, attempt).await;
    }

    /// The last try's predecessor is kept for `logs --previous`; older ones go.
    async fn forget_old_tries(&self, name: &str, attempt: u32) {
        let Some(sandbox) = self.sandbox().await else { return };
        for old in sandbox
            .containers
            .iter()
            .filter(|container| container.name == name && container.attempt + 1 < attempt)
        {
            if let Err(error) =
                self.shared.config.runtime.remove_container(&self.reference.id, &old.id).await
            {
                tracing::debug!(%error, "an old container could not be removed");
            }
        }
    }

    fn hinder(&mut self, name: &str, reason: &str, why: &str, event: &str, message: &str) {
        self.tell(Some(name), "Warning", event, message);
        let until = Timestamp::now().checked_add(RETRY).unwrap_or_default();
        self.obstacles.insert(
            name.to_owned(),
            Obstacle { reason: reason.to_owned(), message: why.to_owned(), until },
        );
    }

    /// The image's id; an imported image counts as the newest there is.
    async fn image(&mut self, container: &Container) -> Result<String, Obstacle> {
        let (name, image) = (container.name.clone(), container.image.clone().unwrap_or_default());
        let soon = |reason: &str, message: String, wait: Duration| Obstacle {
            reason: reason.to_owned(),
            message,
            until: Timestamp::now().checked_add(wait).unwrap_or_default(),
        };
        match self.shared.config.images.resolve(&image).await {
            Ok(Some(found)) => {
                self.tell(
                    Some(&name),
                    "Normal",
                    "Pulled",
                    &format!("Container image {image:?} already present on machine"),
                );
                self.pull_waits.remove(&name);
                return self.may_run(container, &found).map(|()| found.id);
            }
            Ok(None) => {}
            Err(error) => {
                let message = format!("Failed to apply default image tag {image:?}: {error}");
                self.tell(Some(&name), "Warning", "InspectFailed", &message);
                return Err(soon("InvalidImageName", message, LONGEST_PULL_WAIT));
            }
        }
        if container.image_pull_policy.as_deref() == Some("Never") {
            let message =
                format!("Container image {image:?} is not present with pull policy of Never");
            self.tell(Some(&name), "Warning", "ErrImageNeverPull", &message);
            return Err(soon("ErrImageNeverPull", message, Duration::from_secs(10)));
        }
        let waited =
            self.obstacles.get(&name).is_some_and(|obstacle| obstacle.reason == "ErrImagePull");
        if waited {
            // Between two tries the pod says that it backs off.
            let wait = self.pull_waits.get(&name).copied().unwrap_or(Duration::from_secs(10));
            let message = format!("Back-off pulling image {image:?}");
            self.tell(Some(&name), "Normal", "BackOff", &message);
            self.tell(Some(&name), "Warning", "Failed", "Error: ImagePullBackOff");
            return Err(soon("ImagePullBackOff", message, wait));
        }
        self.tell(Some(&name), "Normal", "Pulling", &format!("Pulling image {image:?}"));
        match self.shared.config.images.pull(&image).await {
            Ok(found) => Ok(found.id),
            Err(error) => {
                self.tell(
                    Some(&name),
                    "Warning",
                    "Failed",
                    &format!("Failed to pull image {image:?}: {error}"),
                );
                self.tell(Some(&name), "Warning", "Failed", "Error: ErrImagePull");
                let wait = self
                    .pull_waits
                    .get(&name)
                    .map_or(Duration::from_secs(10), |wait| (*wait * 2).min(LONGEST_PULL_WAIT));
                self.pull_waits.insert(name, wait);
                Err(soon("ErrImagePull", error.to_string(), Duration::from_millis(500)))
            }
        }
    }

    /// `runAsNonRoot`.
    fn may_run(&self, container: &Container, image: &runtime::Image) -> Result<(), Obstacle> {
        let (own, pods) =
            (container.security_context.as_ref(), self.spec().security_context.as_ref());
        let non_root = own
            .and_then(|context| context.run_as_non_root)
            .or(pods.and_then(|context| context.run_as_non_root))
            == Some(true);
        let user = own
            .and_then(|context| context.run_as_user)
            .or(pods.and_then(|context| context.run_as_user));
        let root = user.map_or_else(
            || ["", "0", "root"].contains(&image.user.split(':').next().unwrap_or_default()),
            |uid| uid == 0,
        );
        if non_root && root {
            let message = "container has runAsNonRoot and image will run as root".to_owned();
            return Err(Obstacle {
                reason: "CreateContainerConfigError".to_owned(),
                message,
                until: Timestamp::now().checked_add(RETRY * 10).unwrap_or_default(),
            });
        }
        Ok(())
    }

    async fn container_config(
        &self,
        container: &Container,
        attempt: u32,
        image_id: String,
    ) -> Result<ContainerConfig, String> {
        let ip = self.ip.ok_or("the pod has no address yet")?;
        let env = environment::variables(&self.shared, &self.pod, container, ip).await?;
        let known: BTreeMap<String, String> = env.iter().cloned().collect();
        let expanded = |words: &Option<Vec<String>>| {
            words.iter().flatten().map(|word| environment::expand(word, &known)).collect()
        };
        let mut mounts = volumes::mounts(
            container,
            self.places.as_ref().ok_or("the pod's volumes are not ready")?,
        )?;
        let message_path = container
            .termination_message_path
            .clone()
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| "/dev/termination-log".to_owned());
        let message_file = self.message_file(&container.name, attempt);
        std::fs::write(&message_file, "")
            .map_err(|error| format!("make {}: {error}", message_file.display()))?;
        if let Err(error) = std::fs::set_permissions(
            &message_file,
            std::os::unix::fs::PermissionsExt::from_mode(0o666),
        ) {
            tracing::debug!(%error, "a termination message can be written by root alone");
        }
        let taken = |path: &str| {
            container.volume_mounts.iter().flatten().any(|mount| mount.mount_path == path)
        };
        for (name, path) in [("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")] {
            let the_hosts_own = self.host_network() && name == "hosts";
            if !taken(path) && !the_hosts_own {
                mounts.push(Mount {
                    host_path: self.etc(name),
                    container_path: path.into(),
                    readonly: false,
                });
            }
        }
        mounts.push(Mount {
            host_path: message_file,
            container_path: message_path.into(),
            readonly: false,
        });
        Ok(ContainerConfig {
            name: container.name.clone(),
            attempt,
            image_id,
            command: expanded(&container.command),
            args: expanded(&container.args),
            env,
            working_dir: container.working_dir.clone(),
            mounts,
            resources: resources(container),
            security: self.security(container),
            tty: container.tty == Some(true),
            stdin: container.stdin == Some(true),
            log_path: self.log_path(&container.name, attempt),
            labels: BTreeMap::new(),
        })
    }

    fn security(&self, container: &Container) -> Security {
        let own = container.security_context.clone().unwrap_or_default();
        let pods = self.spec().security_context.clone().unwrap_or_default();
        let mut groups: Vec<i64> = pods.supplemental_groups.unwrap_or_default();
        groups.extend(pods.fs_group);
        let capabilities = own.capabilities.unwrap_or_default();
        Security {
            run_as_user: own.run_as_user.or(pods.run_as_user),
            run_as_group: own.run_as_group.or(pods.run_as_group),
            supplemental_groups: groups,
            privileged: own.privileged == Some(true),
            readonly_rootfs: own.read_only_root_filesystem == Some(true),
            no_new_privileges: own.allow_privilege_escalation == Some(false),
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
        }
    }

    /// Probes follow containers: new ones are probed, ended ones no longer.
    fn follow_containers(&mut self, sandbox: Option<&SandboxStatus>) {
        let running: Vec<(String, String)> = sandbox
            .into_iter()
            .flat_map(|sandbox| &sandbox.containers)
            .filter(|container| matches!(container.state, ContainerState::Running { .. }))
            .map(|container| (container.id.clone(), container.name.clone()))
            .collect();
        let ended: Vec<String> = self
            .probes
            .keys()
            .filter(|id| running.iter().all(|(running, _)| running != *id))
            .cloned()
            .collect();
        for id in ended {
            self.probes.remove(&id).into_iter().flatten().for_each(|task| task.abort());
            self.probed.remove(&id);
        }
        for (id, name) in running {
            if self.probes.contains_key(&id) {
                continue;
            }
            let Some(container) = self.container(&name) else { continue };
            self.probes.insert(id.clone(), Vec::new());
            let adopted = self.probed.get(&id).cloned();
            let fresh = Probed {
                started: container.startup_probe.is_none(),
                ready: container.readiness_probe.is_none(),
            };
            let started = adopted.as_ref().unwrap_or(&fresh).started;
            self.probed.entry(id.clone()).or_insert(fresh);
            if started {
                self.probe(&id, &container, &[Which::Readiness, Which::Liveness]);
            } else {
                self.probe(&id, &container, &[Which::Startup]);
            }
        }
    }

    fn probe(&mut self, id: &str, container: &Container, which: &[Which]) {
        let Some(ip) = self.ip else { return };
        for which in which {
            let probe = match which {
                Which::Startup => &container.startup_probe,
                Which::Readiness => &container.readiness_probe,
                Which::Liveness => &container.liveness_probe,
            };
            let Some(probe) = probe.clone().filter(|probe| probe.grpc.is_none()) else { continue };
            let place =
                Place { sandbox: self.reference.id.clone(), container_id: id.to_owned(), ip };
            let task = tokio::spawn(probes::run(
                self.shared.clone(),
                *which,
                probe,
                container.clone(),
                place,
                self.reports.clone(),
            ));
            self.probes.entry(id.to_owned()).or_default().push(task);
        }
    }

    fn end_probes(&mut self) {
        std::mem::take(&mut self.probes).into_values().flatten().for_each(|task| task.abort());
        self.probed.clear();
    }

    /// Takes in what a probe found.
    async fn hear(&mut self, report: Report) {
        let Some(sandbox) = self.sandbox().await else { return };
        let Some(name) = sandbox
            .containers
            .iter()
            .find(|container| container.id == report.container_id)
            .map(|container| container.name.clone())
        else {
            return;
        };
        let Some(container) = self.container(&name) else { return };
        let word = match report.which {
            Which::Startup => "Startup",
            Which::Readiness => "Readiness",
            Which::Liveness => "Liveness",
        };
        match (report.which, report.finding) {
            (_, Finding::Failed(why)) => self.tell(
                Some(&name),
                "Warning",
                "Unhealthy",
                &format!("{word} probe failed: {why}"),
            ),
            (Which::Startup, Finding::Now(true)) => {
                if let Some(probed) = self.probed.get_mut(&report.container_id) {
                    probed.started = true;
                }
                self.probes
                    .insert(report.container_id.clone(), Vec::new())
                    .into_iter()
                    .flatten()
                    .for_each(|task| task.abort());
                self.probe(&report.container_id, &container, &[Which::Readiness, Which::Liveness]);
            }
            (Which::Readiness, Finding::Now(now)) => {
                if let Some(probed) = self.probed.get_mut(&report.container_id) {
                    probed.ready = now;
                }
            }
            (Which::Liveness, Finding::Now(true)) => {}
            (Which::Startup | Which::Liveness, Finding::Now(false)) => {
                let words = word.to_lowercase();
                self.tell(
                    Some(&name),
                    "Normal",
                    "Killing",
                    &format!("Container {name} failed {words} probe, will be restarted"),
                );
                if let Err(error) = self
                    .shared
                    .config
                    .runtime
                    .stop_container(&self.reference.id, &report.container_id, self.grace())
                    .await
                {
                    tracing::warn!(name = self.reference.name, %error, "a container that failed its probe could not be stopped");
                }
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

    async fn post_start(&self, container: &Container, id: &str) {
        let Some(hook) =
            container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref())
        else {
            return;
        };
        if let Err(why) = self.hook(hook, container, id).await {
            self.tell(
                Some(&container.name),
                "Warning",
                "FailedPostStartHook",
                &format!("PostStartHook failed: {why}"),
            );
            if let Err(error) = self
                .shared
                .config
                .runtime
                .stop_container(&self.reference.id, id, self.grace())
                .await
            {
                tracing::warn!(%error, "a container whose hook failed could not be stopped");
            }
        }
    }

    async fn hook(
        &self,
        hook: &LifecycleHandler,
        container: &Container,
        id: &str,
    ) -> Result<(), String> {
        let place = Place {
            sandbox: self.reference.id.clone(),
            container_id: id.to_owned(),
            ip: self.ip.unwrap_or(Ipv4Addr::LOCALHOST),
        };
        if let Some(exec) = &hook.exec {
            return probes::run_command(
                &self.shared,
                &place,
                exec.command.clone().unwrap_or_default(),
            )
            .await;
        }
        if let Some(get) = &hook.http_get {
            let port = probes::port(&get.port, container)?;
            return probes::http_get(
                &get.host.clone().unwrap_or_else(|| place.ip.to_string()),
                port,
                get.path.as_deref().unwrap_or("/"),
                "",
            )
            .await;
        }
        if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0)))
                .await;
        }
        Ok(())
    }

    /// Stops what runs: the containers together, then the sidecars, each after its hook, all within the grace period.
    async fn stop_all(
        &mut self,
        sandbox: Option<&SandboxStatus>,
        grace: Duration,
    ) -> Result<(), String> {
        self.end_probes();
        let deadline = tokio::time::Instant::now() + grace;
        let running: Vec<(String, String)> = sandbox
            .into_iter()
            .flat_map(|sandbox| &sandbox.containers)
            .filter(|container| matches!(container.state, ContainerState::Running { .. }))
            .map(|container| (container.id.clone(), container.name.clone()))
            .collect();
        let is_init = |name: &str| {
            self.spec().init_containers.iter().flatten().any(|container| container.name == name)
        };
        let (sidecars, main): (Vec<_>, Vec<_>) =
            running.into_iter().partition(|(_, name)| is_init(name));
        futures::future::try_join_all(
            main.iter().map(|(id, name)| self.stop_one(id, name, deadline)),
        )
        .await?;
        for (id, name) in sidecars.iter().rev() {
            self.stop_one(id, name, deadline).await?;
        }
        Ok(())
    }

    async fn stop_one(
        &self,
        id: &str,
        name: &str,
        deadline: tokio::time::Instant,
    ) -> Result<(), String> {
        self.tell(Some(name), "Normal", "Killing", &format!("Stopping container {name}"));
        if let Some(container) = self.container(name)
            && let Some(hook) =
                container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref())
            && let Ok(Err(why)) =
                tokio::time::timeout_at(deadline, self.hook(hook, &container, id)).await
        {
            self.tell(
                Some(name),
                "Warning",
                "FailedPreStopHook",
                &format!("PreStopHook failed: {why}"),
            );
        }
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        self.shared
            .config
            .runtime
            .stop_container(&self.reference.id, id, left)
            .await
            .map_err(|error| error.to_string())
    }

    /// The pod is being deleted: everything ends, then the object goes. A shorter grace period that comes meanwhile
    /// hurries it.
    async fn terminate(mut self, pods: &mut watch::Receiver<Option<Arc<Pod>>>) {
        loop {
            let sandbox = self.sandbox().await;
            let grace = self.grace();
            let hurried = async {
                loop {
                    if pods.changed().await.is_err() {
                        return;
                    }
                    let now = pods.borrow_and_update().clone();
                    if now.is_none_or(|pod| {
                        pod.metadata.deletion_grace_period_seconds.is_some_and(|seconds| {
                            Duration::from_secs(seconds.unsigned_abs()) < grace
                        })
                    }) {
                        return;
                    }
                }
            };
            let stopped = tokio::select! {
                stopped = self.stop_all(sandbox.as_ref(), grace) => stopped,
                () = hurried => Ok(()),
            };
            match stopped {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(
                        name = self.reference.name,
                        error,
                        "a pod could not be stopped and is tried again"
                    );
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        let last = self.sandbox().await;
        if let Err(error) = self.report(last.as_ref()).await {
            tracing::debug!(
                name = self.reference.name,
                error,
                "the last status of a pod could not be written"
            );
        }
        let (shared, reference) = (self.shared.clone(), self.reference.clone());
        self.bury().await;
        let api: Api<Pod> = Api::namespaced(shared.config.client.clone(), &reference.namespace);
        let only_this = Preconditions { uid: Some(reference.id.clone()), resource_version: None };
        let options = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(only_this),
            ..DeleteParams::default()
        };
        loop {
            match api.delete(&reference.name, &options).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => return,
                Err(error) => {
                    tracing::warn!(name = reference.name, %error, "a pod that has ended could not be deleted and is tried again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// The object is gone, or about to: nothing of the pod may stay.
    async fn bury(mut self) {
        self.end_probes();
        if let Some(ip) = self.ip.filter(|_| !self.host_network()) {
            self.shared.config.dns.set_pod(ip, None);
        }
        remove_everything(&self.shared, &self.reference).await;
    }
}

/// Removes sandbox, address and files; surely: it is tried until it is done.
pub(crate) async fn remove_everything(shared: &Arc<Shared>, pod: &PodRef) {
    loop {
        let removed = async {
            shared
                .config
                .runtime
                .remove_pod_sandbox(&pod.id)
                .await
                .map_err(|error| error.to_string())?;
            shared.config.network.del(pod).await.map_err(|error| error.to_string())
        };
        match removed.await {
            Ok(()) => break,
            Err(error) => {
                tracing::warn!(
                    namespace = pod.namespace,
                    name = pod.name,
                    error,
                    "a pod could not be removed and is tried again"
                );
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    volumes::remove(shared, &pod.id);
    crate::kubelet_api::remove_logs(&shared.config.data_dir, pod);
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// A container's limits as the kernel takes them. As upstream: `pkg/kubelet/kuberuntime/kuberuntime_container_linux.go`.
fn resources(container: &Container) -> Resources {
    let amount = |which: Option<
        &BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    >,
                  name: &str| {
        which
            .and_then(|amounts| amounts.get(name))
            .and_then(|amount| api::quantity::Quantity::parse(&amount.0).ok())
    };
    let resources = container.resources.clone().unwrap_or_default();
    let cpu_limit = amount(resources.limits.as_ref(), "cpu");
    let cpu_request = amount(resources.requests.as_ref(), "cpu").or(cpu_limit);
    let period = 100_000;
    Resources {
        cpu_shares: Some(cpu_request.map_or(2, |cpu| {
            (u64::try_from(cpu.milli_value()).unwrap_or(0) * 1024 / 1000).clamp(2, 262_144)
        })),
        cpu_quota: cpu_limit.map(|cpu| (cpu.milli_value() * 100).max(1000)),
        cpu_period: cpu_limit.map(|_| period),
        memory_limit_bytes: amount(resources.limits.as_ref(), "memory")
            .map(api::quantity::Quantity::value),
        pids_limit: None,
    }
}
