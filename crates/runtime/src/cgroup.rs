//! Control groups through their file system, never through systemd: version 1 (one tree per controller, also beside an unused
//! version 2 tree) and version 2.
//!
//! A sandbox's group is made and limited here, its containers' groups below it by libcontainer.

use crate::{Resources, mounts};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// How often a busy group is tried again, and for how long each time is waited: the kernel empties a group only some time after
/// its last process has died.
const TRIES: u32 = 200;
const TRY_MILLIS: u16 = 10;

/// Removes a group and all below it (`abide/run-1`, below the mount point of each hierarchy). None there is no error; one that still
/// has processes after two seconds is.
pub fn remove_tree(group: &str) -> io::Result<()> {
    let group = group.trim_matches('/');
    if group.is_empty()
        || Path::new(group).components().any(|part| !matches!(part, Component::Normal(_)))
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("\"{group}\" is no cgroup"),
        ));
    }
    Hierarchies::read()?.remove(group)
}

/// Where the trees are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hierarchies {
    /// Version 1: controllers (or `name=…`) and their mount points.
    V1(Vec<(Vec<String>, PathBuf)>),
    /// Version 2.
    V2(PathBuf),
}

/// One limit: the controller, its file, what to write.
pub(crate) type Setting = (&'static str, &'static str, String);

impl Hierarchies {
    /// As they are mounted now.
    pub(crate) fn read() -> io::Result<Self> {
        Hierarchies::from_mounts(&mounts::all()?)
            .ok_or_else(|| io::Error::other("no cgroup file system is mounted"))
    }

    fn from_mounts(mounts: &[mounts::MountPoint]) -> Option<Self> {
        let v1: Vec<_> = mounts
            .iter()
            .filter(|mount| mount.file_system == "cgroup")
            .map(|mount| {
                (mount.options.split(',').map(str::to_owned).collect(), mount.path.clone())
            })
            .collect();
        if !v1.is_empty() {
            return Some(Hierarchies::V1(v1));
        }
        let v2 = mounts.iter().find(|mount| mount.file_system == "cgroup2")?;
        Some(Hierarchies::V2(v2.path.clone()))
    }

    fn roots(&self) -> Vec<&Path> {
        match self {
            Hierarchies::V1(mounts) => {
                let unique: BTreeSet<&Path> =
                    mounts.iter().map(|(_, path)| path.as_path()).collect();
                unique.into_iter().collect()
            }
            Hierarchies::V2(root) => vec![root],
        }
    }

    fn controller(&self, controller: &str) -> Option<&Path> {
        match self {
            Hierarchies::V1(mounts) => mounts
                .iter()
                .find(|(controllers, _)| controllers.iter().any(|known| known == controller))
                .map(|(_, path)| path.as_path()),
            Hierarchies::V2(root) => Some(root),
        }
    }

