//! Images: their names, their archives, their layers.
//!
//! ```text
//! STORE/ index.json              names and the ids they stand for
//!        images/HEX.json         one image: configuration, layers, size
//!        layers/HEX/             one layer, by the digest of its uncompressed tar, as overlayfs wants it
//!        pins/CONTAINER.json     layers in use by a container
//!        downloads/              layers that are being fetched, or wait to be unpacked
//!        tmp/                    layers that are being unpacked
//!        lock  import.lock
//! ```
//!
//! Several processes may share a store. `lock` is held for moments, around every change of what is visible; `import.lock` for
//! the length of an import, or the unpacking of a pull, which works in `tmp` until everything is unpacked and verified.

mod archive;
mod document;
pub mod pull;
pub mod reference;
pub mod registries;
mod unpack;
mod workshop;
mod zstd;

use crate::layout;
use crate::{Image, ImageStore, PullError, RuntimeError};
use async_trait::async_trait;
use nix::fcntl::{Flock, FlockArg};
use reference::Reference;
use registries::{Keyring, Registries};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use workshop::Origin;

/// The images of one directory.
#[derive(Debug, Clone)]
pub struct Images {
    root: Arc<PathBuf>,
    boot_id: Arc<String>,
    registries: Arc<Registries>,
}

/// What a container needs of an image.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) config: ImageConfig,
    /// Where the layers lie.
    pub(crate) directory: PathBuf,
    /// Their names in it, lowest first.
    pub(crate) layers: Vec<String>,
}

/// The part of an image's configuration that says how to run it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ImageConfig {
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) user: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) cmd: Vec<String>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) working_dir: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) stop_signal: String,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    value: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

impl ImageConfig {
    /// The number of the signal that asks for an end: a name with or without `SIG`, a number, or `SIGRTMIN+n`.
    pub(crate) fn stop_signal(&self) -> Result<i32, RuntimeError> {
        let given = self.stop_signal.trim().to_ascii_uppercase();
        let name = given.strip_prefix("SIG").unwrap_or(&given);
        let real_time = |base: i32, rest: &str| {
            let offset: i32 = if rest.is_empty() { 0 } else { rest.parse().ok()? };
            base.checked_add(offset)
        };
        let number = if name.is_empty() {
            Some(libc::SIGTERM)
        } else if let Ok(number) = name.parse::<i32>() {
            Some(number)
        } else if let Some(rest) = name.strip_prefix("RTMIN") {
            real_time(34, rest)
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            real_time(64, rest)
        } else {
            format!("SIG{name}")
                .parse::<nix::sys::signal::Signal>()
                .ok()
                .map(|signal| signal as i32)
        };
        number.filter(|number| (1..=64).contains(number)).ok_or_else(|| {
            RuntimeError::Config(format!("failed to parse stop signal \"{}\"", self.stop_signal))
        })
    }
}

/// `images/HEX.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ImageRecord {
    version: u32,
    id: String,
    /// `sha256:…` of each uncompressed layer, lowest first.
    diff_ids: Vec<String>,
    size_bytes: u64,
    config: ImageConfig,
}

/// `index.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Index {
    version: u32,
    /// Normalised name to image id.
    names: BTreeMap<String, String>,
    /// Those names that were pulled for a pod; somebody brought the others.
    #[serde(default)]
    pulled: BTreeSet<String>,
}

impl Index {
    /// Remembers how an image came here under a name.
    fn note(&mut self, name: &str, origin: Origin) {
        match origin {
            Origin::Brought => self.pulled.remove(name),
            Origin::PulledForAPod => self.pulled.insert(name.to_owned()),
        };
    }
}

/// `pins/CONTAINER.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Pin {
    /// A pin of another boot holds nothing: its container's root file system is no longer mounted.
    boot_id: String,
    diff_ids: Vec<String>,
}

fn other(what: &str) -> impl Fn(io::Error) -> RuntimeError + '_ {
    move |error| RuntimeError::Other(format!("{what}: {error}"))
}

impl Images {
    /// Opens a store, making it if need be.
    pub fn open(directory: &Path) -> Result<Self, RuntimeError> {
        let failed = other("open the image store");
        for part in ["images", "layers", "pins", "downloads", "tmp"] {
            fs::create_dir_all(directory.join(part)).map_err(&failed)?;
        }
        let root = Arc::new(directory.canonicalize().map_err(&failed)?);
        let boot_id = Arc::new(layout::boot_id().map_err(&failed)?);
        Ok(Images { root, boot_id, registries: Arc::default() })
    }

    /// The same store, pulling as `registries` says.
    pub fn with_registries(self, registries: Registries) -> Self {
        Images { registries: Arc::new(registries), ..self }
    }

    fn image_path(&self, id: &str) -> PathBuf {
        self.root.join("images").join(format!("{}.json", hex(id)))
    }

