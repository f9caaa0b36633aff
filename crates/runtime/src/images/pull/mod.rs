//! Pulls images from registries, as <https://github.com/opencontainers/distribution-spec> says.
//!
//! A pull asks one place after the other (mirrors, then the registry), at each with one credential after the other: for the
//! digest behind a tag, the manifest for this machine, the configuration, and the layers that are absent. Nothing is visible
//! before everything is there and verified.

mod auth;
mod blobs;
mod check;
mod failure;
pub(super) mod http;
mod registry;
#[cfg(test)]
mod tests;

use super::document::{Descriptor, Document, architecture, choose};
use super::reference::Reference;
use super::registries::{Credential, Endpoint, Keyring};
use super::workshop::{LAYERS_MAX, Layer, Origin, Workshop};
use super::{Images, is_digest, key};
use crate::{Image, PullError};
use bytes::Bytes;
use check::{Manifest, check_digest, check_layer, check_size, checked, read_config, read_manifest};
use failure::{Failure, Kind, quoted};
use futures::{FutureExt, StreamExt, TryStreamExt};
use registry::{DOCUMENT_MAX, Repository};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;

/// How many layers of an image are fetched at once, as containerd.
const CONCURRENCY: usize = 3;
/// How deep indexes may lie in indexes.
const DEPTH_MAX: u32 = 4;

/// Hears how far a pull is.
pub trait Progress: Send + Sync + fmt::Debug {
    /// So many bytes of a layer are here.
    fn layer(&self, digest: &str, here: u64, size: u64);
    /// All layers are here and are being unpacked.
    fn unpacking(&self);
}

/// Nobody listens.
impl Progress for () {
    fn layer(&self, _: &str, _: u64, _: u64) {}
    fn unpacking(&self) {}
}

impl Images {
    /// Fetches an image as [`crate::ImageStore::pull`] does, but as one that somebody wants here: it is what the name means
    /// from now on, as if it were imported. `progress` hears how far it is.
    pub async fn bring(
        &self,
        reference: &str,
        keyring: &Keyring,
        progress: &dyn Progress,
    ) -> Result<Image, PullError> {
        self.pull_as(reference, keyring, Origin::Brought, progress).await
    }

    pub(super) async fn pull_as(
        &self,
        reference: &str,
        keyring: &Keyring,
        origin: Origin,
        progress: &dyn Progress,
    ) -> Result<Image, PullError> {
        let name = Reference::parse(reference)
            .map_err(|error| PullError::InvalidName(error.to_string()))?;
        let purpose = Purpose { name: &name, origin, progress };
        self.pull_name(purpose, keyring).await.map_err(|failure| {
            let advice = match failure.kind {
                Kind::Unreachable => {
                    " (where no registry can be reached, `abide image import` takes images from archives)"
                }
                _ => "",
            };
            PullError::Failed(format!("failed to pull and unpack image \"{name}\": {failure}{advice}"))
        })
    }

    async fn pull_name(&self, purpose: Purpose<'_>, keyring: &Keyring) -> Result<Image, Failure> {
        let mut keyring = keyring.clone();
        keyring.extend(self.registries.keyring().map_err(Failure::refused)?);
        let mut of_mirrors = String::new();
        for endpoint in self.registries.endpoints(purpose.name).map_err(Failure::refused)? {
            match (self.pull_from(&endpoint, purpose, &keyring).await, &endpoint.mirror_of) {
                (Ok(image), _) => return Ok(image),
                (Err(failure), Some(_)) => {
                    tracing::debug!(mirror = %endpoint.base, %failure, "a mirror did not help");
                    of_mirrors += &format!("; mirror {}: {failure}", endpoint.base);
                }
                (Err(failure), None) => return Err(failure.followed_by(&of_mirrors)),
            }
        }
        Err(Failure::refused("there is no place to ask"))
    }

