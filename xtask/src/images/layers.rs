//! Layers: tars that images are made of.

use super::recipes::{Content, Recipe};
use super::{folder, hex};
use crate::{step, system};
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What no image needs: the same for all.
const LEFT_OUT: &[&str] =
    &["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"];

/// Where a layer is (or will be). A change of what it holds changes its name.
pub(super) fn path(content: &Content) -> PathBuf {
    let key = match content {
        Content::Debian { key, .. } => {
            format!("{key}-{}", &hex(&Sha256::digest(format!("{content:?}")))[..12])
        }
        Content::Busybox => "busybox".to_owned(),
    };
    folder().join(format!("layer-{key}.tar"))
}

/// Makes a layer.
pub(super) fn make(content: &Content) -> Result<()> {
    let tar = path(content);
    let unfinished = tar.with_extension("unfinished.tar");
    if unfinished.exists() {
        std::fs::remove_file(&unfinished)?;
    }
    match content {
        Content::Debian { .. } => debian(content, &unfinished)?,
        Content::Busybox => busybox(&unfinished)?,
    }
    std::fs::rename(&unfinished, &tar).with_context(|| format!("keep {}", tar.display()))?;
    forget_older(content, &tar)
}

/// Removes the layers that earlier recipes of the same content made.
fn forget_older(content: &Content, tar: &Path) -> Result<()> {
    let Content::Debian { key, .. } = content else { return Ok(()) };
    for entry in std::fs::read_dir(folder())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let same = name
            .strip_prefix(&format!("layer-{key}-"))
            .is_some_and(|rest| rest.len() == "0123456789ab.tar".len() && rest.ends_with(".tar"));
        if same && entry.path() != tar {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn debian(content: &Content, tar: &Path) -> Result<()> {
    let Content::Debian { key, packages, user, without, customize } = content else {
        return Ok(());
    };
    eprintln!("image layer {key}: Debian packages {} (about 20 s)", packages.join(", "));
    let mut command = Command::new(system::find("mmdebstrap").context("mmdebstrap is missing")?);
    command.args(["--quiet", "--variant=essential", "--format=tar"]);
    for path in LEFT_OUT.iter().chain(*without) {
        command.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    if let Some((name, home)) = user {
        // Before the packages, which would give their user whatever number is free.
        command.arg(format!(
            "--essential-hook=echo '{name}:x:999:999::{home}:/bin/bash' >> \"$1\"/etc/passwd; echo '{name}:x:999:' >> \"$1\"/etc/group"
        ));
    }
    for line in *customize {
        command.arg(format!("--customize-hook={line}"));
    }
    command.arg(format!("--include={}", packages.join(",")));
    // Not shown: the line is longer than a screen, and two run at the same time.
    let status = command.arg("bookworm").arg(tar).status().context("start mmdebstrap")?;
    ensure!(status.success(), "mmdebstrap, for the image layer {key}: {status}");
    Ok(())
}

fn busybox(tar: &Path) -> Result<()> {
    let busybox = system::find("busybox").context("busybox is missing")?;
    let folder = tempfile::tempdir()?;
    for name in ["bin", "etc", "tmp", "root", "var", "usr"] {
        std::fs::create_dir(folder.path().join(name))?;
    }
    std::fs::copy(&busybox, folder.path().join("bin/busybox"))?;
    std::fs::write(
        folder.path().join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    std::fs::write(folder.path().join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    let applets = Command::new(&busybox).arg("--list").output()?;
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|a| *a != "busybox") {
        std::os::unix::fs::symlink("busybox", folder.path().join("bin").join(applet))?;
    }
    step(Command::new("chmod").arg("1777").arg(folder.path().join("tmp")))?;
    pack(folder.path(), &["."], tar)
}

/// Makes the layer that holds an image's own files, executable, and folders.
pub(super) fn of_recipe(recipe: &Recipe, tar: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut paths = Vec::new();
    for file in recipe.files {
        let path = folder.path().join(file.path);
        std::fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
        std::fs::write(&path, file.text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        paths.push(file.path);
    }
    // The files alone: a folder would change the owner and mode of the one below.
    pack(folder.path(), &paths, tar)?;
    for (path, mode) in recipe.folders {
        std::fs::create_dir_all(folder.path().join(path))?;
        step(
            Command::new("tar")
                .args(["--owner=999", "--group=999", "--mtime=@0", "--no-recursion"])
                .arg(format!("--mode={mode:o}"))
                .arg("-C")
                .arg(folder.path())
                .arg("-rf")
                .arg(tar)
                .arg(path),
        )?;
    }
    Ok(())
}

fn pack(folder: &Path, paths: &[&str], tar: &Path) -> Result<()> {
    step(
        Command::new("tar")
            .args(["--numeric-owner", "--owner=0", "--group=0", "--mtime=@0", "--sort=name", "-C"])
            .arg(folder)
            .arg("-cf")
            .arg(tar)
            .args(paths),
    )
}
