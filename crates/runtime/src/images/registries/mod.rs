//! Which registries are asked for images, how, and with which credentials.

mod keyring;

pub use keyring::{Credential, Keyring};

use super::pull::http::Http;
use super::reference::Reference;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tokio::sync::OnceCell;
use url::{Host, Url};

/// Where images are pulled from.
#[derive(Debug, Default)]
pub struct Registries {
    mirrors: Vec<Mirror>,
    credentials_file: Option<PathBuf>,
    http: OnceCell<Http>,
}

/// A place that is asked for a registry's images before the registry itself, written `REGISTRY=URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// `docker.io`
    registry: String,
    /// Plain `http` is allowed. A path comes before `/v2/`.
    url: Url,
}

/// A place to ask for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Ends in a slash.
    pub(super) base: Url,
    /// The registry that it is asked for; `None` if it is the registry itself.
    pub(super) mirror_of: Option<String>,
    /// What credentials are looked up by: the registry's name, or the mirror's host and port.
    pub(super) host: String,
}

impl FromStr for Mirror {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| {
            format!("{text:?} is not REGISTRY=URL, as in docker.io=http://127.0.0.1:5000: {why}")
        };
        let (registry, url) = text.split_once('=').ok_or_else(|| bad("there is no ="))?;
        // The name of an image of a registry is read in one place; `x/x` is one that every registry may have.
        let reference =
            Reference::parse(&format!("{registry}/x/x")).map_err(|_| bad("no registry's name"))?;
        if reference.path != "x/x" {
            return Err(bad("no registry's name"));
        }
        let mut url = Url::parse(url).map_err(|error| bad(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(bad("the URL must begin with http:// or https://"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(bad("the URL must be nothing but a place"));
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Mirror { registry: reference.domain, url })
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.registry, self.url)
    }
}

impl Registries {
    /// `credentials_file` is of the form of Docker's `config.json`; it is read at each pull, and may be absent.
    pub fn new(mirrors: Vec<Mirror>, credentials_file: Option<PathBuf>) -> Self {
        Registries { mirrors, credentials_file, http: OnceCell::new() }
    }

    /// The places to ask, in order.
    pub(super) fn endpoints(&self, name: &Reference) -> Result<Vec<Endpoint>, String> {
        let mirrors = self.mirrors.iter().filter(|mirror| mirror.registry == name.domain);
        let mut endpoints: Vec<Endpoint> = mirrors
            .map(|mirror| Endpoint {
                base: mirror.url.clone(),
                mirror_of: Some(name.domain.clone()),
                host: authority(&mirror.url),
            })
            .collect();
        endpoints.push(Endpoint {
            base: registry_url(&name.domain)?,
            mirror_of: None,
            host: name.domain.clone(),
        });
        Ok(endpoints)
    }

    /// The credentials of the file.
    pub(super) fn keyring(&self) -> Result<Keyring, String> {
        self.credentials_file.as_deref().map_or(Ok(Keyring::default()), read_keyring)
    }

    /// The HTTP client, made when it is needed first: that reads the certificates of authorities.
    pub(super) async fn http(&self) -> Result<&Http, String> {
        self.http
            .get_or_try_init(|| async {
                tokio::task::spawn_blocking(Http::new).await.map_err(|error| error.to_string())
            })
            .await
    }
}

fn read_keyring(file: &Path) -> Result<Keyring, String> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Keyring::default()),
        Err(error) => return Err(format!("read {}: {error}", file.display())),
    };
    Keyring::from_docker_config(&bytes)
        .map_err(|error| format!("read credentials of {}: {error}", file.display()))
}

/// Host, and port if the URL has one.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Where a registry is. As Docker, those on this machine are asked without TLS.
fn registry_url(domain: &str) -> Result<Url, String> {
    let host = if domain == "docker.io" { "registry-1.docker.io" } else { domain };
    let url = |scheme: &str| {
        Url::parse(&format!("{scheme}://{host}/"))
            .map_err(|error| format!("{domain} is no registry: {error}"))
    };
    let https = url("https")?;
    if is_loopback(&https) { url("http") } else { Ok(https) }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(registries: &Registries, name: &str) -> Vec<String> {
        let endpoints = registries.endpoints(&Reference::parse(name).unwrap()).unwrap();
        endpoints.iter().map(|endpoint| format!("{} {}", endpoint.base, endpoint.host)).collect()
    }

    #[test]
    fn mirrors_are_asked_before_the_registry_itself() {
        let mirrors = [
            "docker.io=http://127.0.0.1:5000",
            "docker.io=https://mirror.example/hub",
            "gcr.io=http://m",
        ];
        let mirrors = mirrors.map(|mirror| mirror.parse().unwrap()).to_vec();
        let registries = Registries::new(mirrors, None);
        assert_eq!(
            places(&registries, "busybox"),
            [
                "http://127.0.0.1:5000/ 127.0.0.1:5000",
                "https://mirror.example/hub/ mirror.example",
                "https://registry-1.docker.io/ docker.io",
            ]
        );
        assert_eq!(places(&registries, "gcr.io/a/b")[0], "http://m/ m");
    }

    #[test]
    fn registries_on_this_machine_are_asked_without_tls() {
        let registries = Registries::default();
        for (name, place) in [
            ("localhost:5000/a", "http://localhost:5000/"),
            ("127.8.0.1/a", "http://127.8.0.1/"),
            ("[::1]:5000/a", "http://[::1]:5000/"),
            ("localhost.example/a", "https://localhost.example/"),
            ("10.0.0.1:5000/a", "https://10.0.0.1:5000/"),
        ] {
            let (found, _) = places(&registries, name)[0]
                .split_once(' ')
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .unwrap();
            assert_eq!(found, place, "{name}");
        }
        let odd = Reference::parse("a.b:99999999/c").unwrap();
        assert!(registries.endpoints(&odd).unwrap_err().contains("a.b:99999999 is no registry"));
    }

    #[test]
    fn a_mirror_is_a_registry_and_a_place() {
        for text in ["docker.io=http://m:1/", "localhost:5000=https://m/a/"] {
            assert_eq!(text.parse::<Mirror>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "docker.io",
            "=http://m",
            "docker.io=m",
            "docker.io=ftp://m",
            "a b=http://m",
            "docker.io=http://u:p@m",
            "busybox=http://m",
            "gcr.io/a=http://m",
        ] {
            let error = text.parse::<Mirror>().unwrap_err();
            assert!(error.contains("is not REGISTRY=URL"), "{text}: {error}");
        }
    }
}
