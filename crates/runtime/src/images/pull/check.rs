//! Documents from strangers: what is read of them, after it has been verified.

use super::failure::{Failure, quoted};
use crate::images::document::{ConfigDocument, Descriptor, Document, architecture};
use crate::images::is_digest;
use crate::images::unpack::digest_text;
use sha2::{Digest, Sha256};

/// The largest layer that is fetched.
const LAYER_MAX: u64 = 64 << 30;

/// What has been asked for, verified.
pub(super) struct Manifest {
    pub(super) document: Document,
    pub(super) digest: String,
}

/// Reads an index or manifest, after its digest has been verified.
pub(super) fn read_manifest(
    bytes: &[u8],
    digest: Option<&str>,
    media_type: &str,
) -> Result<Manifest, Failure> {
    if let Some(digest) = digest {
        check_digest(digest, bytes)?;
    }
    let bad = |why: String| Failure::refused(format!("malformed manifest: {why}"));
    let document: Document =
        serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
    let media_type = if document.media_type.is_empty() { media_type } else { &document.media_type };
    if media_type.starts_with("application/vnd.docker.distribution.manifest.v1") {
        return Err(Failure::refused("images of Docker's schema 1 are not supported"));
    }
    let an_image = document.config.is_some();
    if an_image != document.manifests.is_empty() {
        // As containerd: what could be read as both is an attack on somebody.
        return Err(bad(format!(
            "neither an index nor a manifest of type {:?}",
            quoted(media_type)
        )));
    }
    Ok(Manifest { document, digest: digest_text(&Sha256::digest(bytes)) })
}

/// The `diff_ids` of a configuration for this machine.
pub(super) fn read_config(config: &[u8]) -> Result<Vec<String>, Failure> {
    let config: ConfigDocument = serde_json::from_slice(config)
        .map_err(|error| Failure::refused(format!("malformed configuration: {error}")))?;
    let (os, ours) = (config.os, config.architecture);
    if !(os.is_empty() || os == "linux") || !(ours.is_empty() || ours == architecture()) {
        return Err(Failure::refused(format!(
            "no match for platform linux/{} in manifest: the image is for {}/{}",
            architecture(),
            quoted(&os),
            quoted(&ours)
        )));
    }
    match config.rootfs.diff_ids.iter().find(|diff_id| !is_digest(diff_id)) {
        Some(bad) => Err(Failure::refused(format!("{:?} is no digest", quoted(bad)))),
        None => Ok(config.rootfs.diff_ids),
    }
}

pub(super) fn check_layer(layer: &Descriptor) -> Result<(), Failure> {
    checked(&layer.digest)?;
    let kind = layer.media_type.as_str();
    let known = matches!(
        kind,
        "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
    );
    if !known {
        return Err(Failure::refused(format!(
            "layer {} is of the unsupported type {:?}",
            layer.digest,
            quoted(kind)
        )));
    }
    match layer.size {
        Some(size) if size <= LAYER_MAX => Ok(()),
        _ => Err(Failure::refused(format!(
            "layer {} does not say its size, or one beyond {LAYER_MAX} bytes",
            layer.digest
        ))),
    }
}

pub(super) fn checked(digest: &str) -> Result<&str, Failure> {
    if is_digest(digest) {
        return Ok(digest);
    }
    Err(Failure::refused(format!("unsupported digest {:?}", quoted(digest))))
}

pub(super) fn check_size(descriptor: &Descriptor, length: usize) -> Result<(), Failure> {
    match descriptor.size {
        Some(size) if size != length as u64 => Err(Failure::refused(format!(
            "unexpected size of {}: {length}, expected {size}",
            descriptor.digest
        ))),
        _ => Ok(()),
    }
}

pub(super) fn check_digest(expected: &str, bytes: &[u8]) -> Result<(), Failure> {
    let found = digest_text(&Sha256::digest(bytes));
    if found == expected {
        return Ok(());
    }
    Err(Failure::refused(format!("unexpected digest {found}, expected {}", quoted(expected))))
}
