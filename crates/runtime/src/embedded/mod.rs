//! Containers without any other program: libcontainer in a supervisor process per sandbox, overlayfs, control groups.
//!
//! The server asks, the supervisor does; what is true lies on disk (see `layout`), so that a server that comes later finds
//! everything. Nothing here blocks tokio's threads: files and mounts are for `spawn_blocking`.

mod capabilities;
mod client;
mod container;
mod spec;
mod streams;
mod users;

use crate::cgroup::Hierarchies;
use crate::images::Images;
use crate::layout::{self, RECORD_VERSION, SandboxDir, SandboxRecord};
use crate::shim::protocol::{Event, Request};
use crate::{
    ContainerConfig, ContainerId, ContainerRuntime, ContainerState, ExecIo, ExecRequest,
    RuntimeError, RuntimeEvent, SandboxConfig, SandboxStatus, mounts, shim,
};
use async_trait::async_trait;
use client::CallError;
use container::other;
use futures::stream::BoxStream;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::broadcast;

/// How many events a listener may lag behind before it loses the oldest.
const EVENT_BACKLOG: usize = 4096;
/// How long a supervisor may take to make its sandbox; usually it takes a few milliseconds.
const READY_SECONDS: u64 = 60;
/// How long a supervisor may take to end after it has been told to; then it is killed.
const END_SECONDS: u64 = 20;
/// How long a supervisor may take to end after it has closed its socket.
const END_MILLIS: u16 = 2_000;

/// How an [`EmbeddedRuntime`] is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where sandboxes' state lies. One runtime at a time uses it.
    pub state_dir: PathBuf,
    /// The images that containers are made from.
    pub images: Arc<Images>,
    /// The control group of all sandboxes, below the mount point of each hierarchy: `abide`, `abide/run-1`.
    pub cgroup_parent: String,
    /// How supervisors are started.
    pub shim: Shim,
    /// Sandboxes end with this process, however it ends: their containers are killed and their control groups removed (what they
    /// left on disk and mounted is not). For throw-away clusters.
    pub ephemeral: bool,
}

/// A command line that ends in [`crate::shim::main`]: an executable and what stands before that function's own arguments.
#[derive(Debug, Clone)]
pub struct Shim {
    /// The executable.
    pub executable: PathBuf,
    /// Its first arguments.
    pub arguments: Vec<OsString>,
}

impl Default for Shim {
    /// This program, with the subcommand `shim`.
    fn default() -> Self {
        Shim { executable: "/proc/self/exe".into(), arguments: vec![shim::SUBCOMMAND.into()] }
    }
}

impl From<PathBuf> for Shim {
    /// That program (by an absolute path), with the subcommand `shim`.
    fn from(executable: PathBuf) -> Self {
        Shim { executable, ..Shim::default() }
    }
}

impl Shim {
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.executable);
        command.args(&self.arguments).arg(verb).current_dir("/").env_clear();
        command
    }
}

/// Containers by libcontainer. See the module.
#[derive(Debug, Clone)]
pub struct EmbeddedRuntime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    boot_id: String,
    events: broadcast::Sender<RuntimeEvent>,
    book: Mutex<Book>,
}

/// What this process has under way.
#[derive(Debug, Default)]
struct Book {
    /// Sandboxes whose supervisor's events are listened to.
    watched: BTreeSet<String>,
    /// Sandboxes whose supervisor may end without being missed.
    stopping: BTreeSet<String>,
    /// One change of a sandbox at a time.
    locks: BTreeMap<String, Arc<tokio::sync::Mutex<()>>>,
}

