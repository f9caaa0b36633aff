//! A sandbox's folder: namespaces, supervisor, containers.
//!
//! `config.json` is written last when it is made: a folder without it is unfinished.

use super::bundle::Made;
use super::failed;
use crate::shim::SHIM;
use crate::shim::supervisor_status as write_status;
use crate::{ContainerState, ContainerStatus, RuntimeError, SandboxConfig, SandboxStatus};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a sandbox is.
#[derive(Debug, Clone)]
pub(super) struct Sandbox {
    pub(super) id: String,
    pub(super) folder: PathBuf,
    cgroup_parent: String,
}

/// `config.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    config: SandboxConfig,
    /// A sandbox of an earlier boot is dead, whatever its files say.
    boot_id: String,
}

/// Namespaces that the containers of a pod share: the kernel's name, our file, the flag.
const NAMESPACES: [(&str, CloneFlags); 3] = [("net", CloneFlags::CLONE_NEWNET), ("ipc", CloneFlags::CLONE_NEWIPC), ("uts", CloneFlags::CLONE_NEWUTS)];

impl Sandbox {
    pub(super) fn new(state_dir: &Path, id: &str, cgroup_parent: &str) -> Sandbox {
        Sandbox { id: id.to_owned(), folder: state_dir.join(id), cgroup_parent: cgroup_parent.to_owned() }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("s")
    }
    pub(super) fn namespace(&self, name: &str) -> PathBuf {
        self.folder.join("ns").join(name)
    }
    pub(super) fn shared_memory(&self) -> PathBuf {
        self.folder.join("shm")
    }
    pub(super) fn container(&self, id: &str) -> PathBuf {
        self.folder.join("containers").join(id)
    }
    pub(super) fn cgroup(&self) -> String {
        format!("/{}/{}", self.cgroup_parent.trim_matches('/'), self.id)
    }
    pub(super) fn container_cgroup(&self, id: &str) -> String {
        format!("{}/{}", self.cgroup(), &id[..id.len().min(12)])
    }
    pub(super) fn oci_root(&self) -> PathBuf {
        self.folder.join("oci")
    }

    pub(super) fn config(&self) -> Result<SandboxConfig, RuntimeError> {
        Ok(self.stored()?.config)
    }

    fn stored(&self) -> Result<Stored, RuntimeError> {
        let bytes = std::fs::read(self.folder.join("config.json")).map_err(|_| RuntimeError::NotFound(format!("sandbox {}", self.id)))?;
        serde_json::from_slice(&bytes).map_err(|error| failed("read the configuration of", &self.folder, &error))
    }

    /// Makes it: namespaces, shared memory, supervisor.
    pub(super) fn make(&self, config: &SandboxConfig, shim: &Path) -> Result<(), RuntimeError> {
        let socket = self.socket();
        if socket.as_os_str().len() > 100 {
            return Err(RuntimeError::Other(format!("{} is too long a path for a socket: use a shorter --data-dir", socket.display())));
        }
        for folder in [self.folder.join("ns"), self.folder.join("containers"), self.shared_memory()] {
            std::fs::create_dir_all(&folder).map_err(|error| failed("make", &folder, &error))?;
        }
        self.make_namespaces(config)?;
        mount(Some("shm"), &self.shared_memory(), Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, Some("mode=1777,size=65536k"))
            .map_err(|error| failed("mount shared memory at", &self.shared_memory(), &error))?;
        self.start_supervisor(shim)?;
        let stored = Stored { config: config.clone(), boot_id: boot_id() };
        let unfinished = self.folder.join("config.new");
        let text = serde_json::to_vec(&stored).map_err(|error| RuntimeError::Other(error.to_string()))?;
        std::fs::write(&unfinished, text).and_then(|()| std::fs::rename(&unfinished, self.folder.join("config.json"))).map_err(|error| failed("write the configuration in", &self.folder, &error))
    }

