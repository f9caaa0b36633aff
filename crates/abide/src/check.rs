//! What the machine must offer, checked before anything is changed. What is missing is said in one line each, with the
//! remedy.

use anyhow::{Result, bail};
use std::path::Path;

/// Refuses with every finding at once.
pub(crate) fn machine() -> Result<()> {
    let findings = findings();
    if findings.is_empty() {
        return Ok(());
    }
    bail!("this machine cannot run pods yet:\n  {}", findings.join("\n  "))
}

fn findings() -> Vec<String> {
    let mut findings = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        findings.push("containers need root: start abide with sudo, or as root".to_owned());
    }
    for (file, what) in [
        ("net", "network"),
        ("mnt", "mount"),
        ("pid", "process"),
        ("ipc", "IPC"),
        ("uts", "host name"),
    ] {
        if !Path::new("/proc/self/ns").join(file).exists() {
            findings.push(format!(
                "the kernel has no {what} namespaces: use a kernel with CONFIG_NAMESPACES"
            ));
        }
    }
    let file_systems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !file_systems.lines().any(|line| line.trim_end().ends_with("overlay")) && !module("overlay")
    {
        findings.push("the kernel has no overlayfs: load it with `modprobe overlay`".to_owned());
    }
    if !has_cgroups() {
        findings
            .push("no cgroup file system is mounted: mount cgroup2 on /sys/fs/cgroup".to_owned());
    }
    if !in_path("nft") {
        findings.push("the program nft is missing: install the package nftables".to_owned());
    }
    findings
}

/// Whether the kernel could load the module on demand.
fn module(name: &str) -> bool {
    let Ok(release) = std::fs::read_to_string("/proc/sys/kernel/osrelease") else { return false };
    let list = Path::new("/lib/modules").join(release.trim()).join("modules.dep");
    std::fs::read_to_string(list)
        .is_ok_and(|text| text.lines().any(|line| line.contains(&format!("/{name}.ko"))))
}

fn has_cgroups() -> bool {
    std::fs::read_to_string("/proc/self/mounts").is_ok_and(|text| {
        text.lines()
            .any(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup")))
    })
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(program).is_file())
}
