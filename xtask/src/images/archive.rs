//! Writes an OCI archive: an image layout in a tar.

use super::recipes::Recipe;
use super::{folder, hex};
use crate::step;
use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Writes the archive of an image that has these layers, the lowest first.
pub(super) fn write(recipe: &Recipe, layers: &[PathBuf], archive: &Path) -> Result<()> {
    let layout = tempfile::tempdir_in(folder())?;
    let blobs = layout.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let layers: Vec<Blob> =
        layers.iter().map(|layer| layer_blob(&blobs, layer)).collect::<Result<_>>()?;
    let config = json_blob(&blobs, &config(recipe, &layers))?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.described_as("application/vnd.oci.image.config.v1+json"),
        "layers": layers.iter().map(|layer| layer.described_as("application/vnd.oci.image.layer.v1.tar")).collect::<Vec<_>>()
    });
    let mut manifest =
        json_blob(&blobs, &manifest)?.described_as("application/vnd.oci.image.manifest.v1+json");
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": recipe.name, "io.containerd.image.name": recipe.name});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
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

fn config(recipe: &Recipe, layers: &[Blob]) -> Value {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut env = vec![match recipe.programs {
        Some(folder) => format!("PATH={folder}:{path}"),
        None => format!("PATH={path}"),
    }];
    env.extend(recipe.env.iter().map(|(name, value)| format!("{name}={value}")));
    let diff_ids: Vec<String> = layers.iter().map(|l| format!("sha256:{}", l.digest)).collect();
    json!({
        "architecture": "amd64", "os": "linux",
        "config": {
            "Env": env, "Entrypoint": recipe.entrypoint, "Cmd": recipe.cmd,
            "StopSignal": recipe.stop_signal, "WorkingDir": recipe.folder,
            "Labels": {"org.opencontainers.image.ref.name": recipe.name}
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids}
    })
}

/// A file that is named by its content.
struct Blob {
    digest: String,
    size: u64,
}

impl Blob {
    fn described_as(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": format!("sha256:{}", self.digest), "size": self.size})
    }
}

fn layer_blob(blobs: &Path, layer: &Path) -> Result<Blob> {
    let digest = file_digest(layer)?;
    std::fs::hard_link(layer, blobs.join(&digest))
        .or_else(|_| std::fs::copy(layer, blobs.join(&digest)).map(drop))?;
    Ok(Blob { digest, size: layer.metadata()?.len() })
}

fn json_blob(blobs: &Path, content: &Value) -> Result<Blob> {
    let bytes = content.to_string();
    let digest = hex(&Sha256::digest(bytes.as_bytes()));
    std::fs::File::create(blobs.join(&digest))?.write_all(bytes.as_bytes())?;
    Ok(Blob { digest, size: bytes.len() as u64 })
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