    /// One place, with each of the credentials for it.
    async fn pull_from(
        &self,
        endpoint: &Endpoint,
        purpose: Purpose<'_>,
        keyring: &Keyring,
    ) -> Result<Image, Failure> {
        let name = purpose.name;
        let credentials: Vec<Option<&Credential>> = match keyring.lookup(&endpoint.host, &name.path)
        {
            none if none.is_empty() => vec![None],
            some => some.into_iter().map(Some).collect(),
        };
        let mut last = Failure::refused("there are no credentials");
        for credential in credentials {
            let repository = Repository {
                http: self.registries.http().await.map_err(Failure::refused)?,
                endpoint,
                path: &name.path,
                credential,
                authorization: Mutex::default(),
            };
            let pull = Pull { images: self, name, purpose, repository };
            match pull.run().await {
                // Some registries hide what one may not see.
                Err(failure) if matches!(failure.kind, Kind::Denied | Kind::NotFound) => {
                    last = failure;
                }
                done => return done,
            }
        }
        Err(last)
    }
}

/// What is pulled, and for whom.
#[derive(Clone, Copy)]
struct Purpose<'a> {
    name: &'a Reference,
    origin: Origin,
    progress: &'a dyn Progress,
}

struct Pull<'a> {
    images: &'a Images,
    name: &'a Reference,
    purpose: Purpose<'a>,
    repository: Repository<'a>,
}

