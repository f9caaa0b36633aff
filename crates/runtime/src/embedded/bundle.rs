//! A container's folder: root file system and OCI configuration.

use super::sandbox::Sandbox;
use super::users::{self, User};
use super::{created, failed};
use crate::images::{Images, Loaded};
use crate::shim::supervisor_status as write_status;
use crate::{ContainerConfig, ContainerId, Resources, RuntimeError, Security};
use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;

/// What the server keeps of a container besides its status.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) tty: bool,
    pub(super) stdin: bool,
    pub(super) stop_signal: i32,
    /// The OCI process, from which an exec's is made.
    pub(super) process: Value,
}

/// What containers may do unless told otherwise. As containerd.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
];
/// What privileged containers may do besides.
const MORE_CAPABILITIES: [&str; 26] = [
    "CAP_DAC_READ_SEARCH", "CAP_LINUX_IMMUTABLE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_LEASE",
    "CAP_AUDIT_CONTROL", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
];

/// Makes the folder and returns the container's id.
pub(super) fn make(sandbox: &Sandbox, config: &ContainerConfig, images: &Images) -> Result<ContainerId, RuntimeError> {
    let id = uuid_like();
    let folder = sandbox.container(&id);
    let made = make_in(&folder, &id, sandbox, config, images);
    if made.is_err() {
        sandbox.remove_container(&id)?;
    }
    made.map(|()| id)
}

fn make_in(folder: &Path, id: &str, sandbox: &Sandbox, config: &ContainerConfig, images: &Images) -> Result<(), RuntimeError> {
    let host_network = sandbox.config()?.host_network;
    let image = images.load(&config.image_id)?;
    let rootfs = folder.join("rootfs");
    for name in ["upper", "work", "rootfs"] {
        std::fs::create_dir_all(folder.join(name)).map_err(|error| failed("make", &folder.join(name), &error))?;
    }
    mount_rootfs(folder, &image)?;
    for bind in &config.mounts {
        prepare_mount_point(&rootfs, &bind.host_path, &bind.container_path)?;
    }
    let user = user(&rootfs, &image, &config.security)?;
    let process = process(&image, config, &user)?;
    if let Some(cwd) = process["cwd"].as_str().filter(|cwd| *cwd != "/") {
        make_beneath(&rootfs, Path::new(cwd), true)?;
    }
    let spec = json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": rootfs, "readonly": config.security.readonly_rootfs},
        "mounts": mounts(sandbox, config),
        "linux": linux(sandbox, id, config, host_network),
    });
    let write = |name: &str, value: &Value| std::fs::write(folder.join(name), value.to_string()).map_err(|error| failed("write", &folder.join(name), &error));
    write("config.json", &spec)?;
    let made = Made { tty: config.tty, stdin: config.stdin, stop_signal: image.stop_signal, process };
    write("made.json", &serde_json::to_value(made).map_err(|error| RuntimeError::Other(error.to_string()))?)?;
    write_status(&folder.join("status.json"), &created(id, config)).map_err(|error| failed("write the status in", folder, &error))
}

/// 64 hexadecimal digits.
fn uuid_like() -> String {
    let mut bytes = [0; 32];
    // /dev/urandom always answers.
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    debug_assert!(read.is_ok(), "the kernel hands out random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn mount_rootfs(folder: &Path, image: &Loaded) -> Result<(), RuntimeError> {
    let lower: Vec<String> = image.layers.iter().rev().map(|layer| layer.display().to_string()).collect();
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), folder.join("upper").display(), folder.join("work").display());
    let rootfs = folder.join("rootfs");
    mount(Some("overlay"), &rootfs, Some("overlay"), MsFlags::empty(), Some(options.as_str())).map_err(|error| failed("mount the image at", &rootfs, &error))
}

