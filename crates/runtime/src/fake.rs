//! Containers and images in memory, for tests of the rooms above: nothing runs, everything is said and done at once.
//!
//! The fakes keep the contract of the traits (see `conformance`): ids, life-cycle, errors, events. A test plays the
//! part of the kernel: [`FakeRuntime::exit_container`], [`FakeRuntime::lose_sandbox`], [`FakeRuntime::on_exec`].

use crate::images::reference::Reference;
use crate::{
    ContainerConfig, ContainerId, ContainerRuntime, ContainerState, ContainerStatus, ExecIo,
    ExecRequest, Image, ImageStore, PullError, RuntimeError, RuntimeEvent, SandboxConfig,
    SandboxStatus,
};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast;

/// How many events a listener may lag behind before it loses the oldest.
const EVENT_BACKLOG: usize = 1024;

/// What an exec answers: its output, its error output, its exit code.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExecAnswer {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Exit code.
    pub exit_code: i32,
}

type ExecHandler = Arc<dyn Fn(&str, &ExecRequest) -> ExecAnswer + Send + Sync>;

/// A [`ContainerRuntime`] in memory.
pub struct FakeRuntime {
    state: Mutex<State>,
    events: broadcast::Sender<RuntimeEvent>,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, Sandbox>,
    made: u64,
    start_errors: BTreeMap<String, String>,
    exec: Option<ExecHandler>,
    calls: Vec<String>,
    pids: i32,
    ignore_stop: bool,
}

struct Sandbox {
    config: SandboxConfig,
    ready: bool,
    containers: Vec<Container>,
}

struct Container {
    config: ContainerConfig,
    status: ContainerStatus,
}

impl fmt::Debug for FakeRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeRuntime").field("sandboxes", &self.lock().sandboxes.len()).finish()
    }
}

impl Default for FakeRuntime {
    fn default() -> Self {
        FakeRuntime { state: Mutex::default(), events: broadcast::channel(EVENT_BACKLOG).0 }
    }
}

impl FakeRuntime {
    /// No sandbox yet.
    pub fn new() -> Self {
        FakeRuntime::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a running container's main process, as if of its own accord. Returns whether there was one.
    pub fn exit_container(&self, sandbox: &str, id: &str, exit_code: i32) -> bool {
        self.end(sandbox, id, exit_code, false)
    }

    /// Ends a running container as the kernel does when memory runs out.
    pub fn oom_kill_container(&self, sandbox: &str, id: &str) -> bool {
        self.end(sandbox, id, 137, true)
    }

    fn end(&self, sandbox: &str, id: &str, exit_code: i32, oom_killed: bool) -> bool {
        let ended = self.lock().end(sandbox, id, exit_code, oom_killed);
        if ended {
            let event = RuntimeEvent::ContainerExited {
                sandbox: sandbox.to_owned(),
                container: id.to_owned(),
            };
            // Nobody listening is no error: events are hints, `list` is the truth.
            let _ = self.events.send(event);
        }
        ended
    }

    /// Lets a sandbox's supervisor die, and its containers with it.
    pub fn lose_sandbox(&self, id: &str) -> bool {
        let lost = self.lock().stop_sandbox(id);
        if lost {
            // As above.
            let _ = self.events.send(RuntimeEvent::SandboxLost { sandbox: id.to_owned() });
        }
        lost
    }

    /// From now on containers of this image cannot be started.
    pub fn fail_start(&self, image_id: &str, message: &str) {
        self.lock().start_errors.insert(image_id.to_owned(), message.to_owned());
    }

    /// Containers of this image can be started again.
    pub fn allow_start(&self, image_id: &str) {
        self.lock().start_errors.remove(image_id);
    }

    /// From now on containers ignore their stop signal: [`ContainerRuntime::stop_container`] waits for its whole grace
    /// period (on tokio's clock) or for [`FakeRuntime::exit_container`].
    pub fn ignore_stop_signals(&self, ignore: bool) {
        self.lock().ignore_stop = ignore;
    }

    /// Answers every exec from now on (given: the container's name). Without it, exec succeeds with no output.
    pub fn on_exec(
        &self,
        handler: impl Fn(&str, &ExecRequest) -> ExecAnswer + Send + Sync + 'static,
    ) {
        self.lock().exec = Some(Arc::new(handler));
    }

    /// Every changing call until now, in order: `verb sandbox[/container name]`.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// What a container was made from.
    pub fn container_config(&self, sandbox: &str, id: &str) -> Option<ContainerConfig> {
        self.lock().container(sandbox, id).ok().map(|container| container.config.clone())
    }

    /// The newest container of that name.
    pub fn container_named(&self, sandbox: &str, name: &str) -> Option<ContainerStatus> {
        let state = self.lock();
        let containers = &state.sandboxes.get(sandbox)?.containers;
        containers
            .iter()
            .rev()
            .find(|container| container.config.name == name)
            .map(|c| c.status.clone())
    }
}

impl State {
    fn container(&mut self, sandbox: &str, id: &str) -> Result<&mut Container, RuntimeError> {
        self.sandboxes
            .get_mut(sandbox)
            .ok_or_else(|| RuntimeError::NotFound(format!("sandbox {sandbox}")))?
            .containers
            .iter_mut()
            .find(|container| container.status.id == id)
            .ok_or_else(|| RuntimeError::NotFound(format!("container {id}")))
    }

