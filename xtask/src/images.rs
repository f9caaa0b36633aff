//! Container images from Debian's packages, under the public names that manifests use, for machines without a
//! registry. Each is an OCI archive under `target/images/`, built once.
//!
//! They are stand-ins: the program is the one that Debian has, whatever version the name says.

use crate::{step, system, target};
use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How an image is made.
struct Recipe {
    /// The public name.
    name: &'static str,
    /// What its one layer holds. Recipes with the same content share the layer.
    content: Content,
    /// Entry point.
    entrypoint: &'static [&'static str],
    /// Default arguments.
    cmd: &'static [&'static str],
    /// Signal that asks the main process to end.
    stop_signal: &'static str,
}

/// What a layer holds.
#[derive(Clone, Copy, PartialEq)]
enum Content {
    /// Debian's essential packages and these.
    Debian {
        key: &'static str,
        packages: &'static [&'static str],
        customize: &'static [&'static str],
    },
    /// One static busybox and its names.
    Busybox,
}

const NGINX: Content = Content::Debian {
    key: "nginx",
    packages: &["nginx-light", "procps", "curl"],
    customize: &[
        "mkdir -p \"$1\"/usr/share/nginx/html",
        "cp \"$1\"/var/www/html/index.nginx-debian.html \"$1\"/usr/share/nginx/html/index.html",
        "sed -i 's|root /var/www/html;|root /usr/share/nginx/html;|; s|index index.html index.htm index.nginx-debian.html;|index index.html;|' \"$1\"/etc/nginx/sites-available/default",
        "ln -sf /dev/stdout \"$1\"/var/log/nginx/access.log",
        "ln -sf /dev/stderr \"$1\"/var/log/nginx/error.log",
    ],
};

const CURL: Content = Content::Debian {
    key: "curl",
    packages: &["curl", "busybox-static", "ca-certificates"],
    customize: &["for name in nslookup wget ping vi; do ln -sf busybox \"$1\"/bin/$name; done"],
};

const RECIPES: &[Recipe] = &[
    Recipe {
        name: "nginx:1.12",
        content: NGINX,
        entrypoint: &[],
        cmd: &["nginx", "-g", "daemon off;"],
        stop_signal: "SIGQUIT",
    },
    Recipe {
        name: "nginx:1.13",
        content: NGINX,
        entrypoint: &[],
        cmd: &["nginx", "-g", "daemon off;"],
        stop_signal: "SIGQUIT",
    },
    Recipe {
        name: "appropriate/curl",
        content: CURL,
        entrypoint: &["curl"],
        cmd: &["-h"],
        stop_signal: "SIGTERM",
    },
    Recipe {
        name: "busybox",
        content: Content::Busybox,
        entrypoint: &[],
        cmd: &["sh"],
        stop_signal: "SIGTERM",
    },
];

/// Builds the named images (all, if none is named) and prints where each is.
pub(crate) fn run(names: &[String], list: bool) -> Result<()> {
    if list {
        for recipe in RECIPES {
            eprintln!("{}", recipe.name);
        }
        return Ok(());
    }
    system::need_root()?;
    system::install()?;
    let wanted: Vec<&str> = if names.is_empty() {
        RECIPES.iter().map(|r| r.name).collect()
    } else {
        names.iter().map(String::as_str).collect()
    };
    for path in build(&wanted)? {
        eprintln!("{}", path.display());
    }
    Ok(())
}

/// Builds what is not there yet and returns the archives, in the order asked for.
pub(crate) fn build(names: &[&str]) -> Result<Vec<PathBuf>> {
    names
        .iter()
        .map(|name| {
            let Some(recipe) = RECIPES.iter().find(|recipe| recipe.name == *name) else {
                let known: Vec<&str> = RECIPES.iter().map(|r| r.name).collect();
                bail!("no recipe for image {name:?}; there are: {}", known.join(", "));
            };
            image(recipe).with_context(|| format!("build image {name}"))
        })
        .collect()
}

/// Where an image's archive is (or will be).
pub(crate) fn archive(name: &str) -> PathBuf {
    folder().join(format!("{}.tar", name.replace(['/', ':'], "_")))
}

fn folder() -> PathBuf {
    target().join("images")
}

