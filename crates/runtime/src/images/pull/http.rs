//! HTTP as registries need it: a few tries, redirects, bounded bodies, nothing that hangs for ever.

use super::failure::{Failure, Kind, chain, quoted};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, LOCATION, RANGE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// How long making a connection may take, as containerd.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a registry may be silent.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long connections wait for more work.
const IDLE_MAX: Duration = Duration::from_secs(15);
/// How often a request is made, and how long after the first failure; twice as long after the next.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(100);
/// How many redirects are followed, as Go does.
const REDIRECTS_MAX: u32 = 10;
/// How much of an error's explanation is read.
const EXPLANATION_MAX: usize = 64 << 10;

/// A client for any number of registries.
#[derive(Debug)]
pub(in crate::images) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Why no registry can be trusted.
    without_authorities: Option<String>,
}

/// A request that can be made again.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Ask {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Ask { method, url, headers: HeaderMap::new(), body: Bytes::new() }
    }
}

impl Http {
    /// Reads the certificates of the authorities that this machine trusts (or those in `SSL_CERT_FILE`).
    pub(in crate::images) fn new() -> Http {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // TLS 1.2 and 1.3 are what ring has cipher suites for.
        let builder = || {
            rustls::ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .expect("ring has cipher suites for the default versions")
        };
        let (tls, without_authorities) = match builder().with_native_roots() {
            Ok(tls) => (tls.with_no_client_auth(), None),
            Err(error) => {
                let none = builder().with_root_certificates(rustls::RootCertStore::empty());
                (none.with_no_client_auth(), Some(error.to_string()))
            }
        };
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .build(connector);
        Http { client, without_authorities }
    }

    /// Makes a request, a few times if need be, and follows where it leads. The answer may be an error's, and is of the URL
    /// that is returned with it.
    pub(super) async fn follow(&self, mut ask: Ask) -> Result<(Response<Incoming>, Url), Failure> {
        for _ in 0..REDIRECTS_MAX {
            let response = self.persist(&ask).await?;
            let Some(target) = redirect(&response, &ask.url)? else {
                return Ok((response, ask.url));
            };
            if ask.url.origin() != target.origin() {
                // Who is elsewhere must not learn who we are.
                ask.headers.remove(AUTHORIZATION);
            }
            ask.url = target;
        }
        Err(Failure::refused(format!("stopped after {REDIRECTS_MAX} redirects")))
    }

    async fn persist(&self, ask: &Ask) -> Result<Response<Incoming>, Failure> {
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            match self.once(ask).await {
                Ok(response) if !may_pass(response.status()) => return Ok(response),
                Err(failure) if failure.kind != Kind::Broken => return Err(failure),
                Ok(_) | Err(_) => tokio::time::sleep(pause).await,
            }
            pause *= 2;
        }
        self.once(ask).await
    }

    async fn once(&self, ask: &Ask) -> Result<Response<Incoming>, Failure> {
        let doing =
            || format!("failed to do request: {} \"{}\"", title(&ask.method), shown(&ask.url));
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(ask.url.as_str())
            .body(Full::new(ask.body.clone()))
            .map_err(|error| Failure::refused(error.to_string()).while_doing(doing()))?;
        *request.headers_mut() = ask.headers.clone();
        let agent = concat!("abide/", env!("CARGO_PKG_VERSION"));
        request.headers_mut().insert("user-agent", http::HeaderValue::from_static(agent));
        match tokio::time::timeout(SILENCE_MAX, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let kind = if error.is_connect() { Kind::Unreachable } else { Kind::Broken };
                let mut words = chain(&error);
                if let (Some(why), "https") = (&self.without_authorities, ask.url.scheme()) {
                    words = format!(
                        "{words} (no certificate authorities are known: {why}; install ca-certificates)"
                    );
                }
                Err(Failure::new(kind, words).while_doing(doing()))
            }
            Err(_) => {
                let words = format!("no answer within {} s", SILENCE_MAX.as_secs());
                Err(Failure::new(Kind::Unreachable, words).while_doing(doing()))
            }
        }
    }
}

/// As Go writes a method in its errors.
fn title(method: &Method) -> &'static str {
    match *method {
        Method::HEAD => "Head",
        Method::POST => "Post",
        _ => "Get",
    }
}

/// A URL without its query, which may hold signatures.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

/// Statuses of a server that is not itself at the moment.
fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

/// Where an answer leads, if it does.
fn redirect(response: &Response<Incoming>, from: &Url) -> Result<Option<Url>, Failure> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let bad = |why: &str| Failure::refused(format!("a redirect from {} {why}", shown(from)));
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let location = location.ok_or_else(|| bad("leads nowhere"))?;
    let target = from.join(location).map_err(|_| bad("leads nowhere"))?;
    match (from.scheme(), target.scheme()) {
        (_, "https") | ("http", "http") => Ok(Some(target)),
        _ => Err(bad("leads out of TLS")),
    }
}

/// A whole body of at most `max` bytes.
pub(super) async fn read(response: Response<Incoming>, max: usize) -> Result<Bytes, Failure> {
    let too_large = || Failure::refused(format!("the answer is larger than {max} bytes"));
    let length = response.headers().get(CONTENT_LENGTH).and_then(|text| text.to_str().ok());
    if length.and_then(|text| text.parse::<u64>().ok()).is_some_and(|length| length > max as u64) {
        return Err(too_large());
    }
    let body = Limited::new(response.into_body(), max).collect();
    match tokio::time::timeout(SILENCE_MAX, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Failure::new(Kind::Broken, chain(&*error))),
        Err(_) => Err(Failure::new(Kind::Broken, "the answer does not end")),
    }
}

/// What a registry explains an error with. <https://github.com/opencontainers/distribution-spec>, "Error Codes".
#[derive(Deserialize)]
struct Explanation {
    #[serde(default)]
    errors: Vec<ErrorInfo>,
    #[serde(default)]
    details: String,
}

#[derive(Deserialize)]
struct ErrorInfo {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: Option<String>,
}

/// An answer that is not what was asked for, as a failure.
pub(super) async fn unexpected(
    method: &Method,
    url: &Url,
    response: Response<Incoming>,
) -> Failure {
    let status = response.status();
    let kind = match status.as_u16() {
        404 => Kind::NotFound,
        401 | 403 => Kind::Denied,
        _ if may_pass(status) => Kind::Broken,
        _ => Kind::Refused,
    };
    let mut words = format!(
        "unexpected status from {method} request to {}: {}",
        shown(url),
        status.to_string().trim_end_matches(" <unknown status code>")
    );
    // An error without a readable explanation is told without.
    let body = read(response, EXPLANATION_MAX).await.unwrap_or_default();
    if let Ok(explanation) = serde_json::from_slice::<Explanation>(&body) {
        for error in explanation.errors {
            let message = error.message.unwrap_or_default();
            words = format!("{words}: {}", quoted(format!("{} {message}", error.code).trim()));
        }
        if !explanation.details.is_empty() {
            words = format!("{words}: {}", quoted(&explanation.details));
        }
    }
    Failure::new(kind, words)
}

/// `Range` from a byte to the end.
pub(super) fn from_byte(headers: &mut HeaderMap, start: u64) {
    if start > 0 {
        headers.insert(
            RANGE,
            http::HeaderValue::try_from(format!("bytes={start}-"))
                .unwrap_or(http::HeaderValue::from_static("bytes=0-")),
        );
    }
}