/// A bind mount needs something to be mounted on.
fn prepare_mount_point(rootfs: &Path, source: &Path, target: &Path) -> Result<(), RuntimeError> {
    let metadata = std::fs::metadata(source).map_err(|error| RuntimeError::Config(format!("mount {}: {error}", source.display())))?;
    make_beneath(rootfs, target, metadata.is_dir())
}

/// Makes a folder or an empty file beneath `root`; links in the image cannot lead out of it.
fn make_beneath(root: &Path, target: &Path, folder: bool) -> Result<(), RuntimeError> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2};
    let failed = |error: rustix::io::Errno| RuntimeError::Config(format!("make {} in the container: {error}", target.display()));
    let open = |path: &Path| openat2(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty());
    let top = open(root).map_err(failed)?;
    let parts: Vec<_> = target.components().filter_map(|part| if let std::path::Component::Normal(name) = part { Some(name) } else { None }).collect();
    let mut so_far = std::path::PathBuf::new();
    for (index, name) in parts.iter().enumerate() {
        let parent = if so_far.as_os_str().is_empty() {
            top.try_clone().map_err(|_| failed(rustix::io::Errno::MFILE))?
        } else {
            openat2(&top, &so_far, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT).map_err(failed)?
        };
        so_far.push(name);
        let there = openat2(&top, &so_far, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT);
        if there.is_ok() {
            continue;
        }
        let last = index + 1 == parts.len();
        if last && !folder {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            drop(rustix::fs::openat(&parent, *name, flags, Mode::from_raw_mode(0o644)).map_err(failed)?);
        } else {
            mkdirat(&parent, *name, Mode::from_raw_mode(0o755)).map_err(failed)?;
        }
    }
    Ok(())
}

fn user(rootfs: &Path, image: &Loaded, security: &Security) -> Result<User, RuntimeError> {
    let mut user = match security.run_as_user {
        Some(uid) => users::resolve(rootfs, &uid.to_string())?,
        None => users::resolve(rootfs, &image.user)?,
    };
    if let Some(gid) = security.run_as_group {
        user.gid = u32::try_from(gid).map_err(|_| RuntimeError::Config(format!("group {gid} is out of range")))?;
    }
    for group in &security.supplemental_groups {
        user.groups.push(u32::try_from(*group).map_err(|_| RuntimeError::Config(format!("group {group} is out of range")))?);
    }
    Ok(user)
}

fn process(image: &Loaded, config: &ContainerConfig, user: &User) -> Result<Value, RuntimeError> {
    // As CRI: a command replaces the entry point and the image's arguments with it.
    let (mut words, rest) = match (config.command.is_empty(), config.args.is_empty()) {
        (true, true) => (image.entrypoint.clone(), image.cmd.clone()),
        (true, false) => (image.entrypoint.clone(), config.args.clone()),
        (false, _) => (config.command.clone(), config.args.clone()),
    };
    words.extend(rest);
    if words.is_empty() {
        return Err(RuntimeError::Config("no command specified".to_owned()));
    }
    let mut environment: Vec<(String, String)> = vec![("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()), ("HOME".into(), user.home.clone())];
    if config.tty {
        environment.push(("TERM".into(), "xterm".into()));
    }
    let of_image = image.env.iter().filter_map(|pair| pair.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned()));
    for (key, value) in of_image.chain(config.env.iter().cloned()) {
        environment.retain(|(existing, _)| *existing != key);
        environment.push((key, value));
    }
    let cwd = config.working_dir.clone().filter(|cwd| !cwd.is_empty()).unwrap_or_else(|| image.working_dir.clone());
    let capabilities = capabilities(&config.security);
    let is_root = user.uid == 0;
    let effective: &[String] = if is_root { &capabilities } else { &[] };
    Ok(json!({
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups},
        "args": words,
        "env": environment.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(),
        "cwd": if cwd.is_empty() { "/".to_owned() } else { cwd },
        "capabilities": {"bounding": capabilities, "effective": effective, "permitted": effective},
        "noNewPrivileges": config.security.no_new_privileges,
    }))
}

