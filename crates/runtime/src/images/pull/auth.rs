//! Answers a registry's challenge. <https://distribution.github.io/distribution/spec/auth/token/>

use super::failure::{Failure, Kind, quoted};
use super::http::{Ask, Http, read, unexpected};
use crate::images::registries::Credential;
use base64::Engine;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::Serializer;

/// Far more than a token with many claims needs.
const TOKEN_MAX: usize = 1 << 20;

/// How a registry wants to be told who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token that is fetched elsewhere.
    Bearer {
        /// Where.
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// What an answer challenges to; a token is preferred to a password.
pub(super) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut basic = false;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let challenges =
            value.to_str().ok().and_then(|text| http_auth::parse_challenges(text).ok());
        for challenge in challenges.unwrap_or_default() {
            let parameter = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = true;
            } else if challenge.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter("realm")
            {
                let (service, scope) = (parameter("service"), parameter("scope"));
                return Some(Challenge::Bearer { realm, service, scope });
            }
        }
    }
    basic.then_some(Challenge::Basic)
}

/// Who is asked, and for what.
pub(super) struct Asking<'a> {
    pub(super) http: &'a Http,
    /// The registry's URL.
    pub(super) registry: &'a Url,
    /// The repository.
    pub(super) path: &'a str,
    pub(super) credential: Option<&'a Credential>,
}

impl Asking<'_> {
    /// The `Authorization` that answers a challenge.
    pub(super) async fn answer(&self, challenge: Challenge) -> Result<HeaderValue, Failure> {
        match (challenge, self.credential) {
            (_, Some(Credential::RegistryToken(token))) => header("Bearer", token),
            (Challenge::Basic, Some(Credential::Basic { user, password })) => basic(user, password),
            (Challenge::Basic, _) => Err(Failure::new(Kind::Denied, "no basic auth credentials")),
            (Challenge::Bearer { realm, service, scope }, credential) => {
                let realm = self.realm(&realm)?;
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.path));
                let mut form: Vec<(&str, &str)> = vec![("scope", &scope)];
                form.extend(service.as_deref().map(|service| ("service", service)));
                let ask = token_request(realm, form, credential)?;
                self.token(ask).await
            }
        }
    }

    /// Who asks without TLS has nothing to hide; who asks with TLS must not be led out of it.
    fn realm(&self, realm: &str) -> Result<Url, Failure> {
        let bad =
            || Failure::refused(format!("the registry sends for a token to {:?}", quoted(realm)));
        let url = Url::parse(realm).map_err(|_| bad())?;
        match (url.scheme(), self.registry.scheme()) {
            ("https", _) | ("http", "http") => Ok(url),
            _ => Err(bad()),
        }
    }

    async fn token(&self, ask: Ask) -> Result<HeaderValue, Failure> {
        let what = if self.credential.is_some() {
            "failed to fetch oauth token"
        } else {
            "failed to fetch anonymous token"
        };
        let method = ask.method.clone();
        let (response, url) = self.http.follow(ask).await.map_err(|f| f.while_doing(what))?;
        if response.status() != StatusCode::OK {
            return Err(unexpected(&method, &url, response).await.while_doing(what));
        }
        let body = read(response, TOKEN_MAX).await.map_err(|failure| failure.while_doing(what))?;
        let none =
            || Failure::refused("authorization server did not include a token in the response");
        let answer: Token = serde_json::from_slice(&body).map_err(|_| none())?;
        let token =
            [answer.token, answer.access_token].into_iter().flatten().find(|t| !t.is_empty());
        header("Bearer", &token.ok_or_else(none)?)
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// An identity token is exchanged by POST (OAuth 2), everything else is asked for by GET.
fn token_request(
    mut realm: Url,
    form: Vec<(&str, &str)>,
    credential: Option<&Credential>,
) -> Result<Ask, Failure> {
    if let Some(Credential::IdentityToken(token)) = credential {
        let more =
            [("grant_type", "refresh_token"), ("client_id", "abide"), ("refresh_token", token)];
        let body = Serializer::new(String::new()).extend_pairs(form).extend_pairs(more).finish();
        let mut ask = Ask { body: Bytes::from(body), ..Ask::new(Method::POST, realm) };
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        ask.headers.insert(CONTENT_TYPE, kind);
        return Ok(ask);
    }
    realm.query_pairs_mut().extend_pairs(form);
    let mut ask = Ask::new(Method::GET, realm);
    if let Some(Credential::Basic { user, password }) = credential {
        ask.headers.insert(AUTHORIZATION, basic(user, password)?);
    }
    Ok(ask)
}

fn basic(user: &str, password: &str) -> Result<HeaderValue, Failure> {
    let engine = base64::engine::general_purpose::STANDARD;
    header("Basic", &engine.encode(format!("{user}:{password}")))
}

fn header(scheme: &str, token: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::try_from(format!("{scheme} {token}"))
        .map_err(|_| Failure::refused("the token is none"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
        }
        challenge(&headers)
    }

    #[test]
    fn challenges_are_read_and_tokens_preferred() {
        let bearer = r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.example/token".into(),
            service: Some("registry.example".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        assert_eq!(of(&[bearer]), Some(expected.clone()));
        assert_eq!(of(&[r#"Basic realm="x""#, bearer]), Some(expected.clone()));
        assert_eq!(of(&[&format!(r#"basic realm="x", {bearer}"#)]), Some(expected));
        assert_eq!(of(&["basic"]), Some(Challenge::Basic));
        for none in [&[][..], &["Negotiate"], &["Bearer"], &["=,\"", "Bearer scope=\"x"]] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }

    #[test]
    fn credentials_do_not_leave_tls() {
        let http = Http::new();
        let registry = Url::parse("https://registry.example/").unwrap();
        let asking = Asking { http: &http, registry: &registry, path: "a", credential: None };
        for realm in ["http://auth.example/", "file:///etc/passwd", "", "token"] {
            assert!(asking.realm(realm).is_err(), "{realm}");
        }
        assert!(asking.realm("https://auth.example/").is_ok());
    }
}
