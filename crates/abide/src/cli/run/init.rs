//! The first process of a throw-away cluster: mounts, server, images, command; its end is the cluster's end.

use super::Cluster;
use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

/// How long the server may take to become ready, the unpacking of images included.
const START_TIMEOUT: Duration = Duration::from_secs(300);
/// How often a server that died is started again before the run is given up.
const RESTARTS: u32 = 10;

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The run's folder.
    #[arg(long)]
    place: PathBuf,
    #[command(flatten)]
    cluster: Cluster,
    /// The command.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl Arguments {
    /// Brings the cluster up, runs the command, and returns its exit status.
    pub(crate) fn run(self) -> Result<ExitCode> {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
            .context("ask to die with the process outside")?;
        let signals = super::Signals::hold_back()?;
        mount_file_systems(&self.place)?;
        let mut server = Server::start(&self)?;
        let command = self.start_command(&server)?;
        signals.hand_on_to(command.id());
        let command = Pid::from_raw(i32::try_from(command.id()).context("a process id")?);
        // As the first process of a process namespace we are handed every orphan.
        loop {
            let (ended, code) = match waitpid(None, None).context("wait for a child")? {
                WaitStatus::Exited(pid, code) => (pid, code),
                WaitStatus::Signaled(pid, signal, _) => (pid, 128 + signal as i32),
                _ => continue,
            };
            if ended == command {
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
            }
            if ended == server.pid {
                server.start_again(&self, code)?;
            }
        }
    }

    fn start_command(&self, server: &Server) -> Result<Child> {
        Command::new("/proc/self/exe")
            .args(["run-command", "--"])
            .args(&self.command)
            .env("KUBECONFIG", &server.kubeconfig)
            .env("ABIDE_DATA_DIR", &server.data_dir)
            .spawn()
            .context("start the command")
    }
}

/// Makes our mounts private, `place` a memory file system, and `/proc` that of our process namespace.
fn mount_file_systems(place: &Path) -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("make mounts private")?;
    mount(Some("abide"), place, Some("tmpfs"), MsFlags::empty(), Some("mode=0700"))
        .context("mount a memory file system")?;
    mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        none,
    )
    .context("mount /proc")
}

/// The server of this cluster.
struct Server {
    pid: Pid,
    data_dir: PathBuf,
    kubeconfig: PathBuf,
    restarts: u32,
}

impl Server {
    fn start(arguments: &Arguments) -> Result<Server> {
        let data_dir =
            arguments.cluster.data_dir.clone().unwrap_or_else(|| arguments.place.join("data"));
        let kubeconfig = arguments.place.join("kubeconfig");
        let pid = spawn(arguments, &data_dir, &kubeconfig)?;
        Ok(Server { pid, data_dir, kubeconfig, restarts: 0 })
    }

    /// A server that dies is started again: its pods have run on meanwhile.
    fn start_again(&mut self, arguments: &Arguments, code: i32) -> Result<()> {
        self.restarts += 1;
        if self.restarts > RESTARTS {
            bail!(
                "the server ended {RESTARTS} times, the last time with exit status {code}\n{}",
                end_of_log(&log_path(arguments))
            );
        }
        self.pid = spawn(arguments, &self.data_dir, &self.kubeconfig)?;
        Ok(())
    }
}

fn log_path(arguments: &Arguments) -> PathBuf {
    arguments.cluster.log.clone().unwrap_or_else(|| arguments.place.join("server.log"))
}

/// Starts a server and waits until it is ready.
fn spawn(arguments: &Arguments, data_dir: &Path, kubeconfig: &Path) -> Result<Pid> {
    let log_path = log_path(arguments);
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .with_context(|| format!("open {}", log_path.display()))?;
    let notify_path = arguments.place.join("notify");
    match std::fs::remove_file(&notify_path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("remove the old notify socket");
        }
        _ => {}
    }
    let notify = UnixDatagram::bind(&notify_path).context("make a notify socket")?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("server").arg("--data-dir").arg(data_dir).arg("--write-kubeconfig").arg(kubeconfig);
    command.arg("--cgroup-parent").arg(super::cgroup_of(&arguments.place));
    command.args(["--resolv-conf", "/etc/resolv.conf"]);
    if let Some(store) = &arguments.cluster.image_store {
        command.arg("--image-store").arg(store);
    }
    for image in &arguments.cluster.images {
        command.arg("--image").arg(image);
    }
    command.args(arguments.cluster.registries.flags());
    command.arg("--simulated-nodes").arg(arguments.cluster.simulated_nodes.to_string());
    let child = command
        .env("NOTIFY_SOCKET", &notify_path)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("start the server")?;
    let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id")?);
    wait_until_ready(child, &notify, &log_path)?;
    Ok(pid)
}

fn wait_until_ready(mut child: Child, notify: &UnixDatagram, log: &Path) -> Result<()> {
    const STEP: Duration = Duration::from_millis(20);
    notify.set_read_timeout(Some(STEP))?;
    let mut message = [0; 64];
    let mut waited = Duration::ZERO;
    while waited < START_TIMEOUT {
        match notify.recv(&mut message) {
            Ok(length) if message[..length].starts_with(b"READY=1") => return Ok(()),
            Ok(_) => {}
            Err(_) => waited += STEP,
        }
        if let Some(status) = child.try_wait()? {
            bail!("the server could not start ({status})\n{}", end_of_log(log));
        }
    }
    bail!("the server is not ready after {} s\n{}", START_TIMEOUT.as_secs(), end_of_log(log))
}

/// The last lines of the server's log.
fn end_of_log(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
