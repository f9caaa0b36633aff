//! Makes and removes containers on disk. All of it blocks.

use super::{capabilities, spec, users};
use crate::beneath::Root;
use crate::cgroup::Hierarchies;
use crate::images::{Bundle, Images};
use crate::layout::{
    self, ContainerDir, ContainerRecord, RECORD_VERSION, SandboxDir, SandboxRecord,
};
use crate::{ContainerConfig, ContainerState, ContainerStatus, RuntimeError, mounts};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// The most of /etc/passwd and /etc/group that is read.
const ACCOUNTS_MAX: u64 = 4 * 1024 * 1024;
/// Parts of /dev that every container has its own of.
const OWN_DEVICES: [&str; 7] = ["pts", "shm", "fd", "mqueue", "console", "ptmx", ".lxc"];

pub(super) fn other(what: &str) -> impl Fn(io::Error) -> RuntimeError + '_ {
    move |error| RuntimeError::Other(format!("{what}: {error}"))
}

/// Makes a container: its root file system and its bundle. On failure nothing is left.
pub(super) fn create(
    images: &Images,
    sandbox: &SandboxDir,
    config: &ContainerConfig,
) -> Result<String, RuntimeError> {
    let failed = other("create container");
    let record: Option<SandboxRecord> = layout::read(&sandbox.record()).map_err(&failed)?;
    let record = record.ok_or_else(|| RuntimeError::NotFound("sandbox".into()))?;
    for existing in list(sandbox).map_err(&failed)? {
        if existing.config.name == config.name && existing.config.attempt == config.attempt {
            return Err(RuntimeError::Other(format!(
                "container {} attempt {} exists in sandbox {}",
                config.name, config.attempt, record.config.id
            )));
        }
    }
    let id = new_id().map_err(&failed)?;
    let made = make(images, sandbox, &record, config, &id);
    if made.is_err()
        && let Err(error) = remove(images, sandbox, &id)
    {
        tracing::warn!(container = id, %error, "clean up after a failed creation");
    }
    made.map(|()| id)
}

fn make(
    images: &Images,
    sandbox: &SandboxDir,
    record: &SandboxRecord,
    config: &ContainerConfig,
    id: &str,
) -> Result<(), RuntimeError> {
    let failed = other("create container");
    let dir = sandbox.container(id);
    for directory in [dir.0.clone(), dir.rootfs(), dir.upper(), dir.work()] {
        fs::create_dir_all(directory).map_err(&failed)?;
    }
    // The upper directory becomes the container's `/`.
    fs::set_permissions(dir.upper(), fs::Permissions::from_mode(0o755)).map_err(&failed)?;
    let bundle = images.pin(id, &config.image_id)?;
    mount_rootfs(&dir, &bundle).map_err(other("mount the root file system"))?;
    for mount in &config.mounts {
        fs::metadata(&mount.host_path).map_err(|error| {
            let path = mount.host_path.display();
            RuntimeError::Config(format!(
                "failed to generate container spec: failed to stat \"{path}\": {error}"
            ))
        })?;
    }
    let root = Root::open(&dir.rootfs()).map_err(&failed)?;
    let accounts = |path: &str| root.read(Path::new(path), ACCOUNTS_MAX).map_err(other(path));
    let passwd = accounts("/etc/passwd")?.unwrap_or_default();
    let group = accounts("/etc/group")?.unwrap_or_default();
    let user = users::resolve(&bundle.config.user, &config.security, &passwd, &group)?;
    let own = capabilities::own(&fs::read_to_string("/proc/self/status").map_err(&failed)?);
    let cgroup = format!("{}/{id}", record.cgroup);
    let devices = if config.security.privileged { devices(Path::new("/dev")) } else { Vec::new() };
    let spec = spec::build(&spec::Input {
        sandbox,
        hostname: &record.config.hostname,
        host_network: record.config.host_network,
        container: config,
        image: &bundle.config,
        user: &user,
        capabilities: &capabilities::decide(&config.security, own)?,
        cgroup: &cgroup,
        devices: &devices,
        unified_cgroups: matches!(Hierarchies::read().map_err(&failed)?, Hierarchies::V2(_)),
    })?;
    let working_dir = spec::working_dir(config, &bundle.config)?;
    root.make_directory(Path::new(&working_dir)).map_err(|error| {
        RuntimeError::Config(format!("failed to create working directory {working_dir}: {error}"))
    })?;
    drop(root);
    layout::write(&dir.spec(), &spec).map_err(&failed)?;
    let record = ContainerRecord {
        version: RECORD_VERSION,
        id: id.to_owned(),
        created_at: layout::now(),
        config: config.clone(),
        cgroup,
        stop_signal: bundle.config.stop_signal()?,
    };
    // Last: a container exists from here on.
    layout::write(&dir.record(), &record).map_err(failed)
}

