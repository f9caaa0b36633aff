//! Imports archives: OCI layouts, docker-archives, and root file systems, each in a tar that may be compressed.

use super::unpack::{Counted, digest_text, invalid, unpack};
use super::{ImageConfig, ImageRecord, Images, hex, is_digest, key, layout};
use crate::images::reference::Reference;
use crate::{Image, RuntimeError};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::path::{Component, Path, PathBuf};

/// The largest JSON document of an archive that is read.
const DOCUMENT_MAX: u64 = 16 << 20;
/// How deep indexes may lie in indexes.
const DEPTH_MAX: u32 = 4;
/// How many layers one image may have, as Docker; overlayfs takes up to 500.
const LAYERS_MAX: usize = 127;

/// Imports every image of an archive.
pub(super) fn import(
    images: &Images,
    archive: &Path,
    name: Option<&str>,
) -> Result<Vec<Image>, RuntimeError> {
    let name = name
        .map(Reference::parse)
        .transpose()
        .map_err(|error| RuntimeError::Config(error.to_string()))?;
    let failed =
        |error: io::Error| RuntimeError::Other(format!("import {}: {error}", archive.display()));
    let _importing = images.lock("import.lock").map_err(failed)?;
    let work = Workshop::open(images).map_err(failed)?;
    let found = work.read(archive, name.as_ref()).map_err(failed)?;
    work.publish(&found).map_err(failed)
}

/// The uncompressed bytes of a file.
fn plain(path: &Path) -> io::Result<Box<dyn Read>> {
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
        [0x28, 0xb5, 0x2f, 0xfd] => {
            Box::new(ruzstd::decoding::StreamingDecoder::new(file).map_err(io::Error::other)?)
        }
        _ => Box::new(file),
    })
}

enum Kind {
    Oci,
    Docker,
    RootFileSystem,
}

/// By the documents at the top of the archive.
fn kind(archive: &Path) -> io::Result<Kind> {
    let mut kind = None;
    for entry in tar::Archive::new(plain(archive)?).entries()? {
        match entry?.path()?.to_str().map(|path| path.trim_start_matches("./")) {
            Some("oci-layout") => return Ok(Kind::Oci),
            Some("manifest.json") => kind = Some(Kind::Docker),
            _ => {}
        }
    }
    Ok(kind.unwrap_or(Kind::RootFileSystem))
}

/// An image ready to be published.
struct Found {
    record: ImageRecord,
    names: BTreeSet<String>,
}

/// An import under way: everything in its directory goes when it does.
struct Workshop<'a> {
    images: &'a Images,
    directory: PathBuf,
}

impl Drop for Workshop<'_> {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::warn!(directory = %self.directory.display(), %error, "clean up after an import");
        }
    }
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// An OCI index or manifest.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct ConfigDocument {
    #[serde(default)]
    config: Option<ImageConfig>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

impl<'a> Workshop<'a> {
    /// To be called with the import lock held: whatever lies in `tmp` is of an import that died.
    fn open(images: &'a Images) -> io::Result<Self> {
        let directory = images.root.join("tmp");
        fs::remove_dir_all(&directory).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        fs::create_dir_all(directory.join("files"))?;
        fs::create_dir_all(directory.join("layers"))?;
        Ok(Workshop { images, directory })
    }

    fn read(&self, archive: &Path, name: Option<&Reference>) -> io::Result<Vec<Found>> {
        match kind(archive)? {
            Kind::RootFileSystem => {
                let name = name.ok_or_else(|| invalid("neither an OCI archive nor a docker-archive; a root file system needs a name"))?;
                Ok(vec![self.root_file_system(archive, name)?])
            }
            Kind::Oci => self.oci(&self.extract(archive)?, name),
            Kind::Docker => self.docker(&self.extract(archive)?, name),
        }
    }

