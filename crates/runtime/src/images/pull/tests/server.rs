//! A registry in the test's own process, which a test makes behave as it likes.

use crate::images::unpack::digest_text;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub(super) type Answer = Response<BoxBody<Bytes, std::io::Error>>;

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A request, as far as tests look at it.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Listens until it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) async fn new(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Server {
        Server::start(None, answer).await
    }

    /// With TLS, and a certificate that nobody trusts.
    pub(super) async fn with_tls(content: Content) -> Server {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Server::start(Some(acceptor), move |asked| content.answer(asked)).await
    }

    async fn start(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, answer) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(answer));
        let heard = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, heard, answer) = (tls.clone(), heard.clone(), answer.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let asked = Asked {
                        method: request.method().clone(),
                        path: request.uri().path().to_owned(),
                        query: request.uri().query().unwrap_or_default().to_owned(),
                        headers: request.headers().clone(),
                    };
                    let who = asked.header("authorization");
                    let line = format!("{} {} {who}", asked.method, asked.path);
                    heard.lock().unwrap().push(line.trim_end().to_owned());
                    let response = answer(&asked);
                    async move { Ok::<_, Infallible>(response) }
                });
                tokio::spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    // Tests break connections on purpose.
                    match tls {
                        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(http.serve_connection(TokioIo::new(stream), service).await);
                            }
                        }
                    }
                });
            }
        });
        Server { address, seen, task }
    }

    /// Nobody listens any more when this returns.
    pub(super) async fn close(mut self) {
        self.task.abort();
        // An aborted task ends with an error.
        assert!((&mut self.task).await.is_err());
    }

    /// An image of this registry.
    pub(super) fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// What has been asked since this was asked last: method, path and authorization.
    pub(super) fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

pub(super) fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed();
    Response::builder().status(status).body(body).unwrap()
}

pub(super) fn with(mut answer: Answer, name: &'static str, value: &str) -> Answer {
    answer.headers_mut().insert(name, value.parse().unwrap());
    answer
}

/// A body that breaks off after these bytes of `length`, when they have been sent.
pub(super) fn broken(bytes: Bytes, length: usize) -> Answer {
    let sent = futures::stream::iter([Ok(Frame::data(bytes))]);
    let end = futures::stream::once(async {
        // The server sends what it has when it must wait for more.
        tokio::task::yield_now().await;
        Err(std::io::Error::other("broken on purpose"))
    });
    let answer = Response::new(BodyExt::boxed(StreamBody::new(sent.chain(end))));
    with(answer, "content-length", &length.to_string())
}

/// A body without end.
pub(super) fn endless() -> Answer {
    let zeroes = || Ok(Frame::data(Bytes::from_static(&[b' '; 65536])));
    let body = StreamBody::new(futures::stream::repeat_with(zeroes));
    Response::new(BodyExt::boxed(body))
}

pub(super) fn digest(bytes: &[u8]) -> String {
    digest_text(&Sha256::digest(bytes))
}

pub(super) fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap().into()
}

/// A layer with one file.
pub(super) fn tar(name: &str, content: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    builder.into_inner().unwrap()
}

/// What a registry holds: documents and blobs by tag and digest, whatever the repository.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pub(super) manifests: BTreeMap<String, (String, Bytes)>,
    pub(super) blobs: BTreeMap<String, Bytes>,
}

impl Content {
    /// An image of these layers under a tag. Returns its manifest's digest.
    pub(super) fn image(&mut self, tag: &str, layers: &[(&str, Vec<u8>, Bytes)]) -> String {
        let diff_ids: Vec<String> = layers.iter().map(|(_, tar, _)| digest(tar)).collect();
        let config = json!({"architecture": crate::images::document::architecture(), "os": "linux", "config": {"User": "7"}, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let mut described = Vec::new();
        for (kind, _, blob) in layers {
            described.push(self.blob(kind, blob.clone()));
        }
        let config = self.blob(CONFIG, serde_json::to_vec(&config).unwrap().into());
        self.manifest(
            tag,
            MANIFEST,
            &json!({"schemaVersion": 2, "config": config, "layers": described}),
        )
    }

    /// An image of one small layer.
    pub(super) fn simple(&mut self, tag: &str, content: &str) -> String {
        let tar = tar("file", content);
        let blob = gzip(&tar);
        self.image(tag, &[(LAYER, tar, blob)])
    }

    /// Adds a blob and returns its descriptor.
    pub(super) fn blob(&mut self, kind: &str, bytes: Bytes) -> Value {
        let digest = digest(&bytes);
        let descriptor = json!({"mediaType": kind, "digest": digest, "size": bytes.len()});
        self.blobs.insert(digest, bytes);
        descriptor
    }

    /// Adds an index or manifest under a tag and its digest, which is returned.
    pub(super) fn manifest(&mut self, tag: &str, kind: &str, document: &Value) -> String {
        let bytes = Bytes::from(serde_json::to_vec(document).unwrap());
        let digest = digest(&bytes);
        for name in [tag, &digest] {
            self.manifests.insert(name.to_owned(), (kind.to_owned(), bytes.clone()));
        }
        digest
    }

    /// As a registry answers that asks nobody who he is.
    pub(super) fn answer(&self, asked: &Asked) -> Answer {
        let unknown =
            || answer(404, r#"{"errors":[{"code":"NOT_KNOWN","message":"not known here"}]}"#);
        let Some((place, which)) = asked.path.rsplit_once('/') else { return unknown() };
        if place.ends_with("/manifests") {
            let Some((kind, bytes)) = self.manifests.get(which) else { return unknown() };
            let body = if asked.method == Method::HEAD { Bytes::new() } else { bytes.clone() };
            let found = with(answer(200, body), "content-type", kind);
            return with(found, "docker-content-digest", &digest(bytes));
        }
        let Some(bytes) = self.blobs.get(which) else { return unknown() };
        let range = asked.header("range").strip_prefix("bytes=").and_then(|r| r.strip_suffix('-'));
        match range.and_then(|start| start.parse::<usize>().ok()) {
            Some(start) => {
                let part = answer(StatusCode::PARTIAL_CONTENT.as_u16(), bytes.slice(start..));
                with(
                    part,
                    "content-range",
                    &format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()),
                )
            }
            None => answer(200, bytes.clone()),
        }
    }

    /// A server of this content.
    pub(super) async fn serve(self) -> Server {
        Server::new(move |asked| self.answer(asked)).await
    }
}
