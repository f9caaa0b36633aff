//! Containers and images, in the words of CRI and OCI. This room knows nothing of Kubernetes objects.
//!
//! Every pod sandbox has a small supervisor process of its own (`shim`), which owns the sandbox's containers, their
//! logs and exit codes and outlives whoever asked for it: after the death of the server everything runs on, and
//! [`ContainerRuntime::list`] tells the whole truth to its successor.
//!
//! This is the only room where `unsafe` is allowed.

pub mod embedded;
pub mod images;
pub mod shim;

mod beneath;
pub mod cgroup;
mod layout;
mod mounts;

pub use embedded::EmbeddedRuntime;

pub mod conformance;
pub mod fake;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Identifies a pod sandbox: chosen by the caller (the pod's UID), safe as a file name.
pub type SandboxId = String;
/// Identifies a container: 64 hexadecimal digits, chosen by the runtime.
pub type ContainerId = String;

/// What a sandbox is made from.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SandboxConfig {
    /// Unique; also the directory name of the sandbox's state.
    pub id: SandboxId,
    /// Host name inside the UTS namespace.
    pub hostname: String,
    /// Share the host's network instead of having an own network namespace.
    pub host_network: bool,
    /// Free notes of the caller, given back by [`ContainerRuntime::list`].
    pub labels: BTreeMap<String, String>,
    /// Limits of the whole sandbox.
    pub resources: Resources,
}

/// cgroup limits.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Resources {
    /// Relative share of the processor (cgroup v1 `cpu.shares`); converted for v2.
    pub cpu_shares: Option<u64>,
    /// Microseconds of processor per period.
    pub cpu_quota: Option<i64>,
    /// Length of a period in microseconds.
    pub cpu_period: Option<u64>,
    /// Bytes of memory.
    pub memory_limit_bytes: Option<i64>,
    /// Number of processes.
    pub pids_limit: Option<i64>,
}

/// What a container is made from.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ContainerConfig {
    /// Name within its sandbox.
    pub name: String,
    /// Which try this is (the restart count); name and attempt are unique within the sandbox.
    pub attempt: u32,
    /// The image's id as [`ImageStore::resolve`] gave it.
    pub image_id: String,
    /// Replaces the image's entry point when not empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments when not empty (and is all that is used when `command` is set).
    pub args: Vec<String>,
    /// Added to the image's environment; later wins.
    pub env: Vec<(String, String)>,
    /// Replaces the image's working directory.
    pub working_dir: Option<String>,
    /// What is mounted into the container, in order.
    pub mounts: Vec<Mount>,
    /// Limits.
    pub resources: Resources,
    /// Who runs inside, and what it may do.
    pub security: Security,
    /// Give the main process a terminal.
    pub tty: bool,
    /// Keep standard input open (for attach).
    pub stdin: bool,
    /// Close standard input when the first who attached to it ends it, or leaves.
    #[serde(default)]
    pub stdin_once: bool,
    /// The log file, in CRI's format; made with its directory.
    pub log_path: PathBuf,
    /// Free notes of the caller, given back by [`ContainerRuntime::list`].
    pub labels: BTreeMap<String, String>,
}

/// A bind mount.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Mount {
    /// What, on the host.
    pub host_path: PathBuf,
    /// Where, in the container.
    pub container_path: PathBuf,
    /// Not writable.
    pub readonly: bool,
}

/// Who runs inside a container, and what it may do.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Security {
    /// User; `None` for the image's.
    pub run_as_user: Option<i64>,
    /// Group; `None` for the image's.
    pub run_as_group: Option<i64>,
    /// More groups.
    pub supplemental_groups: Vec<i64>,
    /// All capabilities and devices.
    pub privileged: bool,
    /// The root file system is read-only.
    pub readonly_rootfs: bool,
    /// `no_new_privs`.
    pub no_new_privileges: bool,
    /// Capabilities beyond the usual fourteen, without `CAP_`.
    pub add_capabilities: Vec<String>,
    /// Capabilities taken away, without `CAP_`; `ALL` for all.
    pub drop_capabilities: Vec<String>,
}

