//! The OCI runtime specification of a container, computed from what CRI and the image say.

use super::users::User;
use crate::images::ImageConfig;
use crate::layout::SandboxDir;
use crate::{ContainerConfig, Mount, Resources, RuntimeError};
use serde_json::{Value, json};
use std::path::Path;

/// Where programs are looked for if neither image nor pod says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Hidden from a container that is not privileged; as containerd.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Not writable in a container that is not privileged; as containerd.
const READONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// All that a specification is computed from.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    pub(crate) sandbox: &'a SandboxDir,
    pub(crate) hostname: &'a str,
    pub(crate) host_network: bool,
    pub(crate) container: &'a ContainerConfig,
    pub(crate) image: &'a ImageConfig,
    pub(crate) user: &'a User,
    pub(crate) capabilities: &'a [String],
    /// Of the whole container, below the mount points, without a leading slash.
    pub(crate) cgroup: &'a str,
    /// Device nodes of the host, for privileged containers.
    pub(crate) devices: &'a [Value],
    pub(crate) unified_cgroups: bool,
}

/// The command line by CRI's rules: a command replaces the image's entry point and its arguments.
pub(crate) fn arguments(
    container: &ContainerConfig,
    image: &ImageConfig,
) -> Result<Vec<String>, RuntimeError> {
    let mut arguments = container.command.clone();
    let mut rest = container.args.clone();
    if arguments.is_empty() {
        if rest.is_empty() {
            rest.clone_from(&image.cmd);
        }
        arguments.clone_from(&image.entrypoint);
    }
    arguments.append(&mut rest);
    if arguments.is_empty() {
        return Err(RuntimeError::Config(
            "failed to generate container spec: no command specified".into(),
        ));
    }
    Ok(arguments)
}

/// Where the main process starts.
pub(crate) fn working_dir(
    container: &ContainerConfig,
    image: &ImageConfig,
) -> Result<String, RuntimeError> {
    let given = container
        .working_dir
        .clone()
        .filter(|dir| !dir.is_empty())
        .unwrap_or_else(|| image.working_dir.clone());
    let dir = if given.is_empty() { "/".to_owned() } else { given };
    if dir.starts_with('/') {
        Ok(dir)
    } else {
        Err(RuntimeError::Config(format!("working directory {dir} is not absolute")))
    }
}

/// PATH and HOSTNAME, then the image's variables, then the container's; the last of a name wins, in the place of the first.
pub(crate) fn environment(
    hostname: &str,
    image: &ImageConfig,
    container: &ContainerConfig,
) -> Vec<String> {
    let mut variables: Vec<(String, String)> =
        vec![("PATH".into(), PATH.into()), ("HOSTNAME".into(), hostname.into())];
    if container.tty {
        variables.push(("TERM".into(), "xterm".into()));
    }
    let of_image = image.env.iter().map(|entry| entry.split_once('=').unwrap_or((entry, "")));
    let of_image = of_image.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for (name, value) in of_image.chain(container.env.iter().cloned()) {
        match variables.iter_mut().find(|(known, _)| *known == name) {
            Some(variable) => variable.1 = value,
            None => variables.push((name, value)),
        }
    }
    variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// The whole specification.
pub(crate) fn build(input: &Input<'_>) -> Result<Value, RuntimeError> {
    let privileged = input.container.security.privileged;
    let caps = input.capabilities;
    let mut linux = json!({
        "cgroupsPath": format!("/{}", input.cgroup),
        "namespaces": namespaces(input),
        "resources": resources(&input.container.resources, privileged),
        "maskedPaths": if privileged { &[][..] } else { &MASKED[..] },
        "readonlyPaths": if privileged { &[][..] } else { &READONLY[..] },
    });
    if privileged {
        linux["devices"] = json!(input.devices);
    }
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": input.container.tty,
            "user": {"uid": input.user.uid, "gid": input.user.gid, "additionalGids": input.user.additional_gids},
            "args": arguments(input.container, input.image)?,
            "env": environment(input.hostname, input.image, input.container),
            "cwd": working_dir(input.container, input.image)?,
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "noNewPrivileges": input.container.security.no_new_privileges,
        },
        "root": {"path": "rootfs", "readonly": input.container.security.readonly_rootfs},
        "mounts": mounts(input),
        "linux": linux,
    }))
}

fn namespaces(input: &Input<'_>) -> Vec<Value> {
    let mut namespaces = vec![json!({"type": "pid"}), json!({"type": "mount"})];
    let mut join = |kind: &str, file: &str| {
        namespaces.push(json!({"type": kind, "path": input.sandbox.namespace(file)}));
    };
    join("ipc", "ipc");
    join("uts", "uts");
    if !input.host_network {
        join("network", "net");
    }
    if input.unified_cgroups {
        namespaces.push(json!({"type": "cgroup"}));
    }
    namespaces
}