    fn layer_path(&self, diff_id: &str) -> PathBuf {
        self.root.join("layers").join(hex(diff_id))
    }

    fn pin_path(&self, container: &str) -> PathBuf {
        self.root.join("pins").join(format!("{container}.json"))
    }

    fn lock(&self, name: &str) -> io::Result<Flock<File>> {
        let file =
            File::options().create(true).truncate(false).write(true).open(self.root.join(name))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
    }

    fn index(&self) -> io::Result<Index> {
        Ok(layout::read(&self.root.join("index.json"))?.unwrap_or_default())
    }

    fn write_index(&self, index: &Index) -> io::Result<()> {
        layout::write(&self.root.join("index.json"), index)
    }

    fn record(&self, id: &str) -> io::Result<Option<ImageRecord>> {
        if !is_digest(id) {
            return Ok(None);
        }
        layout::read(&self.image_path(id))
    }

    /// Says that a container uses an image's layers, until [`Images::unpin`].
    pub(crate) fn pin(&self, container: &str, image_id: &str) -> Result<Bundle, RuntimeError> {
        let failed = other("use an image");
        let _lock = self.lock("lock").map_err(&failed)?;
        let record = self.record(image_id).map_err(&failed)?;
        let record = record.ok_or_else(|| RuntimeError::NotFound(format!("image {image_id}")))?;
        let pin = Pin { boot_id: self.boot_id.to_string(), diff_ids: record.diff_ids.clone() };
        layout::write(&self.pin_path(container), &pin).map_err(&failed)?;
        let mut layers: Vec<String> =
            record.diff_ids.iter().map(|diff_id| hex(diff_id).to_owned()).collect();
        if layers.is_empty() {
            // overlayfs wants a lower directory.
            fs::create_dir_all(self.root.join("layers/empty")).map_err(&failed)?;
            layers.push("empty".into());
        }
        Ok(Bundle { config: record.config, directory: self.root.join("layers"), layers })
    }

