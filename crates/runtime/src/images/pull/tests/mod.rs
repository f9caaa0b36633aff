//! Pulling from a registry that the test plays.

mod credentials;
mod hostile;
mod server;

use super::*;
use crate::ImageStore;
use crate::images::registries::{Keyring, Registries};
use server::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Store {
    folder: tempfile::TempDir,
    images: Images,
}

impl Store {
    fn new() -> Store {
        let folder = tempfile::tempdir().unwrap();
        let images = Images::open(folder.path()).unwrap();
        Store { folder, images }
    }

    fn with_mirror(mirror: &str) -> Store {
        let Store { folder, images } = Store::new();
        let registries = Registries::new(vec![mirror.parse().unwrap()], None);
        Store { folder, images: images.with_registries(registries) }
    }

    async fn pull(&self, name: &str) -> Result<Image, String> {
        self.pull_with(name, &Keyring::default()).await
    }

    async fn pull_with(&self, name: &str, keyring: &Keyring) -> Result<Image, String> {
        self.images.pull(name, keyring).await.map_err(|error| error.to_string())
    }

    /// The names of what lies in a folder of the store.
    fn files(&self, part: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join(part)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// The content of the one file of an image's topmost layer.
    fn content(&self, layer: &[u8]) -> String {
        let folder = self.folder.path().join("layers").join(&digest(layer)[7..]);
        std::fs::read_to_string(folder.join("file")).unwrap()
    }
}

#[tokio::test]
async fn an_image_is_fetched_once_and_asked_for_again() {
    let mut content = Content::default();
    let digest = content.simple("1", "x");
    let (server, store) = (content.serve().await, Store::new());
    let name = server.name("team/app:1");
    let image = store.pull(&name).await.unwrap();
    let exact = server.name(&format!("team/app@{digest}"));
    assert_eq!(image.names, [name.clone(), exact.clone()]);
    assert!(image.was_pulled_as(&name) && image.was_pulled_as(&exact));
    assert_eq!((image.exact_name(&name), image.user.as_str()), (exact.as_str(), "7"));
    assert_eq!(store.content(&tar("file", "x")), "x");
    assert_eq!(store.files("downloads"), Vec::<String>::new());
    let first = server.seen();
    assert_eq!(first.len(), 4, "the tag, the manifest, the configuration, a layer: {first:?}");
    assert_eq!(store.pull(&name).await.unwrap(), image);
    assert_eq!(server.seen(), ["HEAD /v2/team/app/manifests/1"]);
    assert_eq!(store.pull(&exact).await.unwrap(), image);
    assert_eq!(server.seen(), [format!("HEAD /v2/team/app/manifests/{digest}")]);
}

#[tokio::test]
async fn what_somebody_brings_is_what_a_name_means() {
    let mut content = Content::default();
    content.simple("1", "x");
    content.simple("2", "x");
    let (server, store) = (content.serve().await, Store::new());
    let [one, two] = ["app:1", "app:2"].map(|name| server.name(name));
    let nobody = Keyring::default();
    let bring = || store.images.bring(&one, &nobody, &());
    let brought = bring().await.unwrap();
    assert_eq!((brought.pulled.len(), brought.was_pulled_as(&one)), (0, false));
    assert!(brought.exact_name(&one).contains("app@sha256:"));
    let pulled = store.pull(&two).await.unwrap();
    assert_eq!(pulled.pulled, [two]);
    assert!(store.pull(&one).await.unwrap().was_pulled_as(&one));
    assert!(!bring().await.unwrap().was_pulled_as(&one));
}

#[tokio::test]
async fn a_tag_that_has_moved_brings_the_new_image_and_fetches_only_what_is_new() {
    let shared = tar("base", "shared");
    let image = |content: &mut Content, text: &str| {
        let own = tar("file", text);
        let blobs = [gzip(&shared), gzip(&own)];
        let [base, top] = blobs;
        content.image("latest", &[(LAYER, shared.clone(), base), (LAYER, own, top)])
    };
    let mut content = Content::default();
    image(&mut content, "old");
    let current = Arc::new(Mutex::new(content.clone()));
    let served = current.clone();
    let server = Server::new(move |asked| served.lock().unwrap().answer(asked)).await;
    let store = Store::new();
    let old = store.pull(&server.name("app")).await.unwrap();
    image(&mut content, "new");
    *current.lock().unwrap() = content;
    server.seen();
    let new = store.pull(&server.name("app")).await.unwrap();
    assert_ne!(new.id, old.id);
    assert_eq!(
        server.seen().iter().filter(|line| line.contains("/blobs/")).count(),
        2,
        "its configuration and one layer"
    );
    let old = store.images.resolve(&old.id).await.unwrap().unwrap();
    assert_eq!(old.names.len(), 1, "the former one is still known by its digest: {:?}", old.names);
    let resolved = store.images.resolve(&server.name("app:latest")).await.unwrap().unwrap();
    assert_eq!(resolved.id, new.id);
}

#[tokio::test]
async fn layers_of_every_compression_and_of_docker_are_unpacked() {
    let [plain, zstd, docker] = ["a", "b", "c"].map(|name| tar(name, name));
    let compressed =
        ruzstd::encoding::compress_to_vec(&zstd[..], ruzstd::encoding::CompressionLevel::Fastest);
    let mut content = Content::default();
    content.image(
        "1",
        &[
            ("application/vnd.oci.image.layer.v1.tar", plain.clone(), plain.into()),
            ("application/vnd.oci.image.layer.v1.tar+zstd", zstd, compressed.into()),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", docker.clone(), gzip(&docker)),
            // Twice the same, as many images have empty ones.
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", docker.clone(), gzip(&docker)),
        ],
    );
    let (server, store) = (content.serve().await, Store::new());
    store.pull(&server.name("app:1")).await.unwrap();
    assert_eq!(store.files("layers").len(), 3);
    assert_eq!(
        server.seen().iter().filter(|line| line.contains("/blobs/")).count(),
        4,
        "one configuration, three layers"
    );
}

#[tokio::test]
async fn of_an_index_the_manifest_for_this_machine_is_taken() {
    let mut content = Content::default();
    let ours = content.simple("ours", "ours");
    let entry = |digest: &str, architecture: &str| {
        json(digest, architecture, content.manifests[&ours].1.len())
    };
    let foreign = entry(&digest(b"never fetched"), "z80");
    let both = serde_json::json!({"manifests": [foreign, entry(&ours, architecture())]});
    let none = serde_json::json!({"manifests": [foreign]});
    let root = content.manifest("both", INDEX, &both);
    content.manifest("none", INDEX, &none);
    let (server, store) = (content.serve().await, Store::new());
    let image = store.pull(&server.name("app:both")).await.unwrap();
    assert_eq!(
        image.exact_name("x"),
        server.name(&format!("app@{root}")),
        "the index's digest names it"
    );
    let error = store.pull(&server.name("app:none")).await.unwrap_err();
    let words = format!("no match for platform linux/{} in manifest sha256:", architecture());
    assert!(error.contains(&words) && error.ends_with(": not found"), "{error}");
}

fn json(digest: &str, architecture: &str, size: usize) -> serde_json::Value {
    serde_json::json!({"mediaType": MANIFEST, "digest": digest, "size": size, "platform": {"os": "linux", "architecture": architecture}})
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let (server, store) = (Content::default().serve().await, Store::new());
    let name = server.name("app:2");
    let error = store.pull(&name).await.unwrap_err();
    assert_eq!(
        error,
        format!(
            "failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": {name}: not found"
        )
    );
    assert!(matches!(
        store.images.pull("Not A Name", &Keyring::default()).await,
        Err(PullError::InvalidName(_))
    ));
}

#[tokio::test]
async fn where_nobody_answers_importing_is_the_way_out() {
    let server = Content::default().serve().await;
    let name = server.name("app:1");
    server.close().await;
    let error = Store::new().pull(&name).await.unwrap_err();
    let url = name.replace("/app:1", "/v2/app/manifests/1");
    assert!(error.contains(&format!("failed to do request: Head \"http://{url}\": ")), "{error}");
    assert!(
        error.contains("onnection refused") && error.contains("`abide image import`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke() {
    let mut content = Content::default();
    let noise: String = (0..200_000u32)
        .map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 28) as u8))
        .collect();
    content.simple("1", &noise);
    let breaks = AtomicUsize::new(0);
    let server = Server::new(move |asked| {
        let blob = asked.path.rsplit('/').next().and_then(|digest| content.blobs.get(digest));
        match blob.filter(|blob| blob.len() > 10_000) {
            Some(blob) if breaks.fetch_add(1, Ordering::SeqCst) == 0 => {
                broken(blob.slice(..blob.len() / 2), blob.len())
            }
            _ => content.answer(asked),
        }
    })
    .await;
    let store = Store::new();
    store.pull(&server.name("app:1")).await.unwrap();
    assert_eq!(store.content(&tar("file", &noise)), noise);
}