impl Pull<'_> {
    async fn run(&self) -> Result<Image, Failure> {
        let resolving = format!("failed to resolve reference \"{}\"", self.name);
        let resolve = |failure: Failure| match failure.kind {
            Kind::NotFound => Failure::new(Kind::NotFound, format!("{}: not found", self.name)),
            _ => failure,
        };
        let digest = self.digest().await.map_err(|f| resolve(f).while_doing(&resolving))?;
        if let Some(digest) = &digest
            && let Some(image) = self.take_present(digest).await?
        {
            return Ok(image);
        }
        let root = self.root(digest).await.map_err(|f| resolve(f).while_doing(&resolving))?;
        let root_digest = root.digest.clone();
        let manifest = self.manifest_for_us(root).await?;
        let config = self.config(&manifest).await?;
        let layers = self.layers(&manifest, &config).await?;
        self.purpose.progress.unpacking();
        self.publish(root_digest, config, layers).await
    }

    /// The digest of what is asked for, if it can be told before fetching.
    async fn digest(&self) -> Result<Option<String>, Failure> {
        if self.name.digest.is_some() {
            // Asked for nevertheless: who may not pull it must be told so.
            self.repository.digest(&self.which()).await?;
            return Ok(self.name.digest.clone());
        }
        match self.repository.digest(&self.which()).await {
            Ok(digest) => Ok(digest.filter(|digest| is_digest(digest))),
            // Not every registry answers HEAD.
            Err(failure) if failure.kind == Kind::Refused => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Digest or tag, as it stands in URLs.
    fn which(&self) -> String {
        let tag = || self.name.tag.clone().unwrap_or_else(|| "latest".to_owned());
        self.name.digest.clone().unwrap_or_else(tag)
    }

    /// An image that is here already, under perhaps another tag.
    async fn take_present(&self, digest: &str) -> Result<Option<Image>, Failure> {
        let (images, names, origin) =
            (self.images.clone(), self.names(digest), self.purpose.origin);
        let taken = super::blocking(move || images.name_again(names, origin));
        taken.await.map_err(|error| Failure::new(Kind::Broken, error.to_string()))
    }

    /// The names that the image will have, the exact one first.
    fn names(&self, digest: &str) -> (String, String) {
        let exact = Reference { tag: None, digest: Some(digest.to_owned()), ..self.name.clone() };
        (key(&exact), key(self.name))
    }

    /// The manifest or index that is asked for.
    async fn root(&self, digest: Option<String>) -> Result<Manifest, Failure> {
        let which = digest.clone().unwrap_or_else(|| self.which());
        let fetched = self.repository.manifest(&which).await?;
        read_manifest(&fetched.bytes, digest.as_deref(), &fetched.media_type)
    }

    async fn manifest_for_us(&self, mut manifest: Manifest) -> Result<Document, Failure> {
        for _ in 0..DEPTH_MAX {
            if manifest.document.config.is_some() {
                return Ok(manifest.document);
            }
            let chosen = choose(&manifest.document.manifests).ok_or_else(|| {
                Failure::new(
                    Kind::Refused,
                    format!(
                        "no match for platform linux/{} in manifest {}: not found",
                        architecture(),
                        manifest.digest
                    ),
                )
            })?;
            let digest = checked(&chosen.digest)?;
            let fetched = self.repository.manifest(digest).await?;
            check_size(chosen, fetched.bytes.len())?;
            manifest = read_manifest(&fetched.bytes, Some(digest), &fetched.media_type)?;
        }
        Err(Failure::refused("indexes within indexes within indexes"))
    }

    async fn config(&self, manifest: &Document) -> Result<Bytes, Failure> {
        let descriptor = manifest.config.as_ref().ok_or_else(|| Failure::refused("no config"))?;
        match descriptor.media_type.as_str() {
            "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json" => {}
            other => {
                return Err(Failure::refused(format!(
                    "this is no container image: its configuration is of type {:?}",
                    quoted(other)
                )));
            }
        }
        if descriptor.size.is_some_and(|size| size > DOCUMENT_MAX as u64) {
            return Err(Failure::refused(format!(
                "its configuration is larger than {DOCUMENT_MAX} bytes"
            )));
        }
        let bytes = self.repository.document(checked(&descriptor.digest)?).await?;
        check_size(descriptor, bytes.len())?;
        check_digest(&descriptor.digest, &bytes)?;
        Ok(bytes)
    }

    /// Fetches what is absent.
    async fn layers(&self, manifest: &Document, config: &[u8]) -> Result<Vec<Descriptor>, Failure> {
        let diff_ids = read_config(config)?;
        let layers = &manifest.layers;
        if diff_ids.len() != layers.len() || layers.len() > LAYERS_MAX {
            return Err(Failure::refused(format!(
                "{} layers but {} diff_ids (at most {LAYERS_MAX} are possible)",
                layers.len(),
                diff_ids.len()
            )));
        }
        layers.iter().try_for_each(check_layer)?;
        let mut fetches = Vec::new();
        for (layer, diff_id) in layers.iter().zip(&diff_ids) {
            let fetch =
                blobs::fetch(self.images, &self.repository, layer, diff_id, self.purpose.progress);
            fetches.push(fetch.boxed());
        }
        let fetches = futures::stream::iter(fetches).buffer_unordered(CONCURRENCY);
        fetches.try_collect::<()>().await?;
        Ok(layers.clone())
    }

    async fn publish(
        &self,
        digest: String,
        config: Bytes,
        layers: Vec<Descriptor>,
    ) -> Result<Image, Failure> {
        let (images, (exact, name)) = (self.images.clone(), self.names(&digest));
        let (names, origin) = (BTreeSet::from([exact, name]), self.purpose.origin);
        let published = tokio::task::spawn_blocking(move || {
            let _importing = images.lock("import.lock")?;
            let work = Workshop::open(&images)?;
            let files: Vec<Layer> = layers
                .iter()
                .map(|layer| Layer {
                    file: blobs::whole(&images, &layer.digest),
                    size_bytes: layer.size.unwrap_or(0),
                })
                .collect();
            let found = work.image(&config, &files, names);
            let published = found.and_then(|found| work.publish(&[found], origin));
            // Also what could not be unpacked: it would be the same next time.
            blobs::clean_up(&images, &layers);
            published
        });
        let published = published.await.map_err(std::io::Error::other)?;
        let image = published
            .map_err(|error| Failure::from(error).while_doing("failed to extract layer"))?;
        image.into_iter().next().ok_or_else(|| Failure::refused("nothing was published"))
    }
}
