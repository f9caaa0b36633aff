//! Imports archives: OCI layouts, docker-archives, and root file systems, each in a tar that may be compressed.

use super::document::{Descriptor, Document, architecture, choose, is_for_us};
use super::reference::Reference;
use super::unpack::{Counted, invalid};
use super::workshop::{Found, Layer, Origin, Workshop, plain};
use super::{Images, hex, is_digest, key};
use crate::{Image, RuntimeError};
use serde::Deserialize;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

/// The largest JSON document of an archive that is read.
const DOCUMENT_MAX: u64 = 16 << 20;
/// How deep indexes may lie in indexes.
const DEPTH_MAX: u32 = 4;

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
    work.publish(&found, Origin::Brought).map_err(failed)
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

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

impl Workshop<'_> {
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
        let several = index.manifests.iter().filter(|descriptor| is_for_us(descriptor)).count() > 1;
        if several && name.is_some() {
            return Err(invalid(
                "the archive holds several images, which cannot all have one name",
            ));
        }
        for descriptor in index.manifests.iter().filter(|descriptor| is_for_us(descriptor)) {
            let names = oci_names(descriptor, name)?;
            let manifest = files.manifest(&descriptor.digest, 0)?;
            let config =
                manifest.config.ok_or_else(|| invalid("a manifest without a configuration"))?;
            let config = files.blob_document(&config.digest)?;
            let mut layers = Vec::new();
            for layer in &manifest.layers {
                layers.push(layer_at(files.blob(&layer.digest)?)?);
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
            let layers: io::Result<Vec<Layer>> =
                manifest.layers.iter().map(|layer| layer_at(files.path(layer)?)).collect();
            found.push(self.image(&config, &layers?, names)?);
        }
        if found.is_empty() { Err(invalid("manifest.json lists no image")) } else { Ok(found) }
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
        let ours = choose(&document.manifests);
        let ours = ours.ok_or_else(|| invalid(format!("no image for linux/{}", architecture())))?;
        self.manifest(&ours.digest, depth + 1)
    }
}

fn layer_at(file: &Path) -> io::Result<Layer> {
    Ok(Layer { file: file.to_owned(), size_bytes: fs::metadata(file)?.len() })
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