impl EmbeddedRuntime {
    /// Opens the state directory, making it if need be. Sandboxes of an earlier process are found by
    /// [`ContainerRuntime::list`].
    pub fn new(mut config: Config) -> Result<Self, RuntimeError> {
        let failed = other("open the runtime's state");
        fs::create_dir_all(config.state_dir.join("sandboxes")).map_err(&failed)?;
        config.state_dir = config.state_dir.canonicalize().map_err(&failed)?;
        remove_fragments(&config.state_dir.join("sandboxes")).map_err(&failed)?;
        config.cgroup_parent = config.cgroup_parent.trim_matches('/').to_owned();
        if config.cgroup_parent.is_empty()
            || config.cgroup_parent.split('/').any(|part| matches!(part, "" | "." | ".."))
        {
            return Err(RuntimeError::Config(format!(
                "cgroup parent \"{}\" is no path",
                config.cgroup_parent
            )));
        }
        let boot_id = layout::boot_id().map_err(&failed)?;
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        Ok(EmbeddedRuntime {
            inner: Arc::new(Inner { config, boot_id, events, book: Mutex::default() }),
        })
    }

    /// Removes the control group of all sandboxes, once there is none left in it.
    pub async fn cleanup(&self) -> Result<(), RuntimeError> {
        let parent = self.inner.config.cgroup_parent.clone();
        blocking(move || {
            Hierarchies::read()
                .and_then(|hierarchies| hierarchies.remove(&parent))
                .map_err(other("clean up"))
        })
        .await
    }

    fn dir(&self, id: &str) -> Result<SandboxDir, RuntimeError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if id.is_empty() || id.len() > 128 || id.starts_with('.') || !id.bytes().all(good) {
            return Err(RuntimeError::Config(format!("\"{id}\" is no sandbox id")));
        }
        Ok(SandboxDir(self.inner.config.state_dir.join("sandboxes").join(id)))
    }

    fn existing(&self, id: &str) -> Result<SandboxDir, RuntimeError> {
        let dir = self.dir(id)?;
        if dir.record().exists() {
            Ok(dir)
        } else {
            Err(RuntimeError::NotFound(format!("sandbox {id}")))
        }
    }

    fn container(&self, sandbox: &str, id: &str) -> Result<SandboxDir, RuntimeError> {
        let dir = self.existing(sandbox)?;
        let known = id.len() == 64
            && id.bytes().all(|byte| byte.is_ascii_hexdigit())
            && dir.container(id).record().exists();
        if known { Ok(dir) } else { Err(RuntimeError::NotFound(format!("container {id}"))) }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.inner.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One change of a sandbox at a time.
    async fn lock(&self, id: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = self.book().locks.entry(id.to_owned()).or_default().clone();
        lock.lock_owned().await
    }

    /// Whether the supervisor lives; its events are listened to from now on.
    /// Not to be able to ask is an error: nobody is declared dead for want of a file descriptor.
    async fn watch(&self, id: &str, dir: &SandboxDir) -> Result<bool, RuntimeError> {
        let mut stream = match client::connect(dir).await {
            Ok(stream) => stream,
            Err(CallError::Gone) => return Ok(false),
            Err(CallError::Refused(error)) => return Err(error),
        };
        if self.book().watched.contains(id) {
            return Ok(true);
        }
        let mut inbound = Vec::new();
        match client::ask(&mut stream, &Request::Subscribe, &mut inbound).await {
            Ok(_) => {}
            Err(CallError::Gone) => return Ok(false),
            Err(CallError::Refused(error)) => return Err(error),
        }
        if !self.book().watched.insert(id.to_owned()) {
            return Ok(true);
        }
        let (runtime, sandbox) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            while let Ok(Some(Event::Exited { container })) =
                client::next(&mut stream, &mut inbound).await
            {
                runtime.tell(RuntimeEvent::ContainerExited { sandbox: sandbox.clone(), container });
            }
            let expected = {
                let mut book = runtime.book();
                book.watched.remove(&sandbox);
                book.stopping.contains(&sandbox)
            };
            if !expected {
                tracing::warn!(sandbox, "the supervisor of a sandbox has died");
                runtime.tell(RuntimeEvent::SandboxLost { sandbox });
            }
        });
        Ok(true)
    }

    fn tell(&self, event: RuntimeEvent) {
        // Nobody listening is no error: events are hints, `list` is the truth.
        let _ = self.inner.events.send(event);
    }

    async fn read_status(
        &self,
        id: &str,
        dir: SandboxDir,
    ) -> Result<Option<SandboxStatus>, RuntimeError> {
        let alive = self.watch(id, &dir).await?;
        let boot_id = self.inner.boot_id.clone();
        blocking(move || read_status(&dir, alive, &boot_id).map_err(other("read a sandbox"))).await
    }

    async fn start_supervisor(&self, dir: &SandboxDir) -> Result<(), RuntimeError> {
        let failed = other("start the sandbox's supervisor");
        let log = fs::File::options().create(true).append(true).open(dir.log()).map_err(&failed)?;
        let mut child = self
            .inner
            .config
            .shim
            .command(shim::SANDBOX)
            .arg(&dir.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .spawn()
            .map_err(&failed)?;
        let mut said = String::new();
        if let Some(stdout) = child.stdout.take() {
            let mut stdout = stdout.take(64 * 1024);
            let read = tokio::time::timeout(
                Duration::from_secs(READY_SECONDS),
                stdout.read_to_string(&mut said),
            );
            read.await.map_err(|error| failed(error.into()))?.map_err(&failed)?;
        }
        tokio::spawn(async move {
            // Only so that no zombie stays; its end is noticed by its socket.
            let _ = child.wait().await;
        });
        if said.trim() == shim::READY {
            return Ok(());
        }
        let log = fs::read_to_string(dir.log()).unwrap_or_default();
        Err(RuntimeError::Other(format!("failed to start sandbox: {} {}", said.trim(), log.trim())))
    }

    async fn stop(&self, id: &str, dir: &SandboxDir) -> Result<(), RuntimeError> {
        self.book().stopping.insert(id.to_owned());
        let shutdown = client::call(dir, &Request::Shutdown);
        match tokio::time::timeout(Duration::from_secs(END_SECONDS), shutdown).await {
            Ok(Ok(()) | Err(CallError::Gone)) => {}
            Ok(Err(CallError::Refused(error))) => {
                tracing::warn!(sandbox = id, %error, "shut a supervisor down")
            }
            Err(_) => tracing::warn!(sandbox = id, "a supervisor does not shut down and is killed"),
        }
        let (dir, boot_id) = (dir.clone(), self.inner.boot_id.clone());
        blocking(move || end(&dir, &boot_id).map_err(other("stop a sandbox"))).await
    }
}

