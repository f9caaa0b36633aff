//! cgroups, versions 1 and 2, by their file systems.

use std::io;
use std::path::{Path, PathBuf};

/// The root of every mounted hierarchy.
pub fn hierarchies() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (_, path, kind) = (words.next()?, words.next()?, words.next()?);
            ["cgroup", "cgroup2"].contains(&kind).then(|| PathBuf::from(path))
        })
        .collect()
}

/// Removes a cgroup and all below it from every hierarchy. They must be empty of processes; absent ones are fine.
pub fn remove_tree(group: &str) -> io::Result<()> {
    let mut result = Ok(());
    for hierarchy in hierarchies() {
        if let Err(error) = remove(&hierarchy.join(group.trim_start_matches('/'))) {
            result = Err(error);
        }
    }
    result
}

fn remove(path: &Path) -> io::Result<()> {
    let children = match std::fs::read_dir(path) {
        Ok(children) => children,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for child in children.flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&child.path())?;
        }
    }
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether the kernel killed something in the group because its memory ran out.
pub fn was_oom_killed(group: &str) -> bool {
    hierarchies().iter().any(|hierarchy| {
        ["memory.oom_control", "memory.events"].iter().any(|file| {
            let text = std::fs::read_to_string(hierarchy.join(group.trim_start_matches('/')).join(file)).unwrap_or_default();
            text.lines().filter_map(|line| line.split_once(' ')).any(|(key, count)| key == "oom_kill" && count.trim() != "0")
        })
    })
}

/// Every process in the group or below it.
pub fn processes(group: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        let mut folders = vec![hierarchy.join(group.trim_start_matches('/'))];
        while let Some(folder) = folders.pop() {
            let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            let children = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            folders.extend(children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir())).map(|child| child.path()));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}