fn mounts(input: &Input<'_>) -> Vec<Value> {
    let writable = if input.container.security.privileged { "rw" } else { "ro" };
    let bind = |from: &Path, to: &str, options: &[&str]| json!({"destination": to, "type": "bind", "source": from, "options": options});
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
               "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
               "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
               "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
               "options": ["nosuid", "noexec", "nodev", writable]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
               "options": ["nosuid", "noexec", "nodev", "relatime", writable]}),
        bind(
            &input.sandbox.shm(),
            "/dev/shm",
            &["rbind", "rprivate", "rw", "nosuid", "noexec", "nodev"],
        ),
    ];
    let hostname = Path::new("/etc/hostname");
    if !input.container.mounts.iter().any(|mount| mount.container_path == hostname) {
        mounts.push(bind(&input.sandbox.hostname(), "/etc/hostname", &["rbind", "rprivate", "rw"]));
    }
    for Mount { host_path, container_path, readonly } in &input.container.mounts {
        let mode = if *readonly { "ro" } else { "rw" };
        mounts.retain(|mount| mount["destination"].as_str().map(Path::new) != Some(container_path));
        mounts.push(bind(
            host_path,
            &container_path.to_string_lossy(),
            &["rbind", "rprivate", mode],
        ));
    }
    mounts
}

fn resources(resources: &Resources, privileged: bool) -> Value {
    let mut cpu = serde_json::Map::new();
    let mut set =
        |name: &str, value: Option<Value>| value.map(|value| cpu.insert(name.to_owned(), value));
    set("shares", resources.cpu_shares.map(Value::from));
    set("quota", resources.cpu_quota.map(Value::from));
    set("period", resources.cpu_period.map(Value::from));
    let mut all = json!({ "devices": [{"allow": privileged, "access": "rwm"}] });
    if !cpu.is_empty() {
        all["cpu"] = Value::Object(cpu);
    }
    if let Some(limit) = resources.memory_limit_bytes {
        all["memory"] = json!({ "limit": limit });
    }
    if let Some(limit) = resources.pids_limit {
        all["pids"] = json!({ "limit": limit });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Security;

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["default".into()],
            env: vec!["PATH=/image".into(), "A=1".into(), "EMPTY".into()],
            ..ImageConfig::default()
        }
    }

    fn container(command: &[&str], args: &[&str]) -> ContainerConfig {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        ContainerConfig { command: words(command), args: words(args), ..ContainerConfig::default() }
    }

    fn spec(container: &ContainerConfig, host_network: bool) -> Value {
        let input = Input {
            sandbox: &SandboxDir("/s".into()),
            hostname: "web-0",
            host_network,
            container,
            image: &image(),
            user: &User::default(),
            capabilities: &["CAP_KILL".to_owned()],
            cgroup: "abide/s/c",
            devices: &[],
            unified_cgroups: false,
        };
        build(&input).unwrap()
    }

    #[test]
    fn command_and_arguments_follow_the_rules_of_kubernetes() {
        let told = |command: &[&str], args: &[&str]| {
            arguments(&container(command, args), &image()).unwrap()
        };
        assert_eq!(told(&[], &[]), ["/entry", "default"]);
        assert_eq!(told(&[], &["x"]), ["/entry", "x"]);
        assert_eq!(told(&["sh"], &[]), ["sh"]);
        assert_eq!(told(&["sh"], &["-c"]), ["sh", "-c"]);
        let nothing = arguments(&container(&[], &[]), &ImageConfig::default()).unwrap_err();
        assert!(
            matches!(nothing, RuntimeError::Config(text) if text.ends_with("no command specified"))
        );
    }

    #[test]
    fn the_containers_environment_wins_over_the_images() {
        let mut given = container(&[], &[]);
        given.env =
            vec![("A".into(), "2".into()), ("B".into(), "x=y".into()), ("A".into(), "3".into())];
        let told = environment("web-0", &image(), &given);
        assert_eq!(told, ["PATH=/image", "HOSTNAME=web-0", "A=3", "EMPTY=", "B=x=y"]);
    }

    #[test]
    fn namespaces_are_the_sandboxs_own() {
        let kinds = |spec: Value| -> Vec<String> {
            let list = spec["linux"]["namespaces"].as_array().unwrap().clone();
            list.iter()
                .map(|ns| {
                    format!(
                        "{}={}",
                        ns["type"].as_str().unwrap(),
                        ns["path"].as_str().unwrap_or("")
                    )
                })
                .collect()
        };
        assert_eq!(
            kinds(spec(&container(&[], &[]), false)),
            ["pid=", "mount=", "ipc=/s/ns/ipc", "uts=/s/ns/uts", "network=/s/ns/net"]
        );
        assert_eq!(kinds(spec(&container(&[], &[]), true)).len(), 4);
    }

    #[test]
    fn a_mount_of_the_pod_replaces_one_of_ours() {
        let mut given = container(&[], &[]);
        for path in ["/etc/hostname", "/dev/shm", "/data"] {
            given.mounts.push(Mount {
                host_path: "/h".into(),
                container_path: path.into(),
                readonly: true,
            });
        }
        let spec = spec(&given, false);
        let mounts = spec["mounts"].as_array().unwrap();
        for path in ["/etc/hostname", "/dev/shm", "/data"] {
            let found: Vec<_> =
                mounts.iter().filter(|mount| mount["destination"] == path).collect();
            assert_eq!(found.len(), 1, "{path}");
            assert_eq!(found[0]["source"], "/h");
            assert_eq!(found[0]["options"][2], "ro");
        }
    }

    #[test]
    fn a_privileged_container_sees_everything() {
        let mut given = container(&[], &[]);
        given.security = Security { privileged: true, ..Security::default() };
        let spec = spec(&given, false);
        assert_eq!(spec["linux"]["maskedPaths"], json!([]));
        assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], true);
    }
}
