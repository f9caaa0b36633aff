//! Credentials for registries, as Docker and Kubernetes write them.

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// Lenient as Docker's own readers: padding may be missing.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a registry is told about who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password.
    Basic {
        /// Name.
        user: String,
        /// Password.
        password: String,
    },
    /// A token that is exchanged for one that registries take.
    IdentityToken(String),
    /// A token that the registry takes as it is.
    RegistryToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}

/// Credentials of several registries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keyring(BTreeMap<Pattern, Vec<Credential>>);

/// What a credential is for: a host, whose parts may hold `*`, perhaps with a port and the beginning of a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pattern {
    host: String,
    path: String,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: Option<BTreeMap<String, Entry>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl Keyring {
    /// Reads Docker's `config.json` (a Secret's `.dockerconfigjson`).
    pub fn from_docker_config(bytes: &[u8]) -> Result<Self, String> {
        let config: DockerConfig = serde_json::from_slice(bytes).map_err(|error| words(&error))?;
        Keyring::from_entries(config.auths.unwrap_or_default())
    }

    /// Reads Docker's old `.dockercfg`.
    pub fn from_dockercfg(bytes: &[u8]) -> Result<Self, String> {
        let entries = serde_json::from_slice(bytes).map_err(|error| words(&error))?;
        Keyring::from_entries(entries)
    }

    /// One credential for one registry (`docker.io`, `localhost:5000`).
    pub fn for_registry(registry: &str, credential: Credential) -> Self {
        Keyring(BTreeMap::from([(pattern(registry), vec![credential])]))
    }

    fn from_entries(entries: BTreeMap<String, Entry>) -> Result<Self, String> {
        let mut keyring = Keyring::default();
        for (place, entry) in entries {
            if let Some(credential) = entry.credential().map_err(|why| format!("{place}: {why}"))? {
                keyring.0.entry(pattern(&place)).or_default().push(credential);
            }
        }
        Ok(keyring)
    }

    /// Adds the credentials of another; those that are here already are tried first.
    pub fn extend(&mut self, other: Keyring) {
        for (pattern, credentials) in other.0 {
            self.0.entry(pattern).or_default().extend(credentials);
        }
    }

    /// The credentials for a repository (`library/nginx`) at a host (`docker.io`, `localhost:5000`), the most specific first.
    pub(in crate::images) fn lookup(&self, host: &str, path: &str) -> Vec<&Credential> {
        let mut found: Vec<_> =
            self.0.iter().filter(|(pattern, _)| pattern.matches(host, path)).collect();
        found.sort_by_key(|(pattern, _)| {
            let exact = !pattern.host.contains(['*', '?']);
            std::cmp::Reverse((exact, pattern.path.len(), pattern.host.len()))
        });
        found.into_iter().flat_map(|(_, credentials)| credentials).collect()
    }
}

/// Where the error is; never what stands there.
fn words(error: &serde_json::Error) -> String {
    format!("malformed at line {} column {}", error.line(), error.column())
}

impl Entry {
    fn credential(self) -> Result<Option<Credential>, String> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = given(self.registrytoken) {
            return Ok(Some(Credential::RegistryToken(token)));
        }
        if let Some(token) = given(self.identitytoken) {
            return Ok(Some(Credential::IdentityToken(token)));
        }
        if let Some(auth) = given(self.auth) {
            let bytes = BASE64.decode(auth.trim()).map_err(|_| "auth is not base64".to_owned())?;
            let text = String::from_utf8(bytes).map_err(|_| "auth is not text".to_owned())?;
            let (user, password) = text.split_once(':').ok_or("auth is not USER:PASSWORD")?;
            // Docker on Windows ends it with zero bytes.
            let password = password.trim_end_matches('\0').to_owned();
            return Ok(Some(Credential::Basic { user: user.to_owned(), password }));
        }
        let user = given(self.username);
        Ok(user.map(|user| Credential::Basic { user, password: self.password.unwrap_or_default() }))
    }
}

/// Reads `https://index.docker.io/v1/`, `registry.example:5000/team`, `*.example.com`.
fn pattern(place: &str) -> Pattern {
    let place = place.split_once("://").map_or(place, |(_, rest)| rest);
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let host = host.to_ascii_lowercase();
    let host = match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        _ => host,
    };
    let path = path.trim_matches('/');
    let path = ["v1", "v2"]
        .iter()
        .find_map(|version| match path.strip_prefix(version)? {
            "" => Some(""),
            rest => rest.strip_prefix('/'),
        })
        .unwrap_or(path);
    Pattern { host, path: path.to_owned() }
}