    /// A thread that ends at once makes them; bind mounts keep them.
    fn make_namespaces(&self, config: &SandboxConfig) -> Result<(), RuntimeError> {
        let wanted: Vec<(&str, CloneFlags, PathBuf)> = NAMESPACES
            .iter()
            .filter(|(name, _)| !(config.host_network && *name == "net"))
            .map(|(name, flag)| (*name, *flag, self.namespace(name)))
            .collect();
        let hostname = config.hostname.clone();
        let made = std::thread::spawn(move || -> Result<(), RuntimeError> {
            let flags = wanted.iter().fold(CloneFlags::empty(), |all, (_, flag, _)| all | *flag);
            unshare(flags).map_err(|error| RuntimeError::Other(format!("make namespaces: {error}")))?;
            nix::unistd::sethostname(&hostname).map_err(|error| RuntimeError::Other(format!("set the host name: {error}")))?;
            for (name, _, path) in wanted {
                std::fs::write(&path, "").map_err(|error| failed("make", &path, &error))?;
                let own = format!("/proc/thread-self/ns/{name}");
                mount(Some(own.as_str()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(|error| failed("keep the namespace at", &path, &error))?;
            }
            Ok(())
        });
        made.join().map_err(|_| RuntimeError::Other("the thread that makes namespaces failed".to_owned()))?
    }

    fn start_supervisor(&self, shim: &Path) -> Result<(), RuntimeError> {
        let socket = self.socket();
        let listener = UnixListener::bind(&socket).map_err(|error| failed("listen at", &socket, &error))?;
        let log = std::fs::File::create(self.folder.join("shim.log")).map_err(|error| failed("make a log in", &self.folder, &error))?;
        let mut child = Command::new(shim)
            .arg(SHIM)
            .arg(&self.folder)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(|error| failed("start a supervisor for", &self.folder, &error))?;
        // It is our child as long as we live: somebody has to see it off.
        std::thread::Builder::new()
            .name("shim-reaper".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || child.wait())
            .map_err(|error| failed("wait for the supervisor of", &self.folder, &error))?;
        Ok(())
    }

    /// What there is.
    pub(super) fn status(&self, alive: bool) -> Result<SandboxStatus, RuntimeError> {
        let stored = self.stored()?;
        let ready = alive && stored.boot_id == boot_id();
        let mut containers = Vec::new();
        for entry in std::fs::read_dir(self.folder.join("containers")).into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            match self.container_status(&id) {
                Ok(mut status) => {
                    if let (ContainerState::Running { started_at, .. }, false) = (&status.state, ready) {
                        let finished_at = crate::shim::now();
                        status.state = ContainerState::Exited { started_at: *started_at, finished_at, exit_code: 255, oom_killed: false, message: String::new() };
                        write_status(&self.container(&id).join("status.json"), &status).map_err(|error| failed("write the status in", &self.container(&id), &error))?;
                    }
                    containers.push(status);
                }
                // Made half when its maker died.
                Err(_) => self.remove_container(&id)?,
            }
        }
        containers.sort_by_key(|status| status.attempt);
        let network_namespace = (!stored.config.host_network).then(|| self.namespace("net"));
        Ok(SandboxStatus { config: stored.config, ready, network_namespace, containers })
    }

    pub(super) fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError> {
        self.read(id, "status.json")
    }
    pub(super) fn container_config(&self, id: &str) -> Result<Made, RuntimeError> {
        self.read(id, "made.json")
    }
    fn read<T: serde::de::DeserializeOwned>(&self, id: &str, file: &str) -> Result<T, RuntimeError> {
        let bytes = std::fs::read(self.container(id).join(file)).map_err(|_| RuntimeError::NotFound(format!("container {id}")))?;
        serde_json::from_slice(&bytes).map_err(|error| failed("read", &self.container(id).join(file), &error))
    }

    /// Kills what a dead supervisor may have left.
    pub(super) fn kill_leftovers(&self) -> Result<(), RuntimeError> {
        for pid in crate::cgroup::processes(&self.cgroup()) {
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(RuntimeError::Other(format!("kill process {pid} of sandbox {}: {error}", self.id))),
            }
        }
        Ok(())
    }

    pub(super) fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let folder = self.container(id);
        unmount(&folder.join("rootfs"))?;
        remove_folder(&folder)
    }

    /// Removes mounts, cgroups and the folder.
    pub(super) fn remove(&self) -> Result<(), RuntimeError> {
        for entry in std::fs::read_dir(self.folder.join("containers")).into_iter().flatten().flatten() {
            self.remove_container(&entry.file_name().to_string_lossy())?;
        }
        unmount(&self.shared_memory())?;
        for (name, _) in NAMESPACES {
            unmount(&self.namespace(name))?;
        }
        remove_folder(&self.folder)?;
        let mut last = Ok(());
        // Processes that were just killed hold their cgroup for some milliseconds.
        for _ in 0..200 {
            last = crate::cgroup::remove_tree(&self.cgroup());
            if last.is_ok() {
                break;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
        last.map_err(|error| RuntimeError::Other(format!("remove the cgroup {}: {error}", self.cgroup())))
    }
}

fn remove_folder(folder: &Path) -> Result<(), RuntimeError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", folder, &error)),
        _ => Ok(()),
    }
}

/// Unmounts, if anything is mounted there.
pub(super) fn unmount(path: &Path) -> Result<(), RuntimeError> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(error) => Err(failed("unmount", path, &error)),
    }
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
