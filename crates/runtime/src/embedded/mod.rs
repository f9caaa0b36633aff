//! [`EmbeddedRuntime`]: sandboxes with a supervisor process each, containers by libcontainer.

mod bundle;
mod client;
mod sandbox;
mod streams;
mod users;

pub(crate) use streams::{receive_terminal, set_terminal_size};

use crate::images::Images;
use crate::shim::protocol::{Reply, Request, Start};
use crate::{
    ContainerConfig, ContainerId, ContainerRuntime, ContainerState, ContainerStatus, ExecIo, ExecRequest, RuntimeError, RuntimeEvent, SandboxConfig, SandboxStatus,
};
use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use sandbox::Sandbox;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// What the runtime is made from.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where sandboxes keep their state.
    pub state_dir: PathBuf,
    /// The images.
    pub images: Arc<Images>,
    /// The cgroup under which sandboxes live, e.g. `abide/pods`.
    pub cgroup_parent: String,
    /// How a supervisor is started: a program that calls [`crate::shim::branch_off`] first thing.
    pub shim: PathBuf,
}

/// Containers without any other program.
#[derive(Debug, Clone)]
pub struct EmbeddedRuntime {
    config: Arc<Config>,
    events: broadcast::Sender<RuntimeEvent>,
}

impl EmbeddedRuntime {
    /// Starts from what is there: supervisors of an earlier process are listened to again.
    pub async fn new(config: Config) -> Result<EmbeddedRuntime, RuntimeError> {
        std::fs::create_dir_all(&config.state_dir).map_err(|error| failed("make", &config.state_dir, &error))?;
        let runtime = EmbeddedRuntime { config: Arc::new(config), events: broadcast::channel(1024).0 };
        for sandbox in runtime.sandboxes()? {
            runtime.listen_to(&sandbox);
        }
        Ok(runtime)
    }

    fn sandbox(&self, id: &str) -> Sandbox {
        Sandbox::new(&self.config.state_dir, id, &self.config.cgroup_parent)
    }

    fn sandboxes(&self) -> Result<Vec<Sandbox>, RuntimeError> {
        let entries = std::fs::read_dir(&self.config.state_dir).map_err(|error| failed("read", &self.config.state_dir, &error))?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).map(|id| self.sandbox(&id)).collect())
    }

    /// Turns what a supervisor says into events.
    fn listen_to(&self, sandbox: &Sandbox) {
        let (events, sandbox) = (self.events.clone(), sandbox.clone());
        tokio::spawn(async move {
            let mut exits = match client::watch(&sandbox.socket()).await {
                Ok(exits) => exits,
                Err(error) => return tracing::debug!(sandbox = sandbox.id, %error, "a supervisor cannot be listened to"),
            };
            // Nobody may be listening to us.
            while let Some(container) = exits.next().await {
                let _unheard = events.send(RuntimeEvent::ContainerExited { sandbox: sandbox.id.clone(), container });
            }
            let _unheard = events.send(RuntimeEvent::SandboxLost { sandbox: sandbox.id.clone() });
        });
    }

    async fn ask(&self, sandbox: &Sandbox, request: Request) -> Result<Reply, RuntimeError> {
        client::ask(&sandbox.socket(), request).await.map_err(|error| RuntimeError::Other(format!("supervisor of sandbox {}: {error}", sandbox.id)))
    }
}

#[async_trait]
impl ContainerRuntime for EmbeddedRuntime {
    async fn run_pod_sandbox(&self, config: &SandboxConfig) -> Result<SandboxStatus, RuntimeError> {
        let sandbox = self.sandbox(&config.id);
        if let Ok(status) = self.status(&config.id).await {
            if status.ready {
                return Ok(status);
            }
            self.remove_pod_sandbox(&config.id).await?;
        }
        let (made, made_config, shim) = (sandbox.clone(), config.clone(), self.config.shim.clone());
        blocking(move || made.make(&made_config, &shim)).await?;
        self.listen_to(&sandbox);
        self.status(&config.id).await
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let sandbox = self.sandbox(id);
        // A supervisor that is gone has nothing left to stop but what its death may have left.
        match client::ask(&sandbox.socket(), Request::Shutdown).await {
            Ok(_) => client::wait_until_gone(&sandbox.socket()).await,
            Err(error) => tracing::debug!(sandbox = id, %error, "the supervisor is gone already"),
        }
        blocking(move || sandbox.kill_leftovers()).await
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        self.stop_pod_sandbox(id).await?;
        let sandbox = self.sandbox(id);
        blocking(move || sandbox.remove()).await
    }

    async fn create_container(&self, sandbox: &str, config: &ContainerConfig) -> Result<ContainerId, RuntimeError> {
        let (sandbox, config, images) = (self.sandbox(sandbox), config.clone(), self.config.images.clone());
        blocking(move || bundle::make(&sandbox, &config, &images)).await
    }