    /// The container's root file system is unmounted. Idempotent.
    pub(crate) fn unpin(&self, container: &str) -> Result<(), RuntimeError> {
        match fs::remove_file(self.pin_path(container)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(other("release an image")(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes layers that neither an image nor a container uses. To be called with the lock held.
    fn collect_layers(&self) -> io::Result<()> {
        let mut used = BTreeSet::from(["empty".to_owned()]);
        for entry in fs::read_dir(self.root.join("images"))? {
            let record: Option<ImageRecord> = layout::read(&entry?.path())?;
            used.extend(
                record
                    .iter()
                    .flat_map(|record| &record.diff_ids)
                    .map(|diff_id| hex(diff_id).to_owned()),
            );
        }
        for entry in fs::read_dir(self.root.join("pins"))? {
            let path = entry?.path();
            match layout::read::<Pin>(&path)? {
                Some(pin) if pin.boot_id == *self.boot_id => {
                    used.extend(pin.diff_ids.iter().map(|diff_id| hex(diff_id).to_owned()));
                }
                _ => fs::remove_file(path)?,
            }
        }
        for entry in fs::read_dir(self.root.join("layers"))? {
            let entry = entry?;
            if !used.contains(&*entry.file_name().to_string_lossy()) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    fn resolve_now(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        let failed = other("read the image store");
        let index = self.index().map_err(&failed)?;
        let id = if is_digest(reference) {
            Some(reference.to_owned())
        } else {
            let name = Reference::parse(reference)
                .map_err(|error| RuntimeError::Config(error.to_string()))?;
            index.names.get(&key(&name)).cloned()
        };
        let Some(id) = id else { return Ok(None) };
        let record = self.record(&id).map_err(&failed)?;
        Ok(record.map(|record| image(record, &index)))
    }

    fn list_now(&self) -> Result<Vec<Image>, RuntimeError> {
        let failed = other("read the image store");
        let index = self.index().map_err(&failed)?;
        let ids: BTreeSet<&String> = index.names.values().collect();
        let mut images = Vec::new();
        for id in ids {
            images.extend(self.record(id).map_err(&failed)?.map(|record| image(record, &index)));
        }
        Ok(images)
    }

    /// Names the image that the first (exact) name stands for with the second one as well; `None` if it is absent.
    fn name_again(
        &self,
        (exact, name): (String, String),
        origin: Origin,
    ) -> Result<Option<Image>, RuntimeError> {
        let failed = other("name an image");
        let _lock = self.lock("lock").map_err(&failed)?;
        let mut index = self.index().map_err(&failed)?;
        let Some(id) = index.names.get(&exact).cloned() else { return Ok(None) };
        let Some(record) = self.record(&id).map_err(&failed)? else { return Ok(None) };
        index.names.insert(name.clone(), id.clone());
        index.note(&name, origin);
        if origin == Origin::Brought {
            index.note(&exact, origin);
        }
        self.write_index(&index).map_err(&failed)?;
        self.drop_unnamed(&index).map_err(&failed)?;
        Ok(Some(image(record, &index)))
    }

    /// Removes images that no name stands for, and their layers. To be called with the lock held.
    fn drop_unnamed(&self, index: &Index) -> io::Result<()> {
        let named: BTreeSet<PathBuf> = index.names.values().map(|id| self.image_path(id)).collect();
        let mut dropped = false;
        for entry in fs::read_dir(self.root.join("images"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|kind| kind == "json") && !named.contains(&path) {
                fs::remove_file(path)?;
                dropped = true;
            }
        }
        if dropped { self.collect_layers() } else { Ok(()) }
    }

    fn remove_now(&self, reference: &str) -> Result<(), RuntimeError> {
        let failed = other("remove an image");
        let _lock = self.lock("lock").map_err(&failed)?;
        let mut index = self.index().map_err(&failed)?;
        let id = if is_digest(reference) {
            let id = reference.to_owned();
            let before = index.names.len();
            index.names.retain(|_, known| *known != id);
            (index.names.len() < before).then_some(id)
        } else {
            let name = Reference::parse(reference)
                .map_err(|error| RuntimeError::Config(error.to_string()))?;
            index.names.remove(&key(&name))
        };
        let id = id.ok_or_else(|| RuntimeError::NotFound(format!("image {reference}")))?;
        // Names by digest came with the tags and go with the last of them.
        if !index.names.iter().any(|(name, known)| *known == id && !name.contains('@')) {
            index.names.retain(|_, known| *known != id);
        }
        index.pulled.retain(|name| index.names.contains_key(name));
        self.write_index(&index).map_err(&failed)?;
        if !index.names.values().any(|known| *known == id) {
            fs::remove_file(self.image_path(&id)).map_err(&failed)?;
            self.collect_layers().map_err(&failed)?;
        }
        Ok(())
    }
}

/// The digits of a digest: file names hold no colon.
fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

fn is_digest(text: &str) -> bool {
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(lower_hex))
}

/// What a name is found by: with a digest the tag says nothing.
fn key(name: &Reference) -> String {
    match &name.digest {
        Some(_) => Reference { tag: None, ..name.clone() }.to_string(),
        None => name.to_string(),
    }
}

/// The same of a name as people write it.
pub(crate) fn key_of(reference: &str) -> Option<String> {
    Reference::parse(reference).ok().map(|name| key(&name))
}

fn image(record: ImageRecord, index: &Index) -> Image {
    let names: Vec<String> = index
        .names
        .iter()
        .filter(|(_, id)| **id == record.id)
        .map(|(name, _)| name.clone())
        .collect();
    let pulled = names.iter().filter(|name| index.pulled.contains(*name)).cloned().collect();
    let (size_bytes, user) = (record.size_bytes, record.config.user);
    Image { id: record.id, names, pulled, size_bytes, user }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| RuntimeError::Other(error.to_string()))?
}

#[async_trait]
impl ImageStore for Images {
    async fn resolve(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        let (images, reference) = (self.clone(), reference.to_owned());
        blocking(move || images.resolve_now(&reference)).await
    }

    async fn list(&self) -> Result<Vec<Image>, RuntimeError> {
        let images = self.clone();
        blocking(move || images.list_now()).await
    }

    async fn import(&self, archive: &Path, name: Option<&str>) -> Result<Vec<Image>, RuntimeError> {
        let (images, archive, name) = (self.clone(), archive.to_owned(), name.map(str::to_owned));
        blocking(move || archive::import(&images, &archive, name.as_deref())).await
    }

    async fn remove(&self, reference: &str) -> Result<(), RuntimeError> {
        let (images, reference) = (self.clone(), reference.to_owned());
        blocking(move || images.remove_now(&reference)).await
    }

    async fn pull(&self, reference: &str, keyring: &Keyring) -> Result<Image, PullError> {
        self.pull_as(reference, keyring, Origin::PulledForAPod, &()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_read_in_all_their_spellings() {
        let signal = |text: &str| {
            ImageConfig { stop_signal: text.into(), ..ImageConfig::default() }.stop_signal().ok()
        };
        let cases = [
            ("", Some(15)),
            ("SIGINT", Some(2)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGWHAT", None),
            ("0", None),
            ("65", None),
            ("RTMIN+99", None),
        ];
        for (text, expected) in cases {
            assert_eq!(signal(text), expected, "{text}");
        }
    }

    #[test]
    fn a_configuration_may_hold_nulls() {
        let config: ImageConfig =
            serde_json::from_str(r#"{"Cmd":null,"User":null,"Env":["A=1"],"Labels":{}}"#).unwrap();
        assert_eq!(config, ImageConfig { env: vec!["A=1".into()], ..ImageConfig::default() });
    }
}
