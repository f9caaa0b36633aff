//! Archives of images: OCI, Docker's, or a plain root file system.

use super::{Images, Stored, failed, normalize, unpack};
use crate::{Image, RuntimeError};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// A manifest or configuration is never larger.
const MAX_DOCUMENT: u64 = 8 * 1024 * 1024;

/// An archive whose members can be read in any order.
struct Archive {
    file: File,
    /// Where each member's bytes are.
    members: BTreeMap<String, (u64, u64)>,
}

impl Archive {
    fn open(path: &Path, scratch: &Path) -> Result<Archive, RuntimeError> {
        let mut file = File::open(path).map_err(|error| failed("open", path, &error))?;
        let mut magic = [0; 4];
        let read = file.read(&mut magic).map_err(|error| failed("read", path, &error))?;
        file.rewind().map_err(|error| failed("read", path, &error))?;
        if let Some(mut plain) = decompressed(&magic[..read], BufReader::new(file.try_clone().map_err(|error| failed("open", path, &error))?))? {
            let mut copy = File::options().read(true).write(true).create_new(true).open(scratch.join("plain.tar")).map_err(|error| failed("make", scratch, &error))?;
            io::copy(&mut plain, &mut copy).map_err(|error| failed("decompress", path, &error))?;
            file = copy;
        }
        let mut archive = Archive { file, members: BTreeMap::new() };
        archive.file.rewind().map_err(|error| failed("read", path, &error))?;
        let mut tar = tar::Archive::new(BufReader::new(archive.file.try_clone().map_err(|error| failed("open", path, &error))?));
        for entry in tar.entries().map_err(|error| failed("read", path, &error))? {
            let entry = entry.map_err(|error| RuntimeError::Config(format!("{} is no tar archive: {error}", path.display())))?;
            let name = entry.path().map_err(|error| failed("read", path, &error))?.to_string_lossy().trim_start_matches("./").to_owned();
            archive.members.insert(name, (entry.raw_file_position(), entry.size()));
        }
        Ok(archive)
    }

    fn member(&self, name: &str) -> Result<io::Take<File>, RuntimeError> {
        let (start, length) = self.members.get(name).ok_or_else(|| RuntimeError::Config(format!("the archive has no {name}")))?;
        let mut file = self.file.try_clone().map_err(|error| RuntimeError::Other(error.to_string()))?;
        file.seek(SeekFrom::Start(*start)).map_err(|error| RuntimeError::Other(error.to_string()))?;
        Ok(file.take(*length))
    }

    fn document(&self, name: &str) -> Result<(Value, String), RuntimeError> {
        let mut bytes = Vec::new();
        self.member(name)?.take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(|error| RuntimeError::Other(error.to_string()))?;
        let value = serde_json::from_slice(&bytes).map_err(|error| RuntimeError::Config(format!("{name} in the archive is no JSON: {error}")))?;
        Ok((value, hex(&Sha256::digest(&bytes))))
    }

    /// A document named by its digest, which must be right.
    fn blob(&self, digest: &str) -> Result<Value, RuntimeError> {
        let wanted = digest.strip_prefix("sha256:").ok_or_else(|| RuntimeError::Config(format!("digest {digest} is not sha256")))?;
        let (value, found) = self.document(&format!("blobs/sha256/{wanted}"))?;
        if found != wanted {
            return Err(RuntimeError::Config(format!("a blob's digest is sha256:{found}, not {digest}: the archive is damaged")));
        }
        Ok(value)
    }
}

/// What reads the bytes behind a compression; `None` when there is none.
fn decompressed<'a>(magic: &[u8], reader: impl Read + 'a) -> Result<Option<Box<dyn Read + 'a>>, RuntimeError> {
    if magic.starts_with(&[0x1f, 0x8b]) {
        return Ok(Some(Box::new(flate2::read::MultiGzDecoder::new(reader))));
    }
    if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = ruzstd::decoding::StreamingDecoder::new(reader).map_err(|error| RuntimeError::Config(format!("read zstd: {error}")))?;
        return Ok(Some(Box::new(decoder)));
    }
    Ok(None)
}