/// What the runtime knows of a sandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxStatus {
    /// Its configuration.
    pub config: SandboxConfig,
    /// Whether its supervisor lives. A sandbox that is not ready has no running container.
    pub ready: bool,
    /// Path of its network namespace; `None` with `host_network`.
    pub network_namespace: Option<PathBuf>,
    /// Its containers, oldest first.
    pub containers: Vec<ContainerStatus>,
}

/// What the runtime knows of a container.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ContainerStatus {
    /// Its id.
    pub id: ContainerId,
    /// Name within its sandbox.
    pub name: String,
    /// Which try.
    pub attempt: u32,
    /// Image id.
    pub image_id: String,
    /// Life-cycle.
    pub state: ContainerState,
    /// Log file.
    pub log_path: PathBuf,
    /// As given at creation.
    pub labels: BTreeMap<String, String>,
}

/// A container's life. Times are nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its main process runs.
    Running {
        /// When it was started.
        started_at: i64,
        /// The main process on the host.
        pid: i32,
    },
    /// Its main process has ended.
    Exited {
        /// When it was started; 0 if it never was.
        started_at: i64,
        /// When it ended.
        finished_at: i64,
        /// Exit code; 128 + signal if killed.
        exit_code: i32,
        /// Killed because it used too much memory.
        oom_killed: bool,
        /// Why it could not be started, if so (`reason` is then StartError).
        message: String,
    },
}

/// A change that nobody asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum RuntimeEvent {
    /// A container's main process has ended.
    ContainerExited {
        /// Where.
        sandbox: SandboxId,
        /// Which.
        container: ContainerId,
    },
    /// A supervisor has died, and all its containers with it.
    SandboxLost {
        /// Which.
        sandbox: SandboxId,
    },
}

/// What to run inside a container.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Give it a terminal (then standard error is part of standard output).
    pub tty: bool,
    /// Whether standard input will be given.
    pub stdin: bool,
}

/// A running exec. Dropping it kills the process.
pub struct ExecIo {
    /// Standard input; `None` if not asked for. Dropping it closes it.
    pub stdin: Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>>,
    /// Standard output.
    pub stdout: Box<dyn tokio::io::AsyncRead + Send + Unpin>,
    /// Standard error; `None` with a terminal.
    pub stderr: Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>>,
    /// Terminal sizes (columns, rows) can be sent here; `None` without a terminal.
    pub resize: Option<tokio::sync::mpsc::Sender<(u16, u16)>>,
    /// The exit code, once it ended (128 + signal if killed).
    pub exit: futures::future::BoxFuture<'static, Result<i32, RuntimeError>>,
}

impl fmt::Debug for ExecIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecIo").field("tty", &self.resize.is_some()).finish()
    }
}