fn capabilities(security: &Security) -> Vec<String> {
    // Nobody can hand out what they do not have themselves.
    let own = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("CapPrm:")).and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX);
    let may = |name: &str| number(name).is_none_or(|bit| own >> bit & 1 == 1);
    let full = |name: &String| if name.starts_with("CAP_") { name.clone() } else { format!("CAP_{name}") };
    let all = || CAPABILITIES.iter().chain(&MORE_CAPABILITIES).map(|name| (*name).to_owned());
    let mut set: Vec<String> = if security.privileged || security.add_capabilities.iter().any(|name| name == "ALL") { all().collect() } else { CAPABILITIES.map(str::to_owned).to_vec() };
    if security.drop_capabilities.iter().any(|name| name == "ALL") {
        set.clear();
    }
    set.extend(security.add_capabilities.iter().filter(|name| *name != "ALL").map(full));
    set.retain(|name| !security.drop_capabilities.iter().any(|dropped| full(dropped) == *name) && may(name));
    set.sort();
    set.dedup();
    set
}

/// The kernel's number of a capability that this process may lack.
fn number(name: &str) -> Option<u32> {
    const NUMBERS: [(&str, u32); 6] = [("CAP_SYS_RESOURCE", 24), ("CAP_SYS_MODULE", 16), ("CAP_SYS_BOOT", 22), ("CAP_SYS_TIME", 25), ("CAP_BPF", 39), ("CAP_PERFMON", 38)];
    NUMBERS.iter().find(|(known, _)| *known == name).map(|(_, bit)| *bit)
}

fn mounts(sandbox: &Sandbox, config: &ContainerConfig) -> Value {
    let sys = if config.security.privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", sys]}),
        json!({"destination": "/dev/shm", "type": "bind", "source": sandbox.shared_memory(), "options": ["rbind", "rw"]}),
    ];
    for bind in &config.mounts {
        let access = if bind.readonly { "ro" } else { "rw" };
        mounts.push(json!({"destination": bind.container_path, "type": "bind", "source": bind.host_path, "options": ["rbind", "rprivate", access]}));
    }
    json!(mounts)
}

fn linux(sandbox: &Sandbox, id: &str, config: &ContainerConfig, host_network: bool) -> Value {
    let mut namespaces = vec![
        json!({"type": "pid"}),
        json!({"type": "mount"}),
        json!({"type": "uts", "path": sandbox.namespace("uts")}),
        json!({"type": "ipc", "path": sandbox.namespace("ipc")}),
    ];
    if !host_network {
        namespaces.push(json!({"type": "network", "path": sandbox.namespace("net")}));
    }
    let hidden = ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"];
    let fixed = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    let (masked, readonly): (&[&str], &[&str]) = if config.security.privileged { (&[], &[]) } else { (&hidden, &fixed) };
    json!({"cgroupsPath": sandbox.container_cgroup(id), "namespaces": namespaces, "resources": resources(&config.resources, config.security.privileged), "maskedPaths": masked, "readonlyPaths": readonly})
}

fn resources(limits: &Resources, privileged: bool) -> Value {
    let mut resources = json!({"devices": [{"allow": privileged, "access": "rwm"}]});
    if let Some(bytes) = limits.memory_limit_bytes {
        resources["memory"] = json!({"limit": bytes});
    }
    let mut cpu = json!({});
    for (field, value) in [("shares", limits.cpu_shares.map(|v| json!(v))), ("quota", limits.cpu_quota.map(|v| json!(v))), ("period", limits.cpu_period.map(|v| json!(v)))] {
        if let Some(value) = value {
            cpu[field] = value;
        }
    }
    if cpu.as_object().is_some_and(|fields| !fields.is_empty()) {
        resources["cpu"] = cpu;
    }
    if let Some(count) = limits.pids_limit {
        resources["pids"] = json!({"limit": count});
    }
    resources
}
