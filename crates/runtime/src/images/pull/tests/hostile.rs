//! What a registry may do to harm: each is refused in words, and leaves nothing.

use super::*;
use serde_json::json;

/// Pulls from a server, which must fail with these words and leave nothing.
async fn refused(server: &Server, name: &str, words: &str) {
    let store = Store::new();
    let error = store.pull(&server.name(name)).await.unwrap_err();
    assert!(error.contains(words), "{words:?} is not in: {error}");
    for part in ["images", "layers"] {
        assert_eq!(store.files(part), Vec::<String>::new(), "{words}");
    }
    assert_eq!(store.images.list().await.unwrap(), [], "{words}");
}

/// A registry that has one simple image, and gives something else for its layer.
async fn with_layer(other: impl Fn(&Asked, Bytes) -> Answer + Send + Sync + 'static) -> Server {
    let mut content = Content::default();
    content.simple("1", "x");
    let layer = digest(&gzip(&tar("file", "x")));
    Server::new(move |asked| match asked.path.ends_with(&layer) {
        true => other(asked, content.blobs[&layer].clone()),
        false => content.answer(asked),
    })
    .await
}

#[tokio::test]
async fn a_layer_must_be_what_was_announced() {
    let other = with_layer(|_, blob| answer(200, blob.iter().rev().copied().collect::<Bytes>()));
    refused(&other.await, "app:1", "unexpected digest sha256:").await;
    let longer = with_layer(|_, blob| answer(200, [&blob[..], b"more"].concat()));
    refused(&longer.await, "app:1", "bytes that were announced").await;
    let shorter = with_layer(|_, blob| answer(200, blob.slice(1..)));
    refused(&shorter.await, "app:1", "unexpected size of sha256:").await;
    refused(&with_layer(|_, _| endless()).await, "app:1", "bytes that were announced").await;
    refused(&with_layer(|_, _| answer(404, "")).await, "app:1", "404 Not Found").await;
    let never = with_layer(|_, blob| broken(Bytes::new(), blob.len()));
    refused(&never.await, "app:1", "failed to copy sha256:").await;
}

#[tokio::test]
async fn a_layer_must_unpack_to_what_the_configuration_says() {
    let mut content = Content::default();
    content.image("1", &[(LAYER, tar("file", "one"), gzip(&tar("file", "other")))]);
    content.image("2", &[(LAYER, tar("file", "one"), Bytes::from_static(b"\x1f\x8bno gzip"))]);
    let server = content.serve().await;
    refused(&server, "app:1", "has the digest sha256:").await;
    refused(&server, "app:2", "failed to extract layer").await;
}

#[tokio::test]
async fn a_manifest_must_have_the_digest_that_was_asked_for() {
    let mut content = Content::default();
    let digest = content.simple("1", "x");
    content.simple("2", "y");
    let other = content.manifests["2"].clone();
    content.manifests.insert(digest.clone(), other);
    let server = content.serve().await;
    refused(&server, &format!("app@{digest}"), "unexpected digest sha256:").await;
}

#[tokio::test]
async fn documents_are_bounded() {
    let announced = Server::new(|_| answer(200, vec![b' '; (4 << 20) + 1])).await;
    refused(&announced, "app:1", "larger than 4194304 bytes").await;
    let server = Server::new(|asked| match asked.method {
        ::http::Method::HEAD => answer(200, ""),
        _ => endless(),
    });
    refused(&server.await, "app:1", "larger than 4194304 bytes").await;
    let errors = Server::new(|_| {
        let mut endless = endless();
        *endless.status_mut() = ::http::StatusCode::NOT_FOUND;
        endless
    });
    refused(&errors.await, "app:1", "not found").await;
}