    async fn start_container(&self, sandbox: &str, id: &str) -> Result<(), RuntimeError> {
        let sandbox = self.sandbox(sandbox);
        let (status, made) = (sandbox.container_status(id)?, sandbox.container_config(id)?);
        let start = Start { status, bundle: sandbox.container(id), cgroup: sandbox.container_cgroup(id), tty: made.tty, stdin: made.stdin };
        match self.ask(&sandbox, Request::Start(Box::new(start))).await? {
            Reply::StartFailed(why) => Err(RuntimeError::Start(why)),
            Reply::Refused(why) => Err(RuntimeError::Other(why)),
            Reply::Done | Reply::Exited { .. } => Ok(()),
        }
    }

    async fn stop_container(&self, sandbox: &str, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let place = self.sandbox(sandbox);
        let is_running = || place.container_status(id).is_ok_and(|status| matches!(status.state, ContainerState::Running { .. }));
        if !is_running() {
            return Ok(());
        }
        let mut exits = match client::watch(&place.socket()).await {
            Ok(exits) => exits,
            // Without its supervisor nothing of the sandbox runs.
            Err(_) => return Ok(()),
        };
        let signal = place.container_config(id).map_or(nix::libc::SIGTERM, |config| config.stop_signal);
        for (signal, patience) in [(signal, grace), (nix::libc::SIGKILL, Duration::from_secs(30))] {
            if !is_running() {
                return Ok(());
            }
            self.ask(&place, Request::Signal { id: id.to_owned(), signal }).await?;
            let ended = async { while exits.next().await.is_some_and(|ended| ended != id) {} };
            if tokio::time::timeout(patience, ended).await.is_ok() {
                return Ok(());
            }
        }
        Err(RuntimeError::Other(format!("container {id} does not end")))
    }

    async fn remove_container(&self, sandbox: &str, id: &str) -> Result<(), RuntimeError> {
        let (sandbox, id) = (self.sandbox(sandbox), id.to_owned());
        blocking(move || sandbox.remove_container(&id)).await
    }

    async fn exec(&self, sandbox: &str, id: &str, request: ExecRequest) -> Result<ExecIo, RuntimeError> {
        let sandbox = self.sandbox(sandbox);
        match sandbox.container_status(id)?.state {
            ContainerState::Running { .. } => streams::exec(&sandbox, id, request, &self.config.shim).await,
            _ => Err(RuntimeError::NotRunning(id.to_owned())),
        }
    }

    async fn attach(&self, sandbox: &str, id: &str) -> Result<ExecIo, RuntimeError> {
        let sandbox = self.sandbox(sandbox);
        let tty = sandbox.container_config(id)?.tty;
        streams::attach(&sandbox, id, tty).await
    }

    async fn status(&self, id: &str) -> Result<SandboxStatus, RuntimeError> {
        let sandbox = self.sandbox(id);
        let ready = client::is_alive(&sandbox.socket()).await;
        blocking(move || sandbox.status(ready)).await
    }

    async fn list(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        let mut found = Vec::new();
        for sandbox in self.sandboxes()? {
            match self.status(&sandbox.id).await {
                Ok(status) => found.push(status),
                // Made half when its maker died: nothing runs in it.
                Err(error) => {
                    tracing::info!(sandbox = sandbox.id, %error, "an unfinished sandbox is removed");
                    self.remove_pod_sandbox(&sandbox.id).await?;
                }
            }
        }
        Ok(found)
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        futures::stream::unfold(self.events.subscribe(), |mut events| async move {
            loop {
                match events.recv().await {
                    Ok(event) => return Some((event, events)),
                    Err(broadcast::error::RecvError::Lagged(missed)) => tracing::warn!(missed, "events of the runtime were missed"),
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
        .boxed()
    }
}

/// Runs what waits for the kernel where waiting hurts nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| RuntimeError::Other(error.to_string()))?
}

fn failed(what: &str, path: &Path, error: &dyn std::fmt::Display) -> RuntimeError {
    RuntimeError::Other(format!("{what} {}: {error}", path.display()))
}

/// Why a process could not be started, in the words that users of containerd and runc know.
pub(crate) fn start_error(error: &dyn std::error::Error) -> String {
    let mut words = vec![error.to_string()];
    let mut source = error.source();
    while let Some(inner) = source {
        if !words.contains(&inner.to_string()) {
            words.push(inner.to_string());
        }
        source = inner.source();
    }
    words.join(": ")
}

/// What is known of a container before it starts.
fn created(id: &str, config: &ContainerConfig) -> ContainerStatus {
    ContainerStatus {
        id: id.to_owned(),
        name: config.name.clone(),
        attempt: config.attempt,
        image_id: config.image_id.clone(),
        state: ContainerState::Created,
        log_path: config.log_path.clone(),
        labels: config.labels.clone(),
    }
}