    fn end(&mut self, sandbox: &str, id: &str, exit_code: i32, oom_killed: bool) -> bool {
        let Ok(container) = self.container(sandbox, id) else { return false };
        let ContainerState::Running { started_at, .. } = container.status.state else {
            return false;
        };
        container.status.state = ContainerState::Exited {
            started_at,
            finished_at: now(),
            exit_code,
            oom_killed,
            message: String::new(),
        };
        true
    }

    fn stop_sandbox(&mut self, id: &str) -> bool {
        let Some(sandbox) = self.sandboxes.get_mut(id) else { return false };
        sandbox.ready = false;
        let running: Vec<_> =
            sandbox.containers.iter().map(|container| container.status.id.clone()).collect();
        for container in running {
            self.end(id, &container, 137, false);
        }
        true
    }

    fn note(&mut self, verb: &str, sandbox: &str, container: Option<&str>) {
        let name = container
            .and_then(|id| self.container(sandbox, id).ok())
            .map(|container| format!("/{}", container.config.name))
            .unwrap_or_default();
        self.calls.push(format!("{verb} {sandbox}{name}"));
    }
}

impl Sandbox {
    fn status(&self) -> SandboxStatus {
        SandboxStatus {
            config: self.config.clone(),
            ready: self.ready,
            network_namespace: (!self.config.host_network)
                .then(|| PathBuf::from(format!("/run/fake/{}/ns/net", self.config.id))),
            containers: self.containers.iter().map(|container| container.status.clone()).collect(),
        }
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[async_trait]
impl ContainerRuntime for FakeRuntime {
    async fn run_pod_sandbox(&self, config: &SandboxConfig) -> Result<SandboxStatus, RuntimeError> {
        let mut state = self.lock();
        state.note("run_pod_sandbox", &config.id, None);
        if let Some(existing) = state.sandboxes.get(&config.id) {
            if existing.ready {
                return Ok(existing.status());
            }
            return Err(RuntimeError::Other(format!(
                "sandbox {} exists and is not ready",
                config.id
            )));
        }
        let sandbox = Sandbox { config: config.clone(), ready: true, containers: Vec::new() };
        let status = sandbox.status();
        state.sandboxes.insert(config.id.clone(), sandbox);
        Ok(status)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        state.note("stop_pod_sandbox", id, None);
        state.stop_sandbox(id);
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        state.note("remove_pod_sandbox", id, None);
        state.stop_sandbox(id);
        state.sandboxes.remove(id);
        Ok(())
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let mut state = self.lock();
        state.made += 1;
        let id = format!("{:064x}", state.made);
        let place = state
            .sandboxes
            .get_mut(sandbox)
            .ok_or_else(|| RuntimeError::NotFound(format!("sandbox {sandbox}")))?;
        if !place.ready {
            return Err(RuntimeError::Other(format!("sandbox {sandbox} is not ready")));
        }
        if place
            .containers
            .iter()
            .any(|c| c.config.name == config.name && c.config.attempt == config.attempt)
        {
            let text = format!(
                "container {} attempt {} exists in sandbox {sandbox}",
                config.name, config.attempt
            );
            return Err(RuntimeError::Other(text));
        }
        let status = ContainerStatus {
            id: id.clone(),
            name: config.name.clone(),
            attempt: config.attempt,
            image_id: config.image_id.clone(),
            state: ContainerState::Created,
            log_path: config.log_path.clone(),
            labels: config.labels.clone(),
        };
        place.containers.push(Container { config: config.clone(), status });
        state.note("create_container", sandbox, Some(&id));
        Ok(id)
    }

    async fn start_container(&self, sandbox: &str, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        state.note("start_container", sandbox, Some(id));
        state.pids += 1;
        let pid = 100_000 + state.pids;
        let errors = state.start_errors.clone();
        let container = state.container(sandbox, id)?;
        if container.status.state != ContainerState::Created {
            return Err(RuntimeError::Other(format!("container {id} was started before")));
        }
        if let Some(message) = errors.get(&container.config.image_id) {
            container.status.state = ContainerState::Exited {
                started_at: 0,
                finished_at: now(),
                exit_code: 128,
                oom_killed: false,
                message: message.clone(),
            };
            return Err(RuntimeError::Start(message.clone()));
        }
        container.status.state = ContainerState::Running { started_at: now(), pid };
        Ok(())
    }

    async fn stop_container(
        &self,
        sandbox: &str,
        id: &str,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let patient = {
            let mut state = self.lock();
            state.note("stop_container", sandbox, Some(id));
            state.ignore_stop && !grace.is_zero()
        };
        if patient {
            let exited = RuntimeEvent::ContainerExited {
                sandbox: sandbox.to_owned(),
                container: id.to_owned(),
            };
            let mut events = self.events();
            let ended = async { while events.next().await.is_some_and(|event| event != exited) {} };
            // Either way the container is dead below.
            let _ = tokio::time::timeout(grace, ended).await;
            self.end(sandbox, id, 137, false);
        } else {
            self.end(sandbox, id, 143, false);
        }
        Ok(())
    }

    async fn remove_container(&self, sandbox: &str, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        state.note("remove_container", sandbox, Some(id));
        if let Ok(container) = state.container(sandbox, id)
            && matches!(container.status.state, ContainerState::Running { .. })
        {
            return Err(RuntimeError::Other(format!("container {id} is running")));
        }
        if let Some(place) = state.sandboxes.get_mut(sandbox) {
            place.containers.retain(|container| container.status.id != id);
        }
        Ok(())
    }

    async fn exec(
        &self,
        sandbox: &str,
        id: &str,
        request: ExecRequest,
    ) -> Result<ExecIo, RuntimeError> {
        let (name, handler) = {
            let mut state = self.lock();
            let handler = state.exec.clone();
            let container = state.container(sandbox, id)?;
            if !matches!(container.status.state, ContainerState::Running { .. }) {
                return Err(RuntimeError::NotRunning(id.to_owned()));
            }
            (container.config.name.clone(), handler)
        };
        let answer = handler.map(|handler| handler(&name, &request)).unwrap_or_default();
        Ok(streams(&request, answer))
    }

    async fn attach(&self, sandbox: &str, id: &str, stdin: bool) -> Result<ExecIo, RuntimeError> {
        let mut state = self.lock();
        let container = state.container(sandbox, id)?;
        if !matches!(container.status.state, ContainerState::Running { .. }) {
            return Err(RuntimeError::NotRunning(id.to_owned()));
        }
        let request = ExecRequest {
            command: Vec::new(),
            tty: container.config.tty,
            stdin: container.config.stdin && stdin,
        };
        Ok(streams(&request, ExecAnswer::default()))
    }

    async fn status(&self, id: &str) -> Result<SandboxStatus, RuntimeError> {
        let state = self.lock();
        let sandbox = state
            .sandboxes
            .get(id)
            .ok_or_else(|| RuntimeError::NotFound(format!("sandbox {id}")))?;
        Ok(sandbox.status())
    }

    async fn list(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        Ok(self.lock().sandboxes.values().map(Sandbox::status).collect())
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        crate::event_stream(self.events.subscribe())
    }
}

fn streams(request: &ExecRequest, answer: ExecAnswer) -> ExecIo {
    let code = answer.exit_code;
    let resize = request.tty.then(|| {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(8);
        tokio::spawn(async move { while receiver.recv().await.is_some() {} });
        sender
    });
    ExecIo {
        stdin: request.stdin.then(|| Box::new(tokio::io::sink()) as _),
        stdout: Box::new(Cursor::new(answer.stdout)),
        stderr: (!request.tty).then(|| Box::new(Cursor::new(answer.stderr)) as _),
        resize,
        exit: Box::pin(async move { Ok(code) }),
    }
}

/// An [`ImageStore`] in memory.
#[derive(Debug, Default)]
pub struct FakeImages {
    state: Mutex<ImagesState>,
}

#[derive(Debug, Default)]
struct ImagesState {
    present: BTreeMap<String, Image>,
    registry: BTreeMap<String, Image>,
    pull_errors: BTreeMap<String, String>,
}

impl FakeImages {
    /// No image yet.
    pub fn new() -> Self {
        FakeImages::default()
    }

    fn lock(&self) -> MutexGuard<'_, ImagesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an image present. Returns its id.
    ///
    /// # Panics
    /// If the name cannot be read.
    pub fn add(&self, name: &str) -> String {
        let image = image(name);
        let id = image.id.clone();
        self.lock().present.insert(image.names[0].clone(), image);
        id
    }

    /// Puts an image into the registry: absent, but can be pulled.
    ///
    /// # Panics
    /// If the name cannot be read.
    pub fn publish(&self, name: &str) {
        let image = image(name);
        self.lock().registry.insert(image.names[0].clone(), image);
    }

    /// From now on pulling this image fails with that text.
    ///
    /// # Panics
    /// If the name cannot be read.
    pub fn fail_pull(&self, name: &str, message: &str) {
        self.lock().pull_errors.insert(image(name).names[0].clone(), message.to_owned());
    }
}

fn image(name: &str) -> Image {
    use sha2::{Digest, Sha256};
    let name = Reference::parse(name).expect("a test's image name can be read").to_string();
    let id = Sha256::digest(name.as_bytes())
        .iter()
        .fold("sha256:".to_owned(), |id, byte| id + &format!("{byte:02x}"));
    Image { id, names: vec![name], size_bytes: 1, user: String::new() }
}

#[async_trait]
impl ImageStore for FakeImages {
    async fn resolve(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        let state = self.lock();
        if reference.starts_with("sha256:") {
            return Ok(state.present.values().find(|image| image.id == reference).cloned());
        }
        let name =
            Reference::parse(reference).map_err(|error| RuntimeError::Config(error.to_string()))?;
        Ok(state.present.get(&name.to_string()).cloned())
    }

    async fn list(&self) -> Result<Vec<Image>, RuntimeError> {
        Ok(self.lock().present.values().cloned().collect())
    }

    async fn import(&self, archive: &Path, name: Option<&str>) -> Result<Vec<Image>, RuntimeError> {
        let name = name.ok_or_else(|| {
            RuntimeError::Other(format!("import {}: no name given", archive.display()))
        })?;
        let id = self.add(name);
        Ok(self.lock().present.values().filter(|image| image.id == id).cloned().collect())
    }

    async fn remove(&self, reference: &str) -> Result<(), RuntimeError> {
        let name =
            Reference::parse(reference).map_err(|error| RuntimeError::Config(error.to_string()))?;
        match self.lock().present.remove(&name.to_string()) {
            Some(_) => Ok(()),
            None => Err(RuntimeError::NotFound(format!("image {name}"))),
        }
    }

    async fn pull(&self, reference: &str) -> Result<Image, PullError> {
        let name = Reference::parse(reference)
            .map_err(|error| PullError::InvalidName(error.to_string()))?;
        let name = name.to_string();
        let mut state = self.lock();
        let failed = |why: &str| {
            PullError::Failed(format!("failed to pull and unpack image \"{name}\": {why}"))
        };
        if let Some(message) = state.pull_errors.get(&name) {
            return Err(failed(message));
        }
        let image = state.registry.get(&name).or(state.present.get(&name)).cloned();
        let image = image.ok_or_else(|| failed("not found"))?;
        state.present.insert(name, image.clone());
        Ok(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A2: the fake keeps the contract that the embedded runtime keeps.
    #[tokio::test(start_paused = true)]
    async fn the_fake_runtime_passes_the_conformance_suite() {
        let images = FakeImages::new();
        let image_id = images.add("busybox");
        crate::conformance::life_cycle(
            &FakeRuntime::new(),
            &image_id,
            Path::new("/nowhere"),
            &["true"],
        )
        .await;
    }

    #[tokio::test]
    async fn the_fake_image_store_passes_the_conformance_suite() {
        let images = FakeImages::new();
        images.add("busybox");
        crate::conformance::images(&images, "busybox").await;
    }

    #[tokio::test]
    async fn an_exit_is_told_to_listeners() {
        let runtime = FakeRuntime::new();
        let mut events = runtime.events();
        runtime
            .run_pod_sandbox(&SandboxConfig { id: "a".into(), ..SandboxConfig::default() })
            .await
            .unwrap();
        let id = runtime.create_container("a", &ContainerConfig::default()).await.unwrap();
        runtime.start_container("a", &id).await.unwrap();
        assert!(runtime.exit_container("a", &id, 3));
        let event = RuntimeEvent::ContainerExited { sandbox: "a".into(), container: id };
        assert_eq!(events.next().await, Some(event));
    }
}