/// An image as an archive has it.
struct Found {
    id: String,
    config: Value,
    /// Members, lowest first.
    layers: Vec<String>,
    names: Vec<String>,
}

/// Imports every image of an archive.
pub(super) fn import(images: &Images, path: &Path, name: Option<&str>) -> Result<Vec<Image>, RuntimeError> {
    let name = name.map(normalize).transpose().map_err(RuntimeError::Config)?;
    let _lock = images.lock()?;
    let scratch = images.folder.join(format!("scratch-{}", std::process::id()));
    match std::fs::remove_dir_all(&scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &scratch, &error)),
        _ => {}
    }
    std::fs::create_dir(&scratch).map_err(|error| failed("make", &scratch, &error))?;
    let result = import_into(images, path, name, &scratch);
    std::fs::remove_dir_all(&scratch).map_err(|error| failed("remove", &scratch, &error))?;
    result
}

fn import_into(images: &Images, path: &Path, name: Option<String>, scratch: &Path) -> Result<Vec<Image>, RuntimeError> {
    let archive = Archive::open(path, scratch)?;
    let found = if archive.members.contains_key("oci-layout") {
        oci_images(&archive)?
    } else if archive.members.contains_key("manifest.json") {
        docker_images(&archive)?
    } else {
        return import_rootfs(images, &archive, path, name, scratch);
    };
    let mut names = images.names()?;
    let mut imported = Vec::new();
    for image in found {
        let given = match &name {
            Some(name) => vec![name.clone()],
            None => image.names.iter().map(|name| normalize(name)).collect::<Result<_, _>>().map_err(RuntimeError::Config)?,
        };
        if given.is_empty() {
            return Err(RuntimeError::Config("the archive names no image: say --name".to_owned()));
        }
        let diff_ids: Vec<String> = image.config["rootfs"]["diff_ids"].as_array().into_iter().flatten().filter_map(Value::as_str).map(|id| id.trim_start_matches("sha256:").to_owned()).collect();
        if diff_ids.len() != image.layers.len() {
            return Err(RuntimeError::Config(format!("the image has {} layers but names {}", image.layers.len(), diff_ids.len())));
        }
        let mut size_bytes = 0;
        for (member, diff_id) in image.layers.iter().zip(&diff_ids) {
            size_bytes += archive.members.get(member).map_or(0, |(_, length)| *length);
            unpack_layer(images, &archive, member, Some(diff_id), scratch)?;
        }
        imported.push(register(images, &mut names, image.id, Stored { config: image.config, layers: diff_ids, size_bytes }, given)?);
    }
    Ok(imported)
}

fn register(images: &Images, names: &mut BTreeMap<String, String>, id: String, stored: Stored, given: Vec<String>) -> Result<Image, RuntimeError> {
    images.write(&images.image_file(&id), &stored)?;
    for name in given {
        names.insert(name, id.clone());
    }
    images.write(&images.folder.join("names.json"), names)?;
    images.image(&id, names)
}

fn import_rootfs(images: &Images, archive: &Archive, path: &Path, name: Option<String>, scratch: &Path) -> Result<Vec<Image>, RuntimeError> {
    let name = name.ok_or_else(|| RuntimeError::Config(format!("{} is neither an OCI archive nor a docker-archive; for a root file system say --name", path.display())))?;
    let mut whole = archive.file.try_clone().map_err(|error| failed("open", path, &error))?;
    let size_bytes = whole.seek(SeekFrom::End(0)).map_err(|error| failed("read", path, &error))?;
    whole.rewind().map_err(|error| failed("read", path, &error))?;
    let diff_id = unpack_stream(images, whole, None, scratch)?;
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]}, "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]}});
    let id = format!("sha256:{}", hex(&Sha256::digest(config.to_string())));
    let mut names = images.names()?;
    Ok(vec![register(images, &mut names, id, Stored { config, layers: vec![diff_id], size_bytes }, vec![name])?])
}