/// Why the runtime refused.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No such sandbox, container or image.
    #[error("{0} not found")]
    NotFound(String),
    /// The container is not running.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// The container could not be made from its configuration (no such user, no command …): CreateContainerConfigError.
    #[error("{0}")]
    Config(String),
    /// Its process could not be started (no such file, permission denied …): StartError / RunContainerError.
    #[error("{0}")]
    Start(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Containers in sandboxes. CRI's verbs.
#[async_trait]
pub trait ContainerRuntime: Send + Sync + fmt::Debug {
    /// Makes the sandbox: its supervisor process, its network, IPC and UTS namespaces, its cgroup. Idempotent for an
    /// existing ready sandbox of the same id.
    async fn run_pod_sandbox(&self, config: &SandboxConfig) -> Result<SandboxStatus, RuntimeError>;
    /// Kills what runs in it and ends its supervisor. Idempotent.
    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    /// Removes all its state, mounts, cgroups (not the logs). Idempotent. Stops it first if need be.
    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    /// Makes a container (its root file system and bundle), without starting it.
    async fn create_container(
        &self,
        sandbox: &str,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError>;
    /// Starts it. When this returns, its main process runs (or has already ended).
    async fn start_container(&self, sandbox: &str, id: &str) -> Result<(), RuntimeError>;
    /// Sends the image's stop signal (else SIGTERM), after `grace` SIGKILL; returns when it has ended. Idempotent.
    async fn stop_container(
        &self,
        sandbox: &str,
        id: &str,
        grace: Duration,
    ) -> Result<(), RuntimeError>;
    /// Removes an ended container's state and root file system (not its log). Idempotent.
    async fn remove_container(&self, sandbox: &str, id: &str) -> Result<(), RuntimeError>;
    /// Runs a process inside a running container.
    async fn exec(
        &self,
        sandbox: &str,
        id: &str,
        request: ExecRequest,
    ) -> Result<ExecIo, RuntimeError>;
    /// Opens the standard streams of a running container's main process (`kubectl attach`): its output, and its input if
    /// it has one and `stdin` asks for it.
    async fn attach(&self, sandbox: &str, id: &str, stdin: bool) -> Result<ExecIo, RuntimeError>;
    /// One sandbox, now.
    async fn status(&self, id: &str) -> Result<SandboxStatus, RuntimeError>;
    /// The whole truth: every sandbox there is, also those that an earlier process made.
    async fn list(&self) -> Result<Vec<SandboxStatus>, RuntimeError>;
    /// Changes that nobody asked for, from now on.
    fn events(&self) -> BoxStream<'static, RuntimeEvent>;
}

/// An image that is present.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// `sha256:…` of its configuration.
    pub id: String,
    /// Its names, normalised (`docker.io/library/nginx:1.12`).
    pub names: Vec<String>,
    /// Bytes of its layers.
    pub size_bytes: u64,
    /// `User` of its configuration; empty for root.
    pub user: String,
}

/// The images that are present.
#[async_trait]
pub trait ImageStore: Send + Sync + fmt::Debug {
    /// The image that a reference (`nginx:1.12`, `busybox`, `name@sha256:…`) names, if present. Normalises as Docker does.
    async fn resolve(&self, reference: &str) -> Result<Option<Image>, RuntimeError>;
    /// All images.
    async fn list(&self) -> Result<Vec<Image>, RuntimeError>;
    /// Takes an OCI archive, a docker-archive (both may be gzip or zstd compressed) or a root file system tar; each
    /// layer is unpacked once. `name` overrides (and for a root file system tar is) its name.
    async fn import(
        &self,
        archive: &std::path::Path,
        name: Option<&str>,
    ) -> Result<Vec<Image>, RuntimeError>;
    /// Removes a name, and the image with its last name.
    async fn remove(&self, reference: &str) -> Result<(), RuntimeError>;
    /// Fetches an image from its registry.
    async fn pull(&self, reference: &str) -> Result<Image, PullError>;
}

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The reference cannot be read (`InvalidImageName`).
    #[error("{0}")]
    InvalidName(String),
    /// Everything else (`ErrImagePull`), in words for people.
    #[error("{0}")]
    Failed(String),
}

/// A listener's stream. Who lags far behind loses the oldest events: they are hints, [`ContainerRuntime::list`] is the truth.
fn event_stream(
    receiver: tokio::sync::broadcast::Receiver<RuntimeEvent>,
) -> BoxStream<'static, RuntimeEvent> {
    use tokio::sync::broadcast::error::RecvError;
    let stream = futures::stream::unfold(receiver, |mut receiver| async move {
        loop {
            match receiver.recv().await {
                Ok(event) => return Some((event, receiver)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    stream.boxed()
}

/// Removes a control group and all below it from every hierarchy, for who cleans up after a runtime that is no more. Absent
/// ones are fine; one that still holds a process is an error.
pub fn remove_control_group(path: &str) -> std::io::Result<()> {
    cgroup::Hierarchies::read()?.remove(path)
}
