//! `cargo xtask dist`: a Debian package of the binary, its service, its manual and its completions.

use crate::{cargo, root, step, target};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/abide"),
    ("zsh", "usr/share/zsh/vendor-completions/_abide"),
    ("fish", "usr/share/fish/vendor_completions.d/abide.fish"),
];

/// What to package, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A binary that is there; a release build is made if none is named.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where the package is written.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Compress little: quicker, larger.
    #[arg(long)]
    fast: bool,
}

/// Builds the package and prints where it is.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let binary = match arguments.binary {
        Some(binary) => binary,
        None => {
            step(&mut cargo(&["build", "--release", "--package", "abide"]))?;
            target().join("release/abide")
        }
    };
    let output = arguments.output.unwrap_or_else(|| target().join("dist"));
    fs::create_dir_all(&output).with_context(|| format!("make {}", output.display()))?;
    let tree = tempfile::tempdir_in(&output)?;
    fill(tree.path(), &binary)?;
    let version = version(&binary)?;
    fs::create_dir(tree.path().join("DEBIAN"))?;
    control(tree.path(), &version)?;
    let package = output.join(format!("abide_{version}_{}.deb", architecture()?));
    let compression = if arguments.fast { ["-Zgzip", "-z1"] } else { ["-Zxz", "-z6"] };
    step(
        Command::new("dpkg-deb")
            .args(compression)
            .args(["--root-owner-group", "--build"])
            .arg(tree.path())
            .arg(&package),
    )?;
    let size = package.metadata()?.len() as f64 / 1_048_576.0;
    eprintln!("{} ({size:.1} MiB)", package.display());
    Ok(())
}

/// Puts every file in its place.
fn fill(tree: &Path, binary: &Path) -> Result<()> {
    fs::set_permissions(tree, fs::Permissions::from_mode(0o755))?;
    let program = place(tree, "usr/bin/abide", &[], 0o755)?;
    step(Command::new("strip").arg("--strip-all").arg("-o").arg(&program).arg(binary))?;
    let packaging = root().join("packaging");
    let copy = |from: PathBuf, to: &str| -> Result<()> {
        let text = fs::read(&from).with_context(|| format!("read {}", from.display()))?;
        place(tree, to, &text, 0o644).map(drop)
    };
    copy(packaging.join("abide.service"), "lib/systemd/system/abide.service")?;
    copy(packaging.join("debian/default"), "etc/default/abide")?;
    copy(root().join("LICENSE"), "usr/share/doc/abide/copyright")?;
    for (shell, path) in COMPLETIONS {
        place(tree, path, &printed(binary, &["completions", shell])?, 0o644)?;
    }
    let manual = place(tree, "usr/share/man/man1/abide.1", &printed(binary, &["manual"])?, 0o644)?;
    step(Command::new("gzip").args(["-9", "--no-name"]).arg(manual))
}

/// Package data and scripts of the maintainer.
fn control(tree: &Path, version: &str) -> Result<()> {
    let kib = Command::new("du").args(["-sk", "--exclude=DEBIAN"]).arg(tree).output()?;
    let kib = String::from_utf8_lossy(&kib.stdout);
    let text = format!(
        "Package: abide\nVersion: {version}\nArchitecture: {}\nMaintainer: the developers of abide <abide@localhost>\n\
         Section: admin\nPriority: optional\nInstalled-Size: {}\nDepends: libc6 (>= 2.34), nftables, tar\n\
         Recommends: ca-certificates\nDescription: Kubernetes StatefulSets in one small binary\n \
         An API server that kubectl and helm talk to, the controllers behind\n StatefulSets, and a node that runs their \
         pods as OCI containers with a\n stable name, order, address and disk.\n",
        architecture()?,
        kib.split_whitespace().next().unwrap_or("0"),
    );
    place(tree, "DEBIAN/control", text.as_bytes(), 0o644)?;
    place(tree, "DEBIAN/conffiles", b"/etc/default/abide\n", 0o644)?;
    for script in ["postinst", "prerm", "postrm"] {
        let text = fs::read(root().join("packaging/debian").join(script))?;
        place(tree, &format!("DEBIAN/{script}"), &text, 0o755)?;
    }
    Ok(())
}

fn place(tree: &Path, path: &str, content: &[u8], mode: u32) -> Result<PathBuf> {
    let path = tree.join(path);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    Ok(path)
}

fn printed(binary: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(binary)
        .args(arguments)
        .output()
        .with_context(|| format!("start {}", binary.display()))?;
    ensure!(output.status.success(), "abide {}: {}", arguments.join(" "), output.status);
    Ok(output.stdout)
}

fn version(binary: &Path) -> Result<String> {
    let text = String::from_utf8(printed(binary, &["version"])?)?;
    let word = text.split_whitespace().nth(1).context("abide version prints its version")?;
    Ok(word.to_owned())
}

fn architecture() -> Result<String> {
    let output = Command::new("dpkg").arg("--print-architecture").output().context("start dpkg")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
