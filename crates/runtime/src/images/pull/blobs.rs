//! Fetches layers to disk: verified, resumed where a connection broke, by one of all who want them.
//!
//! `downloads/HEX.part` is what there is so far, locked by who adds to it; `downloads/HEX` is whole and verified, and waits
//! for its unpacking. Whoever publishes an image removes its layers' files.

use super::Progress;
use super::failure::{Failure, Kind, chain};
use super::http::SILENCE_MAX;
use super::registry::Repository;
use crate::images::document::Descriptor;
use crate::images::unpack::digest_text;
use crate::images::{Images, hex};
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_RANGE;
use http_body_util::BodyExt;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often a connection may break without having brought anything, and at all.
const FRUITLESS_MAX: u32 = 3;
const BREAKS_MAX: u32 = 50;
/// How much is gathered before it is written.
const BATCH: usize = 1 << 20;
/// What nobody has come back for is removed after so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The folder of downloads.
pub(super) fn folder(images: &Images) -> PathBuf {
    images.root.join("downloads")
}

/// Where a layer lies once it is whole.
pub(super) fn whole(images: &Images, digest: &str) -> PathBuf {
    folder(images).join(hex(digest))
}

/// Removes what is unpacked now, and what others left long ago.
pub(super) fn clean_up(images: &Images, layers: &[Descriptor]) {
    for layer in layers {
        // Perhaps it was never here: the image store had the layer.
        let _absent = fs::remove_file(whole(images, &layer.digest));
    }
    for entry in fs::read_dir(folder(images)).into_iter().flatten().flatten() {
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        let age = changed.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_some_and(|age| age > FORGOTTEN_AFTER) {
            let _another_was_faster = fs::remove_file(entry.path());
        }
    }
}

/// Fetches a layer, unless the store has it (by its `diff_id`) or another pull has just fetched it.
pub(super) async fn fetch(
    images: &Images,
    repository: &Repository<'_>,
    layer: &Descriptor,
    diff_id: &str,
    progress: &dyn Progress,
) -> Result<(), Failure> {
    let size = layer.size.unwrap_or(0);
    let opened = {
        let (images, digest, diff_id) = (images.clone(), layer.digest.clone(), diff_id.to_owned());
        in_background(move || Part::open(&images, &digest, &diff_id, size)).await??
    };
    if let Some(part) = opened {
        let part = download(part, repository, layer, size, progress).await?;
        let (digest, place) = (layer.digest.clone(), whole(images, &layer.digest));
        in_background(move || part.complete(&digest, size, &place)).await??;
    }
    progress.layer(&layer.digest, size, size);
    Ok(())
}

/// Asks for what is missing until nothing is.
async fn download(
    mut part: Part,
    repository: &Repository<'_>,
    layer: &Descriptor,
    size: u64,
    progress: &dyn Progress,
) -> Result<Part, Failure> {
    let (mut fruitless, mut breaks) = (0, 0);
    while part.length < size {
        let before = part.length;
        let broken;
        (part, broken) = continue_download(part, repository, layer, size, progress).await?;
        match broken {
            None if part.length < size => {
                return Err(Failure::refused(format!(
                    "unexpected size of {}: {}, expected {size}",
                    layer.digest, part.length
                )));
            }
            None => {}
            Some(failure) => {
                fruitless = if part.length > before { 0 } else { fruitless + 1 };
                breaks += 1;
                if fruitless >= FRUITLESS_MAX || breaks >= BREAKS_MAX {
                    return Err(copying(layer)(failure));
                }
            }
        }
    }
    Ok(part)
}

fn copying(layer: &Descriptor) -> impl Fn(Failure) -> Failure + '_ {
    |failure| failure.while_doing(format!("failed to copy {}", layer.digest))
}