/// Directories without a record are of sandboxes that an earlier process was about to make or to remove: nothing runs there.
fn remove_fragments(sandboxes: &Path) -> io::Result<()> {
    for entry in fs::read_dir(sandboxes)? {
        let dir = SandboxDir(entry?.path());
        if !dir.record().exists() {
            mounts::unmount_below(&dir.0)?;
            container::remove_directory(&dir.0)?;
        }
    }
    Ok(())
}

/// Sees a supervisor and whatever runs in its sandbox dead.
fn end(dir: &SandboxDir, boot_id: &str) -> io::Result<()> {
    let record: Option<SandboxRecord> = layout::read(&dir.record())?;
    let Some(record) = record else { return Ok(()) };
    if record.boot_id == boot_id {
        if let Some(shim) = record.shim {
            end_process(shim)?;
        }
        Hierarchies::read()?.kill_all(&record.cgroup)?;
    }
    for container in container::list(dir)? {
        container::status(dir, container, false)?;
    }
    Ok(())
}

/// Waits for a process that is about to end; kills it if it takes too long.
fn end_process(process: layout::ProcessIdentity) -> io::Result<()> {
    use rustix::process::{Signal, pidfd_send_signal};
    let Some(pidfd) = open_process(process)? else { return Ok(()) };
    if has_ended(&pidfd, END_MILLIS)? {
        return Ok(());
    }
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(error.into()),
    }
    if has_ended(&pidfd, 5 * END_MILLIS)? {
        Ok(())
    } else {
        Err(io::Error::other(format!("process {} does not die", process.pid)))
    }
}

