//! Who asks: passwords, tokens, and where neither goes.

use super::*;
use crate::images::registries::Credential;

fn basic(registry: &str) -> Keyring {
    let credential = Credential::Basic { user: "alice".into(), password: "secret".into() };
    Keyring::for_registry(registry, credential)
}

#[tokio::test]
async fn a_name_and_a_password_are_sent_when_they_are_asked_for() {
    let mut content = Content::default();
    content.simple("1", "x");
    // alice:secret
    let server = Server::new(move |asked| match asked.header("authorization") {
        "Basic YWxpY2U6c2VjcmV0" => content.answer(asked),
        _ => with(answer(401, ""), "www-authenticate", "Basic realm=\"here\""),
    })
    .await;
    let (store, name) = (Store::new(), server.name("app:1"));
    let error = store.pull(&name).await.unwrap_err();
    assert!(error.contains("pull access denied, repository does not exist or may require authorization: no basic auth credentials"), "{error}");
    assert!(error.ends_with("401 Unauthorized"), "{error}");
    let wrong = Credential::Basic { user: "alice".into(), password: "wrong".into() };
    let mut keyring = Keyring::for_registry(&server.address.to_string(), wrong);
    let error = store.pull_with(&name, &keyring).await.unwrap_err();
    assert!(error.ends_with("401 Unauthorized"), "{error}");
    // Each is tried.
    keyring.extend(basic(&server.address.to_string()));
    store.pull_with(&name, &keyring).await.unwrap();
}

#[tokio::test]
async fn credentials_are_read_from_the_file_at_each_pull() {
    let mut content = Content::default();
    content.simple("1", "x");
    let server = Server::new(move |asked| match asked.header("authorization") {
        "Basic YWxpY2U6c2VjcmV0" => content.answer(asked),
        _ => with(answer(401, ""), "www-authenticate", "Basic realm=\"here\""),
    })
    .await;
    let Store { folder, images } = Store::new();
    let file = folder.path().join("config.json");
    let images = images.with_registries(Registries::new(Vec::new(), Some(file.clone())));
    let store = Store { folder, images };
    store.pull(&server.name("app:1")).await.unwrap_err();
    std::fs::write(
        &file,
        format!(r#"{{"auths": {{"{}": {{"auth": "YWxpY2U6c2VjcmV0"}}}}}}"#, server.address),
    )
    .unwrap();
    store.pull(&server.name("app:1")).await.unwrap();
    std::fs::write(&file, "{").unwrap();
    let error = store.pull(&server.name("app:1")).await.unwrap_err();
    assert!(error.contains("read credentials of "), "{error}");
}

/// A registry whose tokens come from `/token`, and end after two answers each.
async fn with_tokens(content: Content) -> Server {
    let uses = Arc::new(AtomicUsize::new(0));
    Server::new(move |asked| {
        if asked.path == "/token" {
            assert_eq!(asked.query, "scope=repository%3Aapp%3Apull&service=the+registry");
            return match asked.header("authorization") {
                "Basic YWxpY2U6c2VjcmV0" => {
                    uses.store(0, Ordering::SeqCst);
                    answer(200, r#"{"token": "t", "expires_in": 60}"#)
                }
                "" => answer(200, r#"{"access_token": "nobody"}"#),
                _ => answer(403, r#"{"details": "incorrect username or password"}"#),
            };
        }
        let good = asked.header("authorization") == "Bearer t";
        if good && uses.fetch_add(1, Ordering::SeqCst) < 2 {
            return content.answer(asked);
        }
        let realm = format!(
            r#"Bearer realm="http://{}/token",service="the registry",scope="repository:app:pull""#,
            asked.header("host")
        );
        let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        with(answer(401, body), "www-authenticate", &realm)
    })
    .await
}

#[tokio::test]
async fn a_token_is_fetched_and_fetched_again_when_it_has_ended() {
    let mut content = Content::default();
    content.simple("1", "x");
    let (server, store) = (with_tokens(content).await, Store::new());
    let (name, registry) = (server.name("app:1"), server.address.to_string());
    let error = store.pull(&name).await.unwrap_err();
    assert!(error.contains("pull access denied") && error.ends_with("401 Unauthorized"), "{error}");
    let wrong = Credential::Basic { user: "alice".into(), password: "wrong".into() };
    let error = store.pull_with(&name, &Keyring::for_registry(&registry, wrong)).await.unwrap_err();
    assert!(
        error
            .contains("failed to fetch oauth token: unexpected status from GET request to http://"),
        "{error}"
    );
    assert!(error.contains("403 Forbidden: incorrect username or password"), "{error}");
    server.seen();
    store.pull_with(&name, &basic(&registry)).await.unwrap();
    assert_eq!(server.seen().iter().filter(|line| line.contains("/token")).count(), 2);
}

#[tokio::test]
async fn an_identity_token_is_exchanged_and_a_registry_token_is_sent_as_it_is() {
    let mut content = Content::default();
    content.simple("1", "x");
    let server =
        Server::new(move |asked| match (asked.path.as_str(), asked.header("authorization")) {
            ("/token", "") if asked.method == ::http::Method::POST => {
                answer(200, r#"{"access_token": "t"}"#)
            }
            (_, "Bearer t") => content.answer(asked),
            _ => {
                let realm = format!("Bearer realm=\"http://{}/token\"", asked.header("host"));
                with(answer(401, ""), "www-authenticate", &realm)
            }
        })
        .await;
    for credential in [Credential::IdentityToken("i".into()), Credential::RegistryToken("t".into())]
    {
        let keyring = Keyring::for_registry(&server.address.to_string(), credential);
        Store::new().pull_with(&server.name("app:1"), &keyring).await.unwrap();
    }
}

#[tokio::test]
async fn a_redirect_is_followed_but_credentials_stay_with_the_registry() {
    let mut content = Content::default();
    content.simple("1", "x");
    let elsewhere = content.clone().serve().await;
    let storage = elsewhere.address;
    let server = Server::new(move |asked| {
        let Some(rest) = asked.path.strip_prefix("/moved") else {
            if asked.header("authorization").is_empty() {
                return with(answer(401, ""), "www-authenticate", "Basic");
            }
            return with(answer(307, ""), "location", &format!("/moved{}", asked.path));
        };
        assert!(!asked.header("authorization").is_empty(), "the same host still knows who asks");
        match rest.contains("/blobs/") {
            true => with(answer(302, ""), "location", &format!("//{storage}{rest}?signature=s")),
            false => content.answer(asked),
        }
    })
    .await;
    let store = Store::new();
    store.pull_with(&server.name("app:1"), &basic(&server.address.to_string())).await.unwrap();
    let seen = elsewhere.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|line| !line.contains("Basic")), "{seen:?}");
}