    /// Makes a group and sets its limits.
    pub(crate) fn create(&self, cgroup: &str, resources: &Resources) -> io::Result<()> {
        if let Hierarchies::V2(root) = self {
            enable_controllers(root, cgroup)?;
        }
        for controller in ["cpu", "memory", "pids"] {
            if let Some(root) = self.controller(controller) {
                fs::create_dir_all(root.join(cgroup))?;
            }
        }
        for (controller, file, value) in self.settings(resources) {
            let root = self.controller(controller);
            let root = root.ok_or_else(|| {
                io::Error::other(format!("no cgroup controller {controller} for {file}"))
            })?;
            let path = root.join(cgroup).join(file);
            fs::write(&path, &value).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("write {value} to {}: {error}", path.display()),
                )
            })?;
        }
        Ok(())
    }

    /// What to write where.
    pub(crate) fn settings(&self, resources: &Resources) -> Vec<Setting> {
        match self {
            Hierarchies::V1(_) => settings_v1(resources),
            Hierarchies::V2(_) => settings_v2(resources),
        }
    }

    /// How many processes of this very group the kernel has killed for want of memory.
    pub(crate) fn oom_kills(&self, cgroup: &str) -> u64 {
        let file = match self {
            Hierarchies::V1(_) => "memory.oom_control",
            Hierarchies::V2(_) => "memory.events",
        };
        let text = self
            .controller("memory")
            .and_then(|root| fs::read_to_string(root.join(cgroup).join(file)).ok());
        let text = text.unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix("oom_kill "))
            .and_then(|n| n.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Every process in a group and below.
    pub(crate) fn processes(&self, cgroup: &str) -> Vec<i32> {
        let mut pids = BTreeSet::new();
        for root in self.roots() {
            collect(&root.join(cgroup), &mut pids);
        }
        pids.into_iter().collect()
    }

    /// Kills every process in a group and below, until there is none.
    pub(crate) fn kill_all(&self, cgroup: &str) -> io::Result<()> {
        for _ in 0..TRIES {
            let pids = self.processes(cgroup);
            if pids.is_empty() {
                return Ok(());
            }
            for pid in pids {
                // It may have died meanwhile; who is left is seen in the next round.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            pause();
        }
        Err(io::Error::other(format!("processes in cgroup {cgroup} do not die")))
    }

    /// Removes a group and those below it. None there is no error; one that still has processes is.
    pub(crate) fn remove(&self, cgroup: &str) -> io::Result<()> {
        self.roots().into_iter().try_for_each(|root| remove_folders(&root.join(cgroup)))
    }

    /// Removes a group that has neither processes nor groups below it, if that is so.
    pub(crate) fn remove_if_empty(&self, cgroup: &str) {
        for root in self.roots() {
            // Refused where somebody still uses it, which is the point.
            let _ = fs::remove_dir(root.join(cgroup));
        }
    }

    /// Moves this process out of the systemd unit that it was started in, for systemd ends a unit by killing all in it.
    pub(crate) fn leave_unit(&self, cgroup: &str) -> io::Result<()> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let (tree, root) = match self {
            Hierarchies::V1(_) => ("name=systemd", self.controller("name=systemd")),
            Hierarchies::V2(root) => ("", Some(root.as_path())),
        };
        let Some(root) = root else { return Ok(()) };
        let in_unit = own.lines().any(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            fields.next() == Some(tree)
                && fields
                    .next()
                    .is_some_and(|path| path.contains(".service") || path.contains(".scope"))
        });
        if !in_unit {
            return Ok(());
        }
        fs::create_dir_all(root.join(cgroup))?;
        fs::write(root.join(cgroup).join("cgroup.procs"), "0")
    }
}

/// Version 2 hands a controller down only where the parent says so.
fn enable_controllers(root: &Path, cgroup: &str) -> io::Result<()> {
    let available = fs::read_to_string(root.join("cgroup.controllers"))?;
    let mut group = root.to_owned();
    for part in Path::new(cgroup).components() {
        for controller in available
            .split_whitespace()
            .filter(|name| matches!(*name, "cpu" | "memory" | "pids" | "cpuset" | "io"))
        {
            // A controller that cannot be enabled here is noticed when a limit needs it.
            let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        group = group.join(part);
        match fs::create_dir(&group) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn settings_v1(resources: &Resources) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    let mut set = |controller, file, value: Option<String>| {
        settings.extend(value.map(|value| (controller, file, value)));
    };
    set("cpu", "cpu.shares", resources.cpu_shares.map(|n| n.to_string()));
    set("cpu", "cpu.cfs_period_us", resources.cpu_period.map(|n| n.to_string()));
    set("cpu", "cpu.cfs_quota_us", resources.cpu_quota.map(|n| n.to_string()));
    set("memory", "memory.limit_in_bytes", resources.memory_limit_bytes.map(|n| n.to_string()));
    set("pids", "pids.max", resources.pids_limit.map(unlimited));
    settings
}

fn settings_v2(resources: &Resources) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    let mut set = |controller, file, value: Option<String>| {
        settings.extend(value.map(|value| (controller, file, value)));
    };
    set("cpu", "cpu.weight", resources.cpu_shares.map(|shares| weight(shares).to_string()));
    let period = resources.cpu_period.unwrap_or(100_000);
    set(
        "cpu",
        "cpu.max",
        resources.cpu_quota.map(|quota| format!("{} {period}", unlimited(quota))),
    );
    set("memory", "memory.max", resources.memory_limit_bytes.map(unlimited));
    set("pids", "pids.max", resources.pids_limit.map(unlimited));
    settings
}

fn unlimited(limit: i64) -> String {
    if limit > 0 { limit.to_string() } else { "max".to_owned() }
}

/// Shares (2 to 262144) as weight (1 to 10000). As in runc's and libcontainer's conversion.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

fn collect(group: &Path, pids: &mut BTreeSet<i32>) {
    let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    pids.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    for child in children(group) {
        collect(&child, pids);
    }
}

fn children(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(group) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove_folders(group: &Path) -> io::Result<()> {
    for child in children(group) {
        remove_folders(&child)?;
    }
    for _ in 0..TRIES {
        match fs::remove_dir(group) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => pause(),
            Err(error) => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("remove {}: {error}", group.display()),
                ));
            }
        }
    }
    Err(io::Error::other(format!("cgroup {} stays busy", group.display())))
}