/// A descriptor of a process, `None` if it is dead.
fn open_process(process: layout::ProcessIdentity) -> io::Result<Option<OwnedFd>> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let Some(pid) = Pid::from_raw(process.pid) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        // Asked after the descriptor was opened, so that it is this process and no later one that is waited for.
        Ok(pidfd) => Ok(process.is_alive().then_some(pidfd)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Waits for so long.
fn has_ended(pidfd: &OwnedFd, millis: u16) -> io::Result<bool> {
    let mut fds = [nix::poll::PollFd::new(pidfd.as_fd(), nix::poll::PollFlags::POLLIN)];
    Ok(nix::poll::poll(&mut fds, millis)? > 0)
}

/// Whether a supervisor lives that serves its socket no longer: it is just ending, and its containers with it.
fn outlives_its_socket(process: layout::ProcessIdentity) -> io::Result<bool> {
    let Some(pidfd) = open_process(process)? else { return Ok(false) };
    Ok(!has_ended(&pidfd, END_MILLIS)?)
}

fn read_status(
    dir: &SandboxDir,
    connected: bool,
    boot_id: &str,
) -> io::Result<Option<SandboxStatus>> {
    let record: Option<SandboxRecord> = layout::read(&dir.record())?;
    let Some(record) = record else { return Ok(None) };
    let same_boot = record.boot_id == boot_id;
    let ready = connected && same_boot;
    let alive = match record.shim {
        _ if ready => true,
        Some(shim) if same_boot => outlives_its_socket(shim)?,
        _ => false,
    };
    let mut containers = Vec::new();
    for container in container::list(dir)? {
        containers.push(container::status(dir, container, alive)?);
    }
    let network_namespace = (!record.config.host_network).then(|| dir.namespace("net"));
    Ok(Some(SandboxStatus { config: record.config, ready, network_namespace, containers }))
}

/// Removes a sandbox that has been stopped.
fn remove_sandbox(images: &Images, dir: &SandboxDir) -> Result<(), RuntimeError> {
    let failed = other("remove a sandbox");
    let record: Option<SandboxRecord> = layout::read(&dir.record()).map_err(&failed)?;
    let containers = match fs::read_dir(dir.containers()) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>().map_err(&failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed(error)),
    };
    for entry in containers {
        container::remove(images, dir, &entry.file_name().to_string_lossy())?;
    }
    mounts::unmount_below(&dir.0).map_err(&failed)?;
    if let Some(record) = record {
        Hierarchies::read()
            .and_then(|hierarchies| hierarchies.remove(&record.cgroup))
            .map_err(&failed)?;
    }
    container::remove_directory(&dir.0).map_err(failed)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| RuntimeError::Other(error.to_string()))?
}