impl Pattern {
    /// Each part of the host by itself, so that `*` never spans a dot. As upstream: `pkg/credentialprovider/keyring.go`.
    fn matches(&self, host: &str, path: &str) -> bool {
        let (own, asked) = (split(&self.host), split(host));
        let same_path = path
            .strip_prefix(self.path.as_str())
            .is_some_and(|rest| self.path.is_empty() || rest.is_empty() || rest.starts_with('/'));
        same_path
            && own.1 == asked.1
            && own.0.len() == asked.0.len()
            && own
                .0
                .iter()
                .zip(&asked.0)
                .all(|(own, asked)| globs(own.as_bytes(), asked.as_bytes()))
    }
}

/// The parts of a host's name, and its port.
fn split(host: &str) -> (Vec<&str>, &str) {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    };
    (name.split('.').collect(), port)
}

/// Whether `*` (anything) and `?` (one byte) can be filled in so that they are the same.
fn globs(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == b'?' || byte.eq_ignore_ascii_case(&text[from]) => {
                at += 1;
                from += 1;
            }
            _ => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    at = star_at + 1;
                    from = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str, password: &str) -> Credential {
        Credential::Basic { user: user.into(), password: password.into() }
    }

    #[test]
    fn credentials_are_read_in_all_their_spellings() {
        // "dXNlcjpwYXNzOndvcmQ=" is user:pass:word.
        let text = br#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "dXNlcjpwYXNzOndvcmQ="},
            "registry.example:5000": {"username": "a", "password": "b", "email": "c"},
            "token.example": {"identitytoken": "t", "auth": "eDo"},
            "raw.example/team": {"registrytoken": "r"},
            "empty.example": {}
        }, "credsStore": "desktop"}"#;
        let keyring = Keyring::from_docker_config(text).unwrap();
        let cases = [
            ("docker.io", "library/nginx", vec![basic("user", "pass:word")]),
            ("registry.example:5000", "x", vec![basic("a", "b")]),
            ("registry.example", "x", vec![]),
            ("token.example", "x", vec![Credential::IdentityToken("t".into())]),
            ("raw.example", "team/x", vec![Credential::RegistryToken("r".into())]),
            ("raw.example", "teammate/x", vec![]),
            ("empty.example", "x", vec![]),
        ];
        for (host, path, expected) in cases {
            let found: Vec<Credential> = keyring.lookup(host, path).into_iter().cloned().collect();
            assert!(found == expected, "{host}/{path}: {} found", found.len());
        }
        let old = Keyring::from_dockercfg(br#"{"r.example": {"auth": "dXNlcjpwYXNzOndvcmQ"}}"#);
        assert_eq!(old.unwrap().lookup("r.example", "x").len(), 1);
    }

    #[test]
    fn the_most_specific_credential_is_tried_first() {
        let entry = |user: &str| format!(r#"{{"username": "{user}", "password": "p"}}"#);
        let text = format!(
            r#"{{"*.example.com": {}, "a.example.com": {}, "a.example.com/team": {}, "*.com": {}}}"#,
            entry("star"),
            entry("host"),
            entry("team"),
            entry("short")
        );
        let mut keyring = Keyring::from_dockercfg(text.as_bytes()).unwrap();
        let users = |keyring: &Keyring, host: &str, path: &str| -> Vec<String> {
            let user = |credential: &&Credential| match credential {
                Credential::Basic { user, .. } => user.clone(),
                _ => String::new(),
            };
            keyring.lookup(host, path).iter().map(user).collect()
        };
        assert_eq!(users(&keyring, "a.example.com", "team/x"), ["team", "host", "star"]);
        assert_eq!(users(&keyring, "b.example.com", "team/x"), ["star"]);
        assert_eq!(users(&keyring, "a.example.com:5000", "x"), Vec::<String>::new());
        keyring.extend(Keyring::for_registry("other", basic("own", "p")));
        assert_eq!(users(&keyring, "other", "x"), ["own"]);
    }

    #[test]
    fn errors_do_not_tell_secrets() {
        for text in [
            r#"{"auths": {"a": {"auth": "geheim!"}}}"#,
            r#"{"auths": {"a": {"password": ["geheim"]}}}"#,
            r#"{"auths": "geheim"}"#,
        ] {
            let error = Keyring::from_docker_config(text.as_bytes()).unwrap_err();
            assert!(!error.contains("geheim") && !error.is_empty(), "{error}");
        }
        assert_eq!(format!("{:?}", basic("geheim", "geheim")), "Credential");
    }

    #[test]
    fn stars_stand_for_anything_within_a_part() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c*", "acb", true),
            ("a?c", "abc", true),
            ("a*b", "ac", false),
            ("", "a", false),
            ("*a*a", "aaab", false),
        ] {
            assert_eq!(globs(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
