//! Images that are present: layers unpacked once, shared by all images (and, with locks, by all processes).
//!
//! `layers/DIFF_ID/` is a layer, `images/ID.json` an image's configuration, `names.json` says which name means which image.

mod archive;
mod reference;
mod unpack;

pub use reference::normalize;

use crate::{Image, ImageStore, PullError, RuntimeError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The image store in a folder.
#[derive(Debug, Clone)]
pub struct Images {
    folder: PathBuf,
}

/// An image, ready to be run.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// Lowest first.
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) working_dir: String,
    pub(crate) user: String,
    pub(crate) stop_signal: i32,
}

/// `images/ID.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// The OCI image configuration.
    config: Value,
    /// Hexadecimal digests of the unpacked layers, lowest first.
    layers: Vec<String>,
    size_bytes: u64,
}

type Names = BTreeMap<String, String>;

impl Images {
    /// Opens the store, making its folder if absent.
    pub fn open(folder: &Path) -> std::io::Result<Images> {
        for name in ["layers", "images"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        Ok(Images { folder: folder.to_path_buf() })
    }

    /// One writer at a time, also among processes.
    fn lock(&self) -> Result<File, RuntimeError> {
        let path = self.folder.join("lock");
        let file = File::create(&path).map_err(|error| failed("open", &path, &error))?;
        file.lock().map_err(|error| failed("lock", &path, &error))?;
        Ok(file)
    }

    fn names(&self) -> Result<Names, RuntimeError> {
        let path = self.folder.join("names.json");
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed("read", &path, &error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Names::new()),
            Err(error) => Err(failed("read", &path, &error)),
        }
    }

    fn write(&self, path: &Path, value: &impl Serialize) -> Result<(), RuntimeError> {
        let unfinished = path.with_extension(format!("new-{}", std::process::id()));
        let text = serde_json::to_vec(value).map_err(|error| RuntimeError::Other(error.to_string()))?;
        std::fs::write(&unfinished, text).and_then(|()| std::fs::rename(&unfinished, path)).map_err(|error| failed("write", path, &error))
    }

    fn stored(&self, id: &str) -> Result<Stored, RuntimeError> {
        let path = self.image_file(id);
        let bytes = std::fs::read(&path).map_err(|_| RuntimeError::NotFound(format!("image {id}")))?;
        serde_json::from_slice(&bytes).map_err(|error| failed("read", &path, &error))
    }

    fn image_file(&self, id: &str) -> PathBuf {
        self.folder.join("images").join(format!("{}.json", id.trim_start_matches("sha256:")))
    }

    fn layer(&self, digest: &str) -> PathBuf {
        self.folder.join("layers").join(digest)
    }

    /// What a container is made from.
    pub(crate) fn load(&self, id: &str) -> Result<Loaded, RuntimeError> {
        let stored = self.stored(id)?;
        let config = &stored.config["config"];
        let list = |name: &str| -> Vec<String> { config[name].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect() };
        let text = |name: &str| config[name].as_str().unwrap_or_default().to_owned();
        Ok(Loaded {
            layers: stored.layers.iter().map(|digest| self.layer(digest)).collect(),
            entrypoint: list("Entrypoint"),
            cmd: list("Cmd"),
            env: list("Env"),
            working_dir: text("WorkingDir"),
            user: text("User"),
            stop_signal: signal(&text("StopSignal")),
        })
    }

    fn image(&self, id: &str, names: &Names) -> Result<Image, RuntimeError> {
        let stored = self.stored(id)?;
        let names = names.iter().filter(|(_, named)| *named == id).map(|(name, _)| name.clone()).collect();
        Ok(Image { id: id.to_owned(), names, size_bytes: stored.size_bytes, user: stored.config["config"]["User"].as_str().unwrap_or_default().to_owned() })
    }

    fn remove_name(&self, reference: &str) -> Result<(), RuntimeError> {
        let _lock = self.lock()?;
        let mut names = self.names()?;
        let name = normalize(reference).map_err(RuntimeError::Config)?;
        let id = names.remove(&name).ok_or_else(|| RuntimeError::NotFound(format!("image {name}")))?;
        self.write(&self.folder.join("names.json"), &names)?;
        if names.values().any(|named| *named == id) {
            return Ok(());
        }
        let gone = self.stored(&id)?;
        let file = self.image_file(&id);
        std::fs::remove_file(&file).map_err(|error| failed("remove", &file, &error))?;
        let mut kept: Vec<String> = Vec::new();
        for id in names.values() {
            kept.extend(self.stored(id)?.layers);
        }
        for digest in gone.layers.iter().filter(|digest| !kept.contains(digest)) {
            // A container that still runs on it keeps its mount; the files are freed with that.
            let layer = self.layer(digest);
            std::fs::remove_dir_all(&layer).map_err(|error| failed("remove", &layer, &error))?;
        }
        Ok(())
    }
}

#[async_trait]
impl ImageStore for Images {
    async fn resolve(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        let names = self.names()?;
        if let Some(id) = reference.starts_with("sha256:").then_some(reference).filter(|id| self.image_file(id).exists()) {
            return self.image(id, &names).map(Some);
        }
        let name = normalize(reference).map_err(RuntimeError::Config)?;
        names.get(&name).map(|id| self.image(id, &names)).transpose()
    }

    async fn list(&self) -> Result<Vec<Image>, RuntimeError> {
        let names = self.names()?;
        let mut ids: Vec<&String> = names.values().collect();
        ids.sort();
        ids.dedup();
        ids.into_iter().map(|id| self.image(id, &names)).collect()
    }

    async fn import(&self, archive: &Path, name: Option<&str>) -> Result<Vec<Image>, RuntimeError> {
        let (images, archive, name) = (self.clone(), archive.to_path_buf(), name.map(str::to_owned));
        tokio::task::spawn_blocking(move || archive::import(&images, &archive, name.as_deref())).await.map_err(|error| RuntimeError::Other(error.to_string()))?
    }

    async fn remove(&self, reference: &str) -> Result<(), RuntimeError> {
        self.remove_name(reference)
    }

    async fn pull(&self, reference: &str) -> Result<Image, PullError> {
        let name = normalize(reference).map_err(PullError::InvalidName)?;
        Err(PullError::Failed(format!(
            "failed to pull and unpack image {name:?}: this version does not pull from registries; import the image with `abide image import`"
        )))
    }
}

fn failed(what: &str, path: &Path, error: &dyn std::fmt::Display) -> RuntimeError {
    RuntimeError::Other(format!("{what} {}: {error}", path.display()))
}

/// The number of a signal by name or number; SIGTERM if there is none.
fn signal(name: &str) -> i32 {
    let full = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    full.parse::<nix::sys::signal::Signal>().map(|signal| signal as i32).ok().or_else(|| name.parse().ok()).unwrap_or(nix::libc::SIGTERM)
}