/// One answer, to its end or to where it breaks (then with the reason).
async fn continue_download(
    mut part: Part,
    repository: &Repository<'_>,
    layer: &Descriptor,
    size: u64,
    progress: &dyn Progress,
) -> Result<(Part, Option<Failure>), Failure> {
    let response = repository.blob(&layer.digest, part.length).await.map_err(copying(layer))?;
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let resumed = response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {}-", part.length)));
    if !resumed && part.length > 0 {
        part = in_background(move || part.restarted()).await??;
    }
    let mut body = response.into_body();
    let mut batch: Vec<Bytes> = Vec::new();
    let mut gathered = 0;
    let broken = loop {
        let frame = match tokio::time::timeout(SILENCE_MAX, body.frame()).await {
            Ok(None) => break None,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => break Some(Failure::new(Kind::Broken, chain(&error))),
            Err(_) => break Some(Failure::new(Kind::Broken, "the registry has fallen silent")),
        };
        let Ok(bytes) = frame.into_data() else { continue };
        gathered += bytes.len();
        if part.length.saturating_add(gathered as u64) > size {
            return Err(Failure::refused(format!(
                "unexpected size of {}: more than the {size} bytes that were announced",
                layer.digest
            )));
        }
        batch.push(bytes);
        if gathered >= BATCH {
            part = part.add(std::mem::take(&mut batch)).await?;
            gathered = 0;
            progress.layer(&layer.digest, part.length, size);
        }
    };
    part = part.add(batch).await?;
    progress.layer(&layer.digest, part.length, size);
    Ok((part, broken))
}

async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::new(Kind::Broken, error.to_string()))
}

/// The part of a layer that is here.
struct Part {
    file: Flock<File>,
    path: PathBuf,
    hash: Sha256,
    length: u64,
}

impl Part {
    /// Waits until no other pull fetches the layer. `None` if then it is here.
    fn open(images: &Images, digest: &str, diff_id: &str, size: u64) -> io::Result<Option<Part>> {
        let whole = whole(images, digest);
        let path = whole.with_extension("part");
        loop {
            if whole.exists() || images.layers()?.contains(diff_id) {
                return Ok(None);
            }
            let file =
                File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
            let file = Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, error)| io::Error::from(error))?;
            // While we waited it may have become whole, which takes its name away.
            if fs::metadata(&path).is_ok_and(|now| is_same(&now, &file)) {
                return Part::take_up(file, path, size).map(Some);
            }
        }
    }

    /// What is in the file counts, and is hashed again.
    fn take_up(file: Flock<File>, path: PathBuf, size: u64) -> io::Result<Part> {
        let mut part = Part { file, path, hash: Sha256::new(), length: 0 };
        if part.file.metadata()?.len() > size {
            return part.restarted();
        }
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match part.file.read(&mut buffer)? {
                0 => return Ok(part),
                length => {
                    part.hash.update(&buffer[..length]);
                    part.length += length as u64;
                }
            }
        }
    }

    fn restarted(mut self) -> io::Result<Part> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        Ok(Part { hash: Sha256::new(), length: 0, ..self })
    }

    async fn add(mut self, batch: Vec<Bytes>) -> Result<Part, Failure> {
        let added = in_background(move || {
            for bytes in batch {
                self.file.write_all(&bytes)?;
                self.hash.update(&bytes);
                self.length += bytes.len() as u64;
            }
            io::Result::Ok(self)
        });
        Ok(added.await??)
    }

    /// Verifies it and gives it its name. What is wrong is thrown away.
    fn complete(self, digest: &str, size: u64, place: &Path) -> Result<(), Failure> {
        let found = digest_text(&self.hash.finalize());
        if found != digest || self.length != size {
            fs::remove_file(&self.path)?;
            return Err(Failure::refused(format!("unexpected digest {found}, expected {digest}")));
        }
        Ok(fs::rename(&self.path, place)?)
    }
}

fn is_same(one: &fs::Metadata, file: &File) -> bool {
    file.metadata().is_ok_and(|other| one.ino() == other.ino() && one.dev() == other.dev())
}
