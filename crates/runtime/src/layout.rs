//! Where state lies on disk, and how it is read and written. Known to the server's side and to the supervisor alike.
//!
//! ```text
//! STATE/sandboxes/ID/ sandbox.json  shim.sock  shim.log  hostname  shm/  ns/{net,ipc,uts}  run/ (libcontainer's own)
//!                     containers/CID/ container.json  state.json  config.json  rootfs/  upper/  work/  layers/
//! ```

use crate::{ContainerConfig, ContainerState, SandboxConfig};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The directory of one sandbox.
#[derive(Debug, Clone)]
pub(crate) struct SandboxDir(pub(crate) PathBuf);

/// The directory of one container; also its OCI bundle.
#[derive(Debug, Clone)]
pub(crate) struct ContainerDir(pub(crate) PathBuf);

impl SandboxDir {
    pub(crate) fn record(&self) -> PathBuf {
        self.0.join("sandbox.json")
    }
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join(SOCKET)
    }
    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("shim.log")
    }
    pub(crate) fn hostname(&self) -> PathBuf {
        self.0.join("hostname")
    }
    pub(crate) fn shm(&self) -> PathBuf {
        self.0.join("shm")
    }
    /// `kind`: `net`, `ipc` or `uts`.
    pub(crate) fn namespace(&self, kind: &str) -> PathBuf {
        self.0.join("ns").join(kind)
    }
    /// libcontainer's own state: one directory per running container.
    pub(crate) fn run(&self) -> PathBuf {
        self.0.join("run")
    }
    pub(crate) fn containers(&self) -> PathBuf {
        self.0.join("containers")
    }
    pub(crate) fn container(&self, id: &str) -> ContainerDir {
        ContainerDir(self.containers().join(id))
    }
}

impl ContainerDir {
    pub(crate) fn record(&self) -> PathBuf {
        self.0.join("container.json")
    }
    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state.json")
    }
    pub(crate) fn spec(&self) -> PathBuf {
        self.0.join("config.json")
    }
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.0.join("rootfs")
    }
    pub(crate) fn upper(&self) -> PathBuf {
        self.0.join("upper")
    }
    /// Short names for the image's layers.
    pub(crate) fn layers(&self) -> PathBuf {
        self.0.join("layers")
    }
    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }
}

/// Name of the supervisor's socket in its sandbox's directory.
pub(crate) const SOCKET: &str = "shim.sock";

/// `sandbox.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) version: u32,
    pub(crate) config: SandboxConfig,
    /// Processes of another boot are dead, whatever the files say.
    pub(crate) boot_id: String,
    /// Below the mount point of each hierarchy, without a leading slash.
    pub(crate) cgroup: String,
    /// Whether the supervisor ends when nobody listens to it any more.
    #[serde(default)]
    pub(crate) ephemeral: bool,
    /// The supervisor; `None` until it is ready.
    pub(crate) shim: Option<ProcessIdentity>,
}

/// A process that cannot be taken for another one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
    pub(crate) pid: i32,
    /// Clock ticks since boot (field 22 of /proc/PID/stat).
    pub(crate) start_ticks: u64,
}

/// `container.json`: written once, when the container is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) version: u32,
    pub(crate) id: String,
    /// Nanoseconds since 1970; the order in which containers are listed.
    pub(crate) created_at: i64,
    pub(crate) config: ContainerConfig,
    pub(crate) cgroup: String,
    /// The image's stop signal, else SIGTERM.
    pub(crate) stop_signal: i32,
}

/// The version of the files above.
pub(crate) const RECORD_VERSION: u32 = 1;

impl ProcessIdentity {
    /// The process that has this number now; `None` if there is none (or only its remains).
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the name in parentheses and may hold anything, also spaces.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace();
        let state = fields.next()?;
        let start_ticks = fields.nth(18)?.parse().ok()?;
        (state != "Z" && state != "X").then_some(ProcessIdentity { pid, start_ticks })
    }

    pub(crate) fn is_alive(self) -> bool {
        ProcessIdentity::of(self.pid) == Some(self)
    }
}

/// Reads a JSON file; `None` if there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a JSON file so that after a crash either the old or the new content is there.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(&serde_json::to_vec(value).map_err(io::Error::other)?)?;
    file.sync_data()?;
    fs::rename(&temporary, path)
}

/// The container's state: Created until its supervisor has written anything else.
pub(crate) fn container_state(dir: &ContainerDir) -> io::Result<ContainerState> {
    Ok(read(&dir.state())?.unwrap_or(ContainerState::Created))
}

/// Identifies this boot of this machine.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A short path to a socket that lies deep: addresses of Unix sockets hold at most 107 bytes. The directory must stay open
/// while the path is used.
pub(crate) fn short_path(socket: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let parent = socket.parent().unwrap_or(Path::new("/"));
    let name = socket.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory: OwnedFd = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_PATH)
        .open(parent)?
        .into();
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok((directory, short))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_of_the_same_number() {
        let me = ProcessIdentity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessIdentity { start_ticks: me.start_ticks + 1, ..me }.is_alive());
    }

    #[test]
    fn a_missing_file_is_no_record_and_a_broken_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        assert_eq!(read::<u32>(&path).unwrap(), None);
        write(&path, &7u32).unwrap();
        assert_eq!(read::<u32>(&path).unwrap(), Some(7));
        fs::write(&path, "{").unwrap();
        assert!(read::<u32>(&path).is_err());
    }
}