#[async_trait]
impl ContainerRuntime for EmbeddedRuntime {
    async fn run_pod_sandbox(&self, config: &SandboxConfig) -> Result<SandboxStatus, RuntimeError> {
        let dir = self.dir(&config.id)?;
        let _lock = self.lock(&config.id).await;
        if let Some(status) = self.read_status(&config.id, dir.clone()).await? {
            if status.ready {
                return Ok(status);
            }
            return Err(RuntimeError::Other(format!(
                "sandbox {} exists and is not ready",
                config.id
            )));
        }
        let record = SandboxRecord {
            version: RECORD_VERSION,
            config: config.clone(),
            boot_id: self.inner.boot_id.clone(),
            cgroup: format!("{}/{}", self.inner.config.cgroup_parent, config.id),
            ephemeral: self.inner.config.ephemeral,
            shim: None,
        };
        let at = dir.clone();
        blocking(move || {
            fs::create_dir_all(at.containers())
                .and_then(|()| layout::write(&at.record(), &record))
                .map_err(other("make a sandbox"))
        })
        .await?;
        self.book().stopping.remove(&config.id);
        if let Err(error) = self.start_supervisor(&dir).await {
            self.stop(&config.id, &dir).await?;
            let images = self.inner.config.images.clone();
            blocking(move || remove_sandbox(&images, &dir)).await?;
            return Err(error);
        }
        self.read_status(&config.id, dir).await?.filter(|status| status.ready).ok_or_else(|| {
            RuntimeError::Other(format!("the supervisor of sandbox {} died at once", config.id))
        })
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let dir = self.dir(id)?;
        let _lock = self.lock(id).await;
        self.stop(id, &dir).await
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let dir = self.dir(id)?;
        let lock = self.lock(id).await;
        self.stop(id, &dir).await?;
        let images = self.inner.config.images.clone();
        blocking(move || remove_sandbox(&images, &dir)).await?;
        let mut book = self.book();
        // Its watcher, if it has not ended yet, must still find the sandbox expected to end: the note goes with the watcher's.
        if !book.watched.contains(id) {
            book.stopping.remove(id);
        }
        drop(lock);
        // Nobody else waits for the lock: whoever comes later makes a new one.
        if book.locks.get(id).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            book.locks.remove(id);
        }
        Ok(())
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let dir = self.existing(sandbox)?;
        let _lock = self.lock(sandbox).await;
        if !self.watch(sandbox, &dir).await? {
            return Err(RuntimeError::Other(format!("sandbox {sandbox} is not ready")));
        }
        let (images, config) = (self.inner.config.images.clone(), config.clone());
        blocking(move || container::create(&images, &dir, &config)).await
    }

    async fn start_container(&self, sandbox: &str, id: &str) -> Result<(), RuntimeError> {
        let dir = self.container(sandbox, id)?;
        Ok(client::call(&dir, &Request::Start { container: id.to_owned() }).await?)
    }

    async fn stop_container(
        &self,
        sandbox: &str,
        id: &str,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let Ok(dir) = self.container(sandbox, id) else { return Ok(()) };
        let grace_millis = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Stop { container: id.to_owned(), grace_millis };
        match client::call(&dir, &request).await {
            // With its supervisor it is dead, too.
            Ok(()) | Err(CallError::Gone) => Ok(()),
            Err(CallError::Refused(error)) => Err(error),
        }
    }

    async fn remove_container(&self, sandbox: &str, id: &str) -> Result<(), RuntimeError> {
        let Ok(dir) = self.container(sandbox, id) else { return Ok(()) };
        let _lock = self.lock(sandbox).await;
        let status = self.read_status(sandbox, dir.clone()).await?;
        let containers = status.map(|status| status.containers).unwrap_or_default();
        let running = |status: &crate::ContainerStatus| {
            matches!(status.state, ContainerState::Running { .. })
        };
        if containers.iter().any(|container| container.id == id && running(container)) {
            return Err(RuntimeError::Other(format!("container {id} is running")));
        }
        let (images, id) = (self.inner.config.images.clone(), id.to_owned());
        blocking(move || container::remove(&images, &dir, &id)).await
    }

    async fn exec(
        &self,
        sandbox: &str,
        id: &str,
        request: ExecRequest,
    ) -> Result<ExecIo, RuntimeError> {
        let dir = self.container(sandbox, id)?;
        let state = layout::container_state(&dir.container(id)).map_err(other("exec"))?;
        if !matches!(state, ContainerState::Running { .. }) {
            return Err(RuntimeError::NotRunning(id.to_owned()));
        }
        streams::exec(&self.inner.config.shim, &dir, id, request).await
    }

    async fn attach(&self, sandbox: &str, id: &str, stdin: bool) -> Result<ExecIo, RuntimeError> {
        let dir = self.container(sandbox, id)?;
        streams::attach(&dir, id, stdin).await
    }

    async fn status(&self, id: &str) -> Result<SandboxStatus, RuntimeError> {
        let dir = self.existing(id)?;
        let status = self.read_status(id, dir).await?;
        status.ok_or_else(|| RuntimeError::NotFound(format!("sandbox {id}")))
    }

    async fn list(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        let root = self.inner.config.state_dir.join("sandboxes");
        let dirs = blocking(move || {
            let entries = fs::read_dir(root).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            Ok(entries
                .map_err(other("list sandboxes"))?
                .into_iter()
                .map(|entry| entry.path())
                .collect::<Vec<_>>())
        })
        .await?;
        let mut sandboxes = Vec::new();
        for dir in dirs {
            let Some(id) = dir.file_name().and_then(|name| name.to_str()).map(str::to_owned) else {
                continue;
            };
            sandboxes.extend(self.read_status(&id, SandboxDir(dir)).await?);
        }
        sandboxes.sort_by(|a, b| a.config.id.cmp(&b.config.id));
        Ok(sandboxes)
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        crate::event_stream(self.inner.events.subscribe())
    }
}
