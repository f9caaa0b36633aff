//! Names of images, read and completed as Docker does: `nginx` is `docker.io/library/nginx:latest`.
//!
//! Source of the rules: the grammar of github.com/distribution/reference.

use std::fmt;

/// The longest repository (with its domain) that is accepted.
const NAME_MAX: usize = 255;
/// The longest tag.
const TAG_MAX: usize = 128;

/// A complete name: domain, repository path, and a tag or a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The registry's host, perhaps with a port: `docker.io`.
    pub domain: String,
    /// The repository within it: `library/nginx`.
    pub path: String,
    /// The tag; `latest` if neither tag nor digest was given.
    pub tag: Option<String>,
    /// `sha256:…`
    pub digest: Option<String>,
}

/// Why a name cannot be read, in the words users know from their container runtime.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image reference \"{name}\": {reason}")]
pub struct InvalidReference {
    name: String,
    reason: &'static str,
}

impl Reference {
    /// Reads and completes a name.
    pub fn parse(name: &str) -> Result<Self, InvalidReference> {
        read(name).map_err(|reason| InvalidReference { name: name.to_owned(), reason })
    }

    /// Domain and path: `docker.io/library/nginx`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }
}

const INVALID: &str = "invalid reference format";

fn read(name: &str) -> Result<Reference, &'static str> {
    if name.len() == 64 && name.bytes().all(is_lower_hex) {
        return Err("invalid repository name, cannot specify 64-byte hexadecimal strings");
    }
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(read_digest(digest)?)),
        None => (name, None),
    };
    // A colon after the last slash begins a tag; one before it a port.
    let slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (repository, tag) = match rest[slash..].find(':') {
        Some(at) => (&rest[..slash + at], Some(read_tag(&rest[slash + at + 1..])?)),
        None => (rest, None),
    };
    let (domain, path) = split_domain(repository);
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("invalid reference format: repository name must be lowercase");
    }
    if !is_domain(&domain) || !path.split('/').all(is_path_component) {
        return Err(INVALID);
    }
    if domain.len() + 1 + path.len() > NAME_MAX {
        return Err("repository name must not be more than 255 characters");
    }
    let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
    Ok(Reference { domain, path, tag, digest })
}

/// The first part is a host only if it looks like one: a dot, a port, `localhost`, or an upper-case letter.
fn split_domain(repository: &str) -> (String, String) {
    let (domain, path) = match repository.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => ("docker.io", repository),
    };
    let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
    if domain == "docker.io" && !path.contains('/') {
        return (domain.to_owned(), format!("library/{path}"));
    }
    (domain.to_owned(), path.to_owned())
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let host_is_good = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => {
            !address.is_empty()
                && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':')
        }
        None => host.split('.').all(|label| {
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            !label.is_empty()
                && label.bytes().all(inner)
                && !label.starts_with('-')
                && !label.ends_with('-')
        }),
    };
    host_is_good
        && port
            .is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Lower-case letters and digits, separated by `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !edge(*first) || !edge(*last) {
        return false;
    }
    let separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    separators
        .into_iter()
        .all(|s| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|byte| byte == b'-'))
}

fn read_tag(tag: &str) -> Result<String, &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let good = tag.len() <= TAG_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-');
    if good { Ok(tag.to_owned()) } else { Err(INVALID) }
}

/// Only SHA-256 digests are known, which is what registries and archives use.
fn read_digest(digest: &str) -> Result<String, &'static str> {
    match digest.split_once(':') {
        Some(("sha256", hex)) if hex.len() == 64 && hex.bytes().all(is_lower_hex) => {
            Ok(digest.to_owned())
        }
        Some(("sha256", _)) => Err("invalid checksum digest length"),
        Some((_, hex)) if !hex.is_empty() => Err("unsupported digest algorithm"),
        _ => Err(INVALID),
    }
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let cases = [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.12", "docker.io/library/nginx:1.12"),
            ("bitnami/etcd", "docker.io/bitnami/etcd:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("registry.k8s.io/nginx-slim:0.24", "registry.k8s.io/nginx-slim:0.24"),
            ("[::1]:5000/a__b", "[::1]:5000/a__b:latest"),
            ("gcr.io/a/b---c:V1.0_x-y", "gcr.io/a/b---c:V1.0_x-y"),
        ];
        for (given, expected) in cases {
            assert_eq!(Reference::parse(given).unwrap().to_string(), expected, "{given}");
        }
        let named = Reference::parse(&format!("nginx@{digest}")).unwrap();
        assert_eq!(named.to_string(), format!("docker.io/library/nginx@{digest}"));
        assert_eq!(named.tag, None);
    }

    #[test]
    fn invalid_names_are_refused_in_the_words_of_the_container_runtime() {
        let error = Reference::parse("bad name").unwrap_err().to_string();
        assert_eq!(error, "couldn't parse image reference \"bad name\": invalid reference format");
        let error = Reference::parse("NGINX").unwrap_err().to_string();
        assert!(error.ends_with("repository name must be lowercase"), "{error}");
        for bad in [
            "",
            ":",
            "a:",
            "a@",
            "a//b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a@sha256:12",
            "a:b:c",
            "/a",
            "a/",
            "é",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Reference::parse(&"a".repeat(64)).is_err());
        assert!(Reference::parse(&"z".repeat(300)).is_err());
        assert!(Reference::parse(&format!("a:{}", "b".repeat(129))).is_err());
    }
}