#[tokio::test]
async fn the_next_pull_goes_on_where_the_last_one_was_cut() {
    let mut content = Content::default();
    content.simple("1", "x");
    let layer = gzip(&tar("file", "x"));
    let (half, length, name) = (layer.slice(..layer.len() / 2), layer.len(), digest(&layer));
    let ranges = Arc::<Mutex<Vec<String>>>::default();
    let heard = ranges.clone();
    let server = Server::new(move |asked| {
        if !asked.path.ends_with(&name) {
            return content.answer(asked);
        }
        let mut heard = heard.lock().unwrap();
        heard.push(asked.header("range").to_owned());
        match heard.len() {
            1 => broken(half.clone(), length),
            2..=4 => answer(502, ""),
            _ => content.answer(asked),
        }
    })
    .await;
    let store = Store::new();
    let error = store.pull(&server.name("app:1")).await.unwrap_err();
    assert!(error.contains("failed to copy sha256:"), "{error}");
    assert_eq!(store.files("images"), Vec::<String>::new());
    store.pull(&server.name("app:1")).await.unwrap();
    let rest = format!("bytes={}-", length / 2);
    assert_eq!(*ranges.lock().unwrap(), ["", &rest, &rest, &rest, &rest]);
}

#[tokio::test]
async fn a_server_that_is_not_itself_for_a_moment_is_asked_again() {
    let mut content = Content::default();
    content.simple("1", "x");
    let asked_before = AtomicUsize::new(0);
    let server = Server::new(move |asked| match asked_before.fetch_add(1, Ordering::SeqCst) % 2 {
        0 => answer(503, ""),
        _ => content.answer(asked),
    })
    .await;
    Store::new().pull(&server.name("app:1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_of_one_image_at_the_same_time_share_its_download() {
    let mut content = Content::default();
    content.simple("1", "x");
    let (server, store) = (content.serve().await, Store::new());
    let name = server.name("app:1");
    let pulls = (0..4).map(|_| {
        // A store opened anew locks like another process.
        let images = Images::open(store.folder.path()).unwrap();
        let name = name.clone();
        tokio::spawn(async move { images.pull(&name, &Keyring::default()).await.unwrap() })
    });
    let pulled = futures::future::join_all(pulls).await;
    assert!(
        pulled.iter().all(|image| image.as_ref().unwrap().id == pulled[0].as_ref().unwrap().id)
    );
    let layer = digest(&gzip(&tar("file", "x")));
    let fetched = server.seen().iter().filter(|line| line.contains(&layer)).count();
    assert_eq!(fetched, 1);
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_the_registry_where_it_does_not_help() {
    let mut content = Content::default();
    content.simple("1", "x");
    let mirror = content.clone().serve().await;
    let store = Store::with_mirror(&format!("registry.invalid=http://{}", mirror.address));
    let image = store.pull("registry.invalid/app:1").await.unwrap();
    assert!(image.names.contains(&"registry.invalid/app:1".to_owned()), "{:?}", image.names);

    let empty = Content::default().serve().await;
    let registry = content.serve().await;
    let store = Store::with_mirror(&format!("{}=http://{}/hub", registry.address, empty.address));
    store.pull(&registry.name("app:1")).await.unwrap();
    assert_eq!(empty.seen(), ["HEAD /hub/v2/app/manifests/1"]);
    let error = store.pull(&registry.name("app:2")).await.unwrap_err();
    let name = registry.name("app:2");
    assert!(
        error.contains(&format!("{name}: not found; mirror http://{}/hub/: ", empty.address)),
        "{error}"
    );
}