    /// Puts the archive's files aside under names of our own. Links among them are resolved.
    fn extract(&self, archive: &Path) -> io::Result<Files> {
        let mut files = Files::default();
        let mut links = Vec::new();
        let mut reader = tar::Archive::new(Counted::new(plain(archive)?));
        for entry in reader.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let kind = entry.header().entry_type();
            if kind.is_file() {
                let place = self.directory.join("files").join(files.0.len().to_string());
                io::copy(&mut entry, &mut File::create(&place)?)?;
                files.0.insert(normal(&path), place);
            } else if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name()?.ok_or_else(|| invalid("a link to nowhere"))?;
                let base = if kind.is_symlink() {
                    path.parent().unwrap_or(Path::new(""))
                } else {
                    Path::new("")
                };
                links.push((normal(&path), normal(&base.join(target))));
            }
        }
        for (link, target) in links {
            if let Some(place) = files.0.get(&target).cloned() {
                files.0.insert(link, place);
            }
        }
        Ok(files)
    }

    fn root_file_system(&self, archive: &Path, name: &Reference) -> io::Result<Found> {
        let (diff_id, size_bytes) = self.unpack(archive, None)?;
        let document = json!({
            "architecture": architecture(), "os": "linux",
            "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        });
        self.found(&serde_json::to_vec(&document)?, size_bytes, BTreeSet::from([key(name)]))
    }

    fn oci(&self, files: &Files, name: Option<&Reference>) -> io::Result<Vec<Found>> {
        let index: Document = serde_json::from_slice(&files.document("index.json")?)?;
        let mut found = Vec::new();
        let several = index.manifests.iter().filter(|descriptor| for_us(descriptor)).count() > 1;
        if several && name.is_some() {
            return Err(invalid(
                "the archive holds several images, which cannot all have one name",
            ));
        }
        for descriptor in index.manifests.iter().filter(|descriptor| for_us(descriptor)) {
            let names = oci_names(descriptor, name)?;
            let manifest = files.manifest(&descriptor.digest, 0)?;
            let config =
                manifest.config.ok_or_else(|| invalid("a manifest without a configuration"))?;
            let config = files.blob_document(&config.digest)?;
            let mut layers = Vec::new();
            for layer in &manifest.layers {
                layers.push(files.blob(&layer.digest)?);
            }
            found.push(self.image(&config, &layers, names)?);
        }
        if found.is_empty() {
            Err(invalid(format!("no image for linux/{}", architecture())))
        } else {
            Ok(found)
        }
    }

    fn docker(&self, files: &Files, name: Option<&Reference>) -> io::Result<Vec<Found>> {
        let manifests: Vec<DockerManifest> =
            serde_json::from_slice(&files.document("manifest.json")?)?;
        if manifests.len() > 1 && name.is_some() {
            return Err(invalid(
                "the archive holds several images, which cannot all have one name",
            ));
        }
        let mut found = Vec::new();
        for manifest in manifests {
            let tags = manifest.repo_tags.unwrap_or_default();
            let names: BTreeSet<String> = match name {
                Some(name) => BTreeSet::from([key(name)]),
                None => tags.iter().map(|tag| read_name(tag)).collect::<io::Result<_>>()?,
            };
            if names.is_empty() {
                return Err(invalid("the archive does not name its image; give it a name"));
            }
            let config = files.document(&manifest.config)?;
            let layers: io::Result<Vec<&Path>> =
                manifest.layers.iter().map(|layer| files.path(layer)).collect();
            found.push(self.image(&config, &layers?, names)?);
        }
        if found.is_empty() { Err(invalid("manifest.json lists no image")) } else { Ok(found) }
    }

    fn image(&self, config: &[u8], layers: &[&Path], names: BTreeSet<String>) -> io::Result<Found> {
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
        let mut size_bytes = 0;
        for (layer, diff_id) in layers.iter().zip(&document.rootfs.diff_ids) {
            if !is_digest(diff_id) {
                return Err(invalid(format!("{diff_id} is no digest")));
            }
            size_bytes += fs::metadata(layer)?.len();
            if !self.images.is_present(diff_id)? && !self.layer(diff_id).exists() {
                self.unpack(layer, Some(diff_id))?;
            }
        }
        self.found(config, size_bytes, names)
    }

    fn found(&self, config: &[u8], size_bytes: u64, names: BTreeSet<String>) -> io::Result<Found> {
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
    fn unpack(&self, tar: &Path, expected: Option<&str>) -> io::Result<(String, u64)> {
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
    fn publish(&self, found: &[Found]) -> io::Result<Vec<Image>> {
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
    /// Whether a layer is there in full, as part of an image. One that no image owns may have been cut short by a crash.
    fn is_present(&self, diff_id: &str) -> io::Result<bool> {
        for entry in fs::read_dir(self.root.join("images"))? {
            let record: Option<ImageRecord> = layout::read(&entry?.path())?;
            if record.is_some_and(|record| record.diff_ids.iter().any(|known| known == diff_id)) {
                return Ok(self.layer_path(diff_id).exists());
            }
        }
        Ok(false)
    }
}

/// The files of an archive: their names in it, and where they lie now.
#[derive(Default)]
struct Files(BTreeMap<String, PathBuf>);

impl Files {
    fn path(&self, name: &str) -> io::Result<&Path> {
        let place = self.0.get(&normal(Path::new(name)));
        place.map(PathBuf::as_path).ok_or_else(|| invalid(format!("the archive has no {name}")))
    }

    fn document(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.path(name)?)?.take(DOCUMENT_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A blob, after its digest has been verified.
    fn blob(&self, digest: &str) -> io::Result<&Path> {
        if !is_digest(digest) {
            return Err(invalid(format!("unsupported digest {digest}")));
        }
        let path = self.path(&format!("blobs/sha256/{}", hex(digest)))?;
        let (found, _) = Counted::new(File::open(path)?).finish()?;
        if found == digest {
            Ok(path)
        } else {
            Err(invalid(format!("blob {digest} has the digest {found}")))
        }
    }

    fn blob_document(&self, digest: &str) -> io::Result<Vec<u8>> {
        self.blob(digest)?;
        self.document(&format!("blobs/sha256/{}", hex(digest)))
    }

    /// The manifest for this machine behind a descriptor, which may be an index.
    fn manifest(&self, digest: &str, depth: u32) -> io::Result<Document> {
        let document: Document = serde_json::from_slice(&self.blob_document(digest)?)?;
        if document.config.is_some() {
            return Ok(document);
        }
        if depth >= DEPTH_MAX {
            return Err(invalid("indexes within indexes within indexes"));
        }
        let ours = document.manifests.iter().find(|descriptor| for_us(descriptor));
        let ours = ours.ok_or_else(|| invalid(format!("no image for linux/{}", architecture())))?;
        self.manifest(&ours.digest, depth + 1)
    }
}

/// Whether a manifest is for this machine. One that says nothing is.
fn for_us(descriptor: &Descriptor) -> bool {
    descriptor
        .platform
        .as_ref()
        .is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture())
}

/// This machine's architecture in Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// The names of an image of an OCI archive: its tag, and its repository with the manifest's digest.
fn oci_names(descriptor: &Descriptor, name: Option<&Reference>) -> io::Result<BTreeSet<String>> {
    let annotation = |key: &str| descriptor.annotations.get(key);
    // What skopeo writes as `ref.name` may be a bare tag, which names nothing.
    let given = annotation("io.containerd.image.name").or_else(|| {
        annotation("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':']))
    });
    let name = match (name, given) {
        (Some(name), _) => name.clone(),
        (None, Some(given)) => {
            Reference::parse(given).map_err(|error| invalid(error.to_string()))?
        }
        (None, None) => return Err(invalid("the archive does not name its image; give it a name")),
    };
    let by_digest =
        Reference { tag: None, digest: Some(descriptor.digest.clone()), ..name.clone() };
    Ok(BTreeSet::from([key(&name), key(&by_digest)]))
}

fn read_name(name: &str) -> io::Result<String> {
    Reference::parse(name).map(|name| key(&name)).map_err(|error| invalid(error.to_string()))
}

/// A name within the archive, without `.` and with `..` resolved; it is only ever compared.
fn normal(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    parts.join("/")
}