fn oci_images(archive: &Archive) -> Result<Vec<Found>, RuntimeError> {
    let (index, _) = archive.document("index.json")?;
    let mut found = Vec::new();
    let mut entries: Vec<(Value, Option<String>)> = index["manifests"].as_array().into_iter().flatten().map(|entry| (entry.clone(), None)).collect();
    let mut budget = 64;
    while let Some((entry, inherited)) = entries.pop() {
        budget -= 1;
        if budget == 0 {
            return Err(RuntimeError::Config("the archive's index nests too deeply".to_owned()));
        }
        let annotation = |key: &str| entry["annotations"][key].as_str().map(str::to_owned);
        let name = annotation("io.containerd.image.name").or_else(|| annotation("org.opencontainers.image.ref.name")).or(inherited);
        let manifest = archive.blob(entry["digest"].as_str().unwrap_or_default())?;
        if manifest["manifests"].is_array() {
            let mine = |entry: &&Value| entry["platform"].is_null() || entry["platform"]["architecture"] == "amd64" && entry["platform"]["os"] == "linux";
            entries.extend(manifest["manifests"].as_array().into_iter().flatten().filter(mine).map(|entry| (entry.clone(), name.clone())));
            continue;
        }
        let digest = manifest["config"]["digest"].as_str().unwrap_or_default().to_owned();
        let layers = manifest["layers"].as_array().into_iter().flatten().filter_map(|layer| layer["digest"].as_str()).map(|digest| format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"))).collect();
        found.push(Found { config: archive.blob(&digest)?, id: digest, layers, names: name.into_iter().collect() });
    }
    Ok(found)
}

fn docker_images(archive: &Archive) -> Result<Vec<Found>, RuntimeError> {
    let (manifest, _) = archive.document("manifest.json")?;
    let texts = |value: &Value| -> Vec<String> { value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect() };
    manifest
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| {
            let (config, digest) = archive.document(entry["Config"].as_str().unwrap_or_default())?;
            Ok(Found { id: format!("sha256:{digest}"), config, layers: texts(&entry["Layers"]), names: texts(&entry["RepoTags"]) })
        })
        .collect()
}

fn unpack_layer(images: &Images, archive: &Archive, member: &str, diff_id: Option<&str>, scratch: &Path) -> Result<(), RuntimeError> {
    if let Some(diff_id) = diff_id {
        let hexadecimal = diff_id.len() == 64 && diff_id.bytes().all(|b| b.is_ascii_hexdigit());
        if !hexadecimal {
            return Err(RuntimeError::Config(format!("layer id {diff_id:?} is no digest")));
        }
        if images.layer(diff_id).is_dir() {
            return Ok(());
        }
    }
    let mut magic = Vec::new();
    archive.member(member)?.take(4).read_to_end(&mut magic).map_err(|error| RuntimeError::Other(error.to_string()))?;
    let raw = BufReader::with_capacity(1 << 20, archive.member(member)?);
    match decompressed(&magic, raw)? {
        Some(plain) => unpack_stream(images, plain, diff_id, scratch)?,
        None => unpack_stream(images, archive.member(member)?, diff_id, scratch)?,
    };
    Ok(())
}

/// Unpacks a layer and puts it into its place, once its digest is known to be right. Returns the digest.
fn unpack_stream(images: &Images, reader: impl Read, wanted: Option<&str>, scratch: &Path) -> Result<String, RuntimeError> {
    let folder = scratch.join(format!("layer-{}", wanted.unwrap_or("new")));
    std::fs::create_dir(&folder).map_err(|error| failed("make", &folder, &error))?;
    let mut hashing = Hashing { reader: BufReader::with_capacity(1 << 20, reader), hasher: Sha256::new() };
    unpack::unpack(&mut hashing, &folder)?;
    // What follows the archive's end belongs to the digest, too.
    io::copy(&mut hashing, &mut io::sink()).map_err(|error| RuntimeError::Other(error.to_string()))?;
    let digest = hex(&hashing.hasher.finalize());
    if let Some(wanted) = wanted.filter(|wanted| *wanted != digest) {
        return Err(RuntimeError::Config(format!("a layer's content is sha256:{digest}, not sha256:{wanted}: the archive is damaged")));
    }
    let place = images.layer(&digest);
    if !place.is_dir() {
        std::fs::rename(&folder, &place).map_err(|error| failed("make", &place, &error))?;
    }
    Ok(digest)
}

struct Hashing<R> {
    reader: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