fn image(recipe: &Recipe) -> Result<PathBuf> {
    let archive = archive(recipe.name);
    if archive.is_file() {
        return Ok(archive);
    }
    std::fs::create_dir_all(folder())?;
    let layer = layer(recipe.content)?;
    eprintln!("image {}: packing", recipe.name);
    write_archive(recipe, &layer, &archive)?;
    Ok(archive)
}

/// The tar of a layer, kept beside the images, and under the user's cache where there is one.
fn layer(content: Content) -> Result<PathBuf> {
    let key = match content {
        Content::Debian { key, packages, customize } => {
            let recipe = Sha256::digest(format!("{packages:?}{customize:?}"));
            format!("{key}-{}", &hex(&recipe)[..12])
        }
        Content::Busybox => "busybox".to_owned(),
    };
    let tar = folder().join(format!("layer-{key}.tar"));
    if tar.is_file() {
        return Ok(tar);
    }
    let unfinished = folder().join(format!("layer-{key}.unfinished.tar"));
    if unfinished.exists() {
        std::fs::remove_file(&unfinished)?;
    }
    match content {
        Content::Debian { key, packages, customize } => {
            eprintln!("image layer {key}: Debian packages {} (about 15 s)", packages.join(", "));
            debian(packages, customize, &unfinished)?;
        }
        Content::Busybox => busybox(&unfinished)?,
    }
    std::fs::rename(&unfinished, &tar)?;
    Ok(tar)
}

fn debian(packages: &[&str], customize: &[&str], tar: &Path) -> Result<()> {
    let mut command = Command::new(system::find("mmdebstrap").context("mmdebstrap is missing")?);
    command.args(["--quiet", "--variant=essential", "--format=tar"]);
    for path in ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"]
    {
        command.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    for line in customize {
        command.arg(format!("--customize-hook={line}"));
    }
    command.arg(format!("--include={}", packages.join(",")));
    step(command.arg("bookworm").arg(tar))
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
    step(
        Command::new("tar")
            .args(["--numeric-owner", "--owner=0", "--group=0", "--mtime=@0", "--sort=name", "-C"])
            .arg(folder.path())
            .arg("-cf")
            .arg(tar)
            .arg("."),
    )
}

/// Writes an OCI archive: an image layout in a tar.
fn write_archive(recipe: &Recipe, layer: &Path, archive: &Path) -> Result<()> {
    let layout = tempfile::tempdir_in(folder())?;
    let blobs = layout.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let layer_digest = file_digest(layer)?;
    let layer_size = layer.metadata()?.len();
    std::fs::hard_link(layer, blobs.join(&layer_digest))
        .or_else(|_| std::fs::copy(layer, blobs.join(&layer_digest)).map(drop))?;
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Entrypoint": recipe.entrypoint, "Cmd": recipe.cmd, "StopSignal": recipe.stop_signal, "WorkingDir": "/",
            "Labels": {"org.opencontainers.image.ref.name": recipe.name}
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]}
    });
    let (config_digest, config_size) = blob(&blobs, &config)?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": format!("sha256:{config_digest}"), "size": config_size},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": format!("sha256:{layer_digest}"), "size": layer_size}]
    });
    let (manifest_digest, manifest_size) = blob(&blobs, &manifest)?;
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{manifest_digest}"), "size": manifest_size,
        "annotations": {"org.opencontainers.image.ref.name": recipe.name, "io.containerd.image.name": recipe.name}
    }]});
    std::fs::write(layout.path().join("index.json"), index.to_string())?;
    std::fs::write(layout.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let unfinished = archive.with_extension("unfinished");
    step(Command::new("tar").arg("-C").arg(layout.path()).arg("-cf").arg(&unfinished).args([
        "oci-layout",
        "index.json",
        "blobs",
    ]))?;
    std::fs::rename(unfinished, archive)?;
    Ok(())
}

fn blob(blobs: &Path, content: &serde_json::Value) -> Result<(String, usize)> {
    let bytes = content.to_string();
    let digest = hex(&Sha256::digest(bytes.as_bytes()));
    std::fs::File::create(blobs.join(&digest))?.write_all(bytes.as_bytes())?;
    Ok((digest, bytes.len()))
}

fn file_digest(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