#[tokio::test]
async fn documents_that_are_no_images_are_refused_in_words() {
    let mut content = Content::default();
    let config = |content: &mut Content, kind: &str, document: serde_json::Value| {
        content.blob(kind, serde_json::to_vec(&document).unwrap().into())
    };
    let good = config(&mut content, CONFIG, json!({"rootfs": {"diff_ids": [digest(b"")]}}));
    let empty = config(&mut content, CONFIG, json!({"rootfs": {"diff_ids": null}}));
    let chart = config(&mut content, "application/vnd.cncf.helm.config.v1+json", json!({}));
    let foreign =
        config(&mut content, CONFIG, json!({"os": "windows", "architecture": "x", "rootfs": {}}));
    let odd = config(&mut content, CONFIG, json!({"rootfs": {"diff_ids": ["../../etc"]}}));
    let layer = |kind: &str, digest: &str, size: serde_json::Value| json!({"mediaType": kind, "digest": digest, "size": size});
    let nothing = digest(b"");
    let huge = json!({"mediaType": CONFIG, "digest": nothing, "size": 5 << 20});
    let cases = [
        ("not-json", json!("text"), "malformed manifest"),
        ("nothing", json!({}), "neither an index nor a manifest"),
        ("both", json!({"config": good, "manifests": [good]}), "neither an index nor a manifest"),
        (
            "schema-1",
            json!({"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"}),
            "schema 1",
        ),
        (
            "chart",
            json!({"config": chart}),
            "this is no container image: its configuration is of type \"application/vnd.cncf.helm",
        ),
        ("foreign", json!({"config": foreign}), "the image is for windows/x"),
        ("odd", json!({"config": odd, "layers": [good]}), "\"../../etc\" is no digest"),
        ("huge", json!({"config": huge}), "larger than"),
        ("counts", json!({"config": good, "layers": []}), "0 layers but 1 diff_ids"),
        ("many", json!({"config": empty, "layers": [good]}), "1 layers but 0 diff_ids"),
        (
            "sha512",
            json!({"config": good, "layers": [layer(LAYER, "sha512:ab", json!(1))]}),
            "unsupported digest \"sha512:ab\"",
        ),
        (
            "path",
            json!({"config": good, "layers": [layer(LAYER, "sha256:../../x", json!(1))]}),
            "unsupported digest",
        ),
        (
            "distributed-elsewhere",
            json!({"config": good, "layers": [layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", &nothing, json!(1))]}),
            "of the unsupported type",
        ),
        (
            "no-size",
            json!({"config": good, "layers": [layer(LAYER, &nothing, json!(null))]}),
            "does not say its size",
        ),
        (
            "vast",
            json!({"config": good, "layers": [layer(LAYER, &nothing, json!(u64::MAX))]}),
            "or one beyond",
        ),
        (
            "negative",
            json!({"config": good, "layers": [layer(LAYER, &nothing, json!(-1))]}),
            "malformed manifest",
        ),
    ];
    for (tag, document, _) in &cases {
        content.manifest(tag, MANIFEST, document);
    }
    let mut index = content.manifest("inner", INDEX, &json!({"manifests": []}));
    for depth in 0..5 {
        let size = content.manifests[&index].1.len();
        index = content.manifest(
            &format!("deep-{depth}"),
            INDEX,
            &json!({"manifests": [{"digest": index, "size": size}]}),
        );
    }
    let server = content.serve().await;
    for (tag, _, words) in &cases {
        refused(&server, &format!("app:{tag}"), words).await;
    }
    refused(&server, "app:deep-4", "indexes within indexes").await;
}

#[tokio::test]
async fn redirects_and_challenges_lead_nowhere_bad() {
    let circle = Server::new(|asked| with(answer(302, ""), "location", &asked.path));
    refused(&circle.await, "app:1", "stopped after 10 redirects").await;
    let files = Server::new(|_| with(answer(302, ""), "location", "file:///etc/passwd"));
    refused(&files.await, "app:1", "leads out of TLS").await;
    refused(&Server::new(|_| answer(302, "")).await, "app:1", "leads nowhere").await;
    let realm = Server::new(|_| {
        with(answer(401, ""), "www-authenticate", "Bearer realm=\"file:///etc/passwd\"")
    });
    refused(&realm.await, "app:1", "sends for a token to \"file:///etc/passwd\"").await;
    let silent = Server::new(|_| answer(401, ""));
    refused(&silent.await, "app:1", "401 Unauthorized").await;
    let long = format!(
        r#"{{"errors":[{{"code":"{}\u0007","message":"{}"}}]}}"#,
        "C".repeat(5),
        "m".repeat(5000)
    );
    let wordy = Server::new(move |_| answer(418, long.clone()));
    let error = Store::new().pull(&wordy.await.name("app:1")).await.unwrap_err();
    assert!(error.len() < 1000 && !error.contains('\u{7}'), "{error}");
}

#[tokio::test]
async fn a_token_must_be_one() {
    for (body, words) in [
        ("{}", "did not include a token"),
        ("no json", "did not include a token"),
        (r#"{"token": "a\nb"}"#, "the token is none"),
    ] {
        let server = Server::new(move |asked| match asked.path.as_str() {
            "/token" => answer(200, body),
            _ => with(
                answer(401, ""),
                "www-authenticate",
                &format!("Bearer realm=\"http://{}/token\"", asked.header("host")),
            ),
        });
        refused(&server.await, "app:1", words).await;
    }
}

#[tokio::test]
async fn who_cannot_prove_who_he_is_is_not_believed() {
    let mut content = Content::default();
    content.simple("1", "x");
    let mirror = Server::with_tls(content).await;
    let empty = Content::default().serve().await;
    let store = Store::with_mirror(&format!("{}=https://{}", empty.address, mirror.address));
    let error = store.pull(&empty.name("app:1")).await.unwrap_err();
    assert!(error.contains("invalid peer certificate: UnknownIssuer"), "{error}");
    assert_eq!(mirror.seen(), Vec::<String>::new());
}