/// Waits for the kernel, which tells nobody when a version 1 group has become empty.
fn pause() {
    // Cut short by a signal is as good.
    let _ = nix::poll::poll(&mut [], TRY_MILLIS);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Resources {
        Resources {
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            memory_limit_bytes: Some(1 << 26),
            pids_limit: Some(-1),
        }
    }

    fn written(settings: Vec<Setting>) -> Vec<String> {
        settings.into_iter().map(|(_, file, value)| format!("{file}={value}")).collect()
    }

    #[test]
    fn limits_are_written_as_each_version_wants_them() {
        assert_eq!(
            written(settings_v1(&limits())),
            [
                "cpu.shares=1024",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "memory.limit_in_bytes=67108864",
                "pids.max=max"
            ]
        );
        assert_eq!(
            written(settings_v2(&limits())),
            ["cpu.weight=39", "cpu.max=50000 100000", "memory.max=67108864", "pids.max=max"]
        );
        assert_eq!(written(settings_v2(&Resources::default())), Vec::<String>::new());
        assert_eq!(
            (weight(0), weight(2), weight(262_144), weight(u64::MAX)),
            (1, 1, 10_000, 10_000)
        );
    }

    #[test]
    fn a_version_2_group_gets_its_controllers_from_above() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "cpuset cpu io memory hugetlb pids")
            .unwrap();
        let hierarchies = Hierarchies::V2(root.path().to_owned());
        hierarchies.create("abide/pod", &limits()).unwrap();
        let read = |file: &str| fs::read_to_string(root.path().join(file)).unwrap();
        assert_eq!(read("abide/pod/memory.max"), "67108864");
        assert_eq!(read("abide/pod/cpu.max"), "50000 100000");
        // A plain file keeps what was written last; the kernel's takes them one by one.
        assert_eq!(
            (read("cgroup.subtree_control"), read("abide/cgroup.subtree_control")),
            ("+pids".into(), "+pids".into())
        );
        fs::write(root.path().join("abide/pod/memory.events"), "low 0\noom 3\noom_kill 2\n")
            .unwrap();
        assert_eq!(hierarchies.oom_kills("abide/pod"), 2);
        assert_eq!(hierarchies.oom_kills("abide/other"), 0);
    }

    #[test]
    fn version_1_wins_where_both_are_mounted() {
        let mount = |path: &str, kind: &str, options: &str| mounts::MountPoint {
            path: path.into(),
            file_system: kind.into(),
            options: options.into(),
        };
        let v1 = mount("/c/cpu", "cgroup", "rw,cpu,cpuacct");
        let v2 = mount("/c/unified", "cgroup2", "rw");
        let hybrid = Hierarchies::from_mounts(&[v2.clone(), v1]).unwrap();
        assert_eq!(hybrid.controller("cpuacct"), Some(Path::new("/c/cpu")));
        assert_eq!(hybrid.controller("memory"), None);
        assert_eq!(Hierarchies::from_mounts(&[v2]), Some(Hierarchies::V2("/c/unified".into())));
        assert_eq!(Hierarchies::from_mounts(&[]), None);
    }
}
