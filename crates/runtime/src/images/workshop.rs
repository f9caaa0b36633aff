//! The last part of an import or a pull: layers are unpacked and verified aside, then everything becomes visible at once.

use super::document::ConfigDocument;
use super::unpack::{digest_text, invalid, unpack};
use super::zstd::Frames;
use super::{ImageRecord, Images, hex, is_digest, layout};
use crate::Image;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

/// How many layers one image may have, as Docker; overlayfs takes up to 500.
pub(super) const LAYERS_MAX: usize = 127;

/// The uncompressed bytes of a file.
pub(super) fn plain(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = File::open(path)?;
    let mut magic = [0; 4];
    let mut length = 0;
    while length < magic.len() {
        match file.read(&mut magic[length..])? {
            0 => break,
            more => length += more,
        }
    }
    file.rewind()?;
    let file = BufReader::with_capacity(256 * 1024, file);
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(Frames::new(file)),
        _ => Box::new(file),
    })
}

/// An image ready to be published.
pub(super) struct Found {
    pub(super) record: ImageRecord,
    pub(super) names: BTreeSet<String>,
}

/// A layer's file, compressed or not.
#[derive(Debug)]
pub(super) struct Layer {
    /// Where; it need not exist when the store has the layer already.
    pub(super) file: PathBuf,
    /// Its bytes.
    pub(super) size_bytes: u64,
}

/// How an image came here under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Somebody wanted it here: it is what the name means.
    Brought,
    /// A pod needed it: the name may mean another image by now.
    PulledForAPod,
}

/// Everything in its directory goes when it does.
pub(super) struct Workshop<'a> {
    pub(super) images: &'a Images,
    pub(super) directory: PathBuf,
}

impl Drop for Workshop<'_> {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::warn!(directory = %self.directory.display(), %error, "clean up after unpacking");
        }
    }
}

impl<'a> Workshop<'a> {
    /// To be called with the import lock held: whatever lies in `tmp` is of an import that died.
    pub(super) fn open(images: &'a Images) -> io::Result<Self> {
        let directory = images.root.join("tmp");
        fs::remove_dir_all(&directory).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        fs::create_dir_all(directory.join("files"))?;
        fs::create_dir_all(directory.join("layers"))?;
        Ok(Workshop { images, directory })
    }

    /// Unpacks the layers that are absent. `layers` are those of the configuration, in its order.
    pub(super) fn image(
        &self,
        config: &[u8],
        layers: &[Layer],
        names: BTreeSet<String>,
    ) -> io::Result<Found> {
        let document: ConfigDocument = serde_json::from_slice(config)?;
        if document.rootfs.diff_ids.len() != layers.len() {
            return Err(invalid(format!(
                "{} layers but {} diff_ids",
                layers.len(),
                document.rootfs.diff_ids.len()
            )));
        }
        if layers.len() > LAYERS_MAX {
            return Err(invalid(format!("more than {LAYERS_MAX} layers")));
        }
        let present = self.images.layers()?;
        let mut size_bytes: u64 = 0;
        for (layer, diff_id) in layers.iter().zip(&document.rootfs.diff_ids) {
            if !is_digest(diff_id) {
                return Err(invalid(format!("{diff_id} is no digest")));
            }
            size_bytes = size_bytes.saturating_add(layer.size_bytes);
            if !present.contains(diff_id) && !self.layer(diff_id).exists() {
                self.unpack(&layer.file, Some(diff_id))?;
            }
        }
        self.found(config, size_bytes, names)
    }

    pub(super) fn found(
        &self,
        config: &[u8],
        size_bytes: u64,
        names: BTreeSet<String>,
    ) -> io::Result<Found> {
        let document: ConfigDocument = serde_json::from_slice(config)?;
        let record = ImageRecord {
            version: layout::RECORD_VERSION,
            id: digest_text(&Sha256::digest(config)),
            diff_ids: document.rootfs.diff_ids,
            size_bytes,
            config: document.config.unwrap_or_default(),
        };
        Ok(Found { record, names })
    }

    fn layer(&self, diff_id: &str) -> PathBuf {
        self.directory.join("layers").join(hex(diff_id))
    }

    /// Unpacks a layer, and verifies its digest if it is known. Returns digest and size.
    pub(super) fn unpack(&self, tar: &Path, expected: Option<&str>) -> io::Result<(String, u64)> {
        let place = self.directory.join("layer");
        fs::create_dir(&place)?;
        let (diff_id, size) = unpack(plain(tar)?, &place)?;
        if let Some(expected) = expected.filter(|expected| *expected != diff_id) {
            return Err(invalid(format!("layer {expected} has the digest {diff_id}")));
        }
        fs::rename(place, self.layer(&diff_id))?;
        Ok((diff_id, size))
    }

    /// Makes everything visible at once.
    pub(super) fn publish(&self, found: &[Found], origin: Origin) -> io::Result<Vec<Image>> {
        // Layers first reach the disk, then their names: what is visible is whole, also after a power failure.
        rustix::fs::syncfs(File::open(&self.directory)?)?;
        let _lock = self.images.lock("lock")?;
        for diff_id in found.iter().flat_map(|found| &found.record.diff_ids) {
            let (from, to) = (self.layer(diff_id), self.images.layer_path(diff_id));
            if from.exists() {
                // What lies there is not of any image (else it had not been unpacked again), but perhaps in use by a container.
                if to.exists() { fs::remove_dir_all(from)? } else { fs::rename(from, to)? }
            } else if !to.exists() {
                return Err(io::Error::other(
                    "a layer that was present has been removed meanwhile; try again",
                ));
            }
        }
        let mut index = self.images.index()?;
        index.version = layout::RECORD_VERSION;
        let mut displaced = BTreeSet::new();
        for Found { record, names } in found {
            layout::write(&self.images.image_path(&record.id), record)?;
            for name in names {
                displaced.extend(index.names.insert(name.clone(), record.id.clone()));
                index.note(name, origin);
            }
        }
        self.images.write_index(&index)?;
        for id in displaced.iter().filter(|id| !index.names.values().any(|known| known == *id)) {
            fs::remove_file(self.images.image_path(id))?;
        }
        self.images.collect_layers()?;
        Ok(found.iter().map(|found| super::image(found.record.clone(), &index)).collect())
    }
}

impl Images {
    /// The layers that are there in full, as parts of images. One that no image owns may have been cut short by a crash.
    pub(super) fn layers(&self) -> io::Result<BTreeSet<String>> {
        let mut layers = BTreeSet::new();
        for entry in fs::read_dir(self.root.join("images"))? {
            let record: Option<ImageRecord> = layout::read(&entry?.path())?;
            layers.extend(record.into_iter().flat_map(|record| record.diff_ids));
        }
        layers.retain(|diff_id| self.layer_path(diff_id).exists());
        Ok(layers)
    }
}