fn new_id() -> io::Result<String> {
    let mut bytes = [0; 32];
    io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Stacks the image's layers below the container's own. The options of a mount have to fit into one page, so the layers get
/// short names (links `0`, `1` …, the lowest first) in a directory that is the working directory of the mounting thread.
fn mount_rootfs(dir: &ContainerDir, bundle: &Bundle) -> io::Result<()> {
    let names = dir.layers();
    fs::create_dir_all(&names)?;
    for (index, layer) in bundle.layers.iter().enumerate() {
        std::os::unix::fs::symlink(bundle.directory.join(layer), names.join(index.to_string()))?;
    }
    let lower: Vec<String> =
        (0..bundle.layers.len()).rev().map(|index| index.to_string()).collect();
    let options = format!("lowerdir={},upperdir=../upper,workdir=../work", lower.join(":"));
    let target = dir.rootfs();
    let thread = std::thread::spawn(move || -> io::Result<()> {
        // From here on the working directory is this thread's own.
        unshare(CloneFlags::CLONE_FS)?;
        nix::unistd::chdir(&names)?;
        Ok(mount(
            Some("overlay"),
            &target,
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        )?)
    });
    thread.join().map_err(|_| io::Error::other("the mounting thread panicked"))?
}

/// The host's device nodes, for privileged containers.
fn devices(directory: &Path) -> Vec<Value> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut devices = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let Ok(metadata) = entry.metadata() else { continue };
        let kind = metadata.file_type();
        if OWN_DEVICES.iter().any(|own| entry.file_name() == *own) {
            continue;
        }
        if kind.is_dir() {
            devices.extend(self::devices(&entry.path()));
        } else if kind.is_char_device() || kind.is_block_device() {
            devices.push(json!({
                "path": entry.path(),
                "type": if kind.is_block_device() { "b" } else { "c" },
                "major": nix::sys::stat::major(metadata.rdev()),
                "minor": nix::sys::stat::minor(metadata.rdev()),
                "fileMode": metadata.mode() & 0o777,
                "uid": metadata.uid(),
                "gid": metadata.gid(),
            }));
        }
    }
    devices
}

/// Every container of a sandbox, oldest first.
pub(super) fn list(sandbox: &SandboxDir) -> io::Result<Vec<ContainerRecord>> {
    let entries = match fs::read_dir(sandbox.containers()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut records: Vec<ContainerRecord> = Vec::new();
    for entry in entries {
        let dir = ContainerDir(entry?.path());
        // Without a record it was never made to the end, or is being removed.
        records.extend(layout::read(&dir.record())?);
    }
    records.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    Ok(records)
}

/// What is known of a container. A container whose supervisor is dead has ended, whatever it wrote last; that is written down,
/// so that it is told the same way for ever.
pub(super) fn status(
    sandbox: &SandboxDir,
    record: ContainerRecord,
    alive: bool,
) -> io::Result<ContainerStatus> {
    let dir = sandbox.container(&record.id);
    let mut state = layout::container_state(&dir)?;
    if let ContainerState::Running { started_at, .. } = state
        && !alive
    {
        // 255 as containerd says of what it has lost sight of.
        let (finished_at, exit_code) = (layout::now(), 255);
        state = ContainerState::Exited {
            started_at,
            finished_at,
            exit_code,
            oom_killed: false,
            message: String::new(),
        };
        layout::write(&dir.state(), &state)?;
    }
    Ok(ContainerStatus {
        id: record.id,
        name: record.config.name,
        attempt: record.config.attempt,
        image_id: record.config.image_id,
        state,
        log_path: record.config.log_path,
        labels: record.config.labels,
    })
}

/// Removes a container that does not run (or whatever is left of one).
pub(super) fn remove(images: &Images, sandbox: &SandboxDir, id: &str) -> Result<(), RuntimeError> {
    let failed = other("remove container");
    let dir = sandbox.container(id);
    let record: Option<ContainerRecord> = layout::read(&dir.record()).map_err(&failed)?;
    if let Some(record) = record {
        let hierarchies = Hierarchies::read().map_err(&failed)?;
        hierarchies.kill_all(&record.cgroup).map_err(&failed)?;
        hierarchies.remove(&record.cgroup).map_err(&failed)?;
    }
    mounts::unmount(&dir.rootfs()).map_err(&failed)?;
    mounts::unmount_below(&dir.0).map_err(&failed)?;
    images.unpin(id)?;
    remove_directory(&dir.0).map_err(failed)
}

/// Removes a directory; none there is no error.
pub(super) fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}
