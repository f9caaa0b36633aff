//! One repository of one registry, asked by one who has one credential (or none).

use super::auth::{Asking, challenge};
use super::failure::{Failure, Kind};
use super::http::{Ask, Http, from_byte, read, unexpected};
use crate::images::registries::{Credential, Endpoint};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use std::sync::{Mutex, PoisonError};
use url::Url;

/// The kinds of manifests that are understood, and one that is recognised.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";
/// The largest manifest or configuration that is read, as the distribution specification asks of registries for manifests.
pub(super) const DOCUMENT_MAX: usize = 4 << 20;

/// The way to a repository.
pub(super) struct Repository<'a> {
    pub(super) http: &'a Http,
    pub(super) endpoint: &'a Endpoint,
    /// `library/nginx`
    pub(super) path: &'a str,
    pub(super) credential: Option<&'a Credential>,
    /// What the last challenge was answered with.
    pub(super) authorization: Mutex<Option<HeaderValue>>,
}

/// A manifest as it came.
pub(super) struct Fetched {
    pub(super) bytes: Bytes,
    /// What the registry says it is.
    pub(super) media_type: String,
}

impl Repository<'_> {
    /// The digest behind a tag; `None` if the registry does not tell it without the manifest.
    pub(super) async fn digest(&self, tag: &str) -> Result<Option<String>, Failure> {
        let response = self.ask(Method::HEAD, &format!("manifests/{tag}"), manifests()).await?;
        let digest = response.headers().get("docker-content-digest");
        Ok(digest.and_then(|digest| digest.to_str().ok()).map(str::to_owned))
    }

    /// A manifest by tag or digest; not verified.
    pub(super) async fn manifest(&self, which: &str) -> Result<Fetched, Failure> {
        let response = self.ask(Method::GET, &format!("manifests/{which}"), manifests()).await?;
        let media_type = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let media_type = media_type.and_then(|kind| kind.split(';').next()).unwrap_or_default();
        let media_type = media_type.trim().to_owned();
        Ok(Fetched { bytes: read(response, DOCUMENT_MAX).await?, media_type })
    }

    /// A small blob; not verified.
    pub(super) async fn document(&self, digest: &str) -> Result<Bytes, Failure> {
        let response = self.ask(Method::GET, &format!("blobs/{digest}"), HeaderMap::new()).await?;
        read(response, DOCUMENT_MAX).await
    }

    /// A blob from a byte on; whether it comes from there or from its beginning tells the status.
    pub(super) async fn blob(
        &self,
        digest: &str,
        start: u64,
    ) -> Result<Response<Incoming>, Failure> {
        let mut headers = HeaderMap::new();
        from_byte(&mut headers, start);
        self.ask(Method::GET, &format!("blobs/{digest}"), headers).await
    }

    fn url(&self, what: &str) -> Url {
        let mut url = self.endpoint.base.clone();
        url.set_path(&format!("{}v2/{}/{what}", self.endpoint.base.path(), self.path));
        // As containerd: one mirror may serve several registries.
        if let Some(registry) = &self.endpoint.mirror_of {
            url.query_pairs_mut().append_pair("ns", registry);
        }
        url
    }

    /// An answer that is a success. Challenges are answered, also in the middle: tokens end.
    async fn ask(
        &self,
        method: Method,
        what: &str,
        headers: HeaderMap,
    ) -> Result<Response<Incoming>, Failure> {
        let mut challenged = false;
        loop {
            let mut ask =
                Ask { headers: headers.clone(), ..Ask::new(method.clone(), self.url(what)) };
            let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(known) = known {
                ask.headers.insert(AUTHORIZATION, known);
            }
            let (response, url) = self.http.follow(ask).await?;
            if response.status().is_success() {
                return Ok(response);
            }
            let own = url.origin() == self.endpoint.base.origin();
            if response.status() != StatusCode::UNAUTHORIZED || !own || challenged {
                return Err(denied(unexpected(&method, &url, response).await));
            }
            challenged = true;
            self.authenticate(&method, &url, response).await?;
        }
    }

    async fn authenticate(
        &self,
        method: &Method,
        url: &Url,
        response: Response<Incoming>,
    ) -> Result<(), Failure> {
        let challenge = challenge(response.headers());
        let refusal = unexpected(method, url, response).await;
        let Some(challenge) = challenge else { return Err(denied(refusal)) };
        let asking = Asking {
            http: self.http,
            registry: &self.endpoint.base,
            path: self.path,
            credential: self.credential,
        };
        let answer = asking.answer(challenge).await.map_err(|failure| match failure.kind {
            Kind::Denied => denied(refusal.while_doing(failure)),
            _ => failure.while_doing("failed to authorize"),
        })?;
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        Ok(())
    }
}

fn denied(failure: Failure) -> Failure {
    match failure.kind {
        Kind::Denied => failure.while_doing(
            "pull access denied, repository does not exist or may require authorization",
        ),
        _ => failure,
    }
}

fn manifests() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(ACCEPTED))])
}
