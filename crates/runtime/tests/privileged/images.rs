//! Imports of all kinds of archives, with what only root may unpack.

use super::world::{World, busybox_tar};
use runtime::ImageStore;
use runtime::images::Images;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::Path;

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1);
        header.set_uid(0);
        header.set_gid(0);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An OCI archive of two layers, the second of which hides a file and a directory's content.
fn oci_archive(tamper: bool) -> (Vec<u8>, Vec<String>) {
    let lower = tar(&[("etc/gone", b"1"), ("etc/kept", b"2"), ("opaque/a", b"3")]);
    let upper = tar(&[("etc/.wh.gone", b""), ("opaque/.wh..wh..opq", b""), ("opaque/b", b"4")]);
    let diff_ids = vec![digest(&lower), digest(&upper)];
    let blobs = [
        gzip(&lower),
        ruzstd::encoding::compress_to_vec(&upper[..], ruzstd::encoding::CompressionLevel::Fastest),
    ];
    let claimed =
        if tamper { vec![digest(b"else"), diff_ids[1].clone()] } else { diff_ids.clone() };
    let config = serde_json::json!({"config": {"Cmd": ["x"], "User": "7"}, "rootfs": {"type": "layers", "diff_ids": claimed}});
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = serde_json::json!({
        "config": {"digest": digest(&config)},
        "layers": blobs.iter().map(|blob| serde_json::json!({"digest": digest(blob)})).collect::<Vec<_>>(),
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let index = serde_json::json!({"manifests": [{
        "digest": digest(&manifest),
        "annotations": {"org.opencontainers.image.ref.name": "example.org/two:1"},
    }]});
    let index = serde_json::to_vec(&index).unwrap();
    let named: Vec<(String, &[u8])> = [&config, &manifest, &blobs[0], &blobs[1]]
        .iter()
        .map(|bytes| (format!("blobs/sha256/{}", &digest(bytes)[7..]), bytes.as_slice()))
        .collect();
    let mut files: Vec<(&str, &[u8])> = vec![("oci-layout", b"{}"), ("index.json", &index)];
    files.extend(named.iter().map(|(name, bytes)| (name.as_str(), *bytes)));
    (gzip(&tar(&files)), diff_ids)
}

#[tokio::test]
async fn an_oci_archive_is_unpacked_layer_by_layer_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(&dir.path().join("store")).unwrap();
    let archive = dir.path().join("two.tar.gz");
    let (bytes, diff_ids) = oci_archive(false);
    fs::write(&archive, bytes).unwrap();
    let imported = images.import(&archive, None).await.unwrap();
    assert_eq!(imported.len(), 1);
    assert_eq!((imported[0].names.len(), imported[0].user.as_str()), (2, "7"));
    assert!(imported[0].names.contains(&"example.org/two:1".to_owned()), "{imported:?}");
    let layer = |index: usize| dir.path().join("store/layers").join(&diff_ids[index][7..]);
    let gone = std::os::unix::fs::MetadataExt::rdev(
        &fs::symlink_metadata(layer(1).join("etc/gone")).unwrap(),
    );
    assert_eq!(gone, 0);
    assert_eq!(fs::read_to_string(layer(0).join("etc/kept")).unwrap(), "2");
    assert!(layer(1).join("opaque/b").exists());
    let again = images.import(&archive, Some("other")).await.unwrap();
    assert_eq!(again[0].id, imported[0].id, "the same image under another name");
    runtime::conformance::images(&images, "example.org/two:1").await;
    assert!(images.resolve("other").await.unwrap().is_some(), "another name keeps the image");
    images.remove("other").await.unwrap();
    assert_eq!(
        fs::read_dir(dir.path().join("store/layers")).unwrap().count(),
        0,
        "layers go with the last image"
    );
}

/// What overlayfs makes of white-outs, opaque directories and many layers.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_sees_its_layers_stacked() {
    let world = World::new().await;
    let rootfs = fs::read(world.dir.path().join("busybox.tar")).unwrap();
    let mut layers = vec![
        rootfs,
        tar(&[
            ("etc/gone", b"1"),
            ("etc/kept", b"1"),
            ("opaque/a", b"1"),
            ("again/old", b"1"),
            ("later/old", b"1"),
        ]),
        tar(&[
            ("etc/.wh.gone", b""),
            ("opaque/.wh..wh..opq", b""),
            ("opaque/b", b"2"),
            (".wh.again", b""),
            ("again/new", b"2"),
            ("later/new", b"2"),
            (".wh.later", b""),
        ]),
    ];
    layers.extend((3..100).map(|n| tar(&[("top", format!("layer {n}\n").as_bytes())])));
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}.tar")).collect();
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let config =
        serde_json::json!({"config": {"Cmd": ["/bin/sh"]}, "rootfs": {"diff_ids": diff_ids}});
    let config = serde_json::to_vec(&config).unwrap();
    let manifest =
        serde_json::json!([{"Config": "c.json", "RepoTags": ["stack"], "Layers": names}]);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut files: Vec<(&str, &[u8])> = vec![("manifest.json", &manifest), ("c.json", &config)];
    files.extend(names.iter().map(String::as_str).zip(layers.iter().map(Vec::as_slice)));
    let archive = world.dir.path().join("stack.tar");
    fs::write(&archive, tar(&files)).unwrap();
    let image = world.images.import(&archive, None).await.unwrap().remove(0);
    world.sandbox("pod").await;
    let mut container = world.config("main", "cat top; ls etc opaque again later");
    container.image_id = image.id;
    let (_, log) = world.run("pod", &container).await;
    let seen: Vec<_> = log.lines().map(|line| line.trim_start_matches("stdout F ")).collect();
    let expected = [
        "layer 99", "again:", "new", "", "etc:", "group", "hostname", "kept", "passwd", "",
        "later:", "new", "", "opaque:", "b",
    ];
    assert_eq!(seen, expected);
    // An image in use may be removed; its layers stay while the container needs them.
    let id = world.start("pod", &world.config("user", "sleep 1000")).await;
    world.images.remove("busybox").await.unwrap();
    assert_eq!(
        super::world::exec(&world.runtime, "pod", &id, "cat /etc/group | wc -l").await.1.trim(),
        "3"
    );
    world.finish().await;
}

#[tokio::test]
async fn an_archive_whose_layers_are_not_what_it_says_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(&dir.path().join("store")).unwrap();
    let archive = dir.path().join("bad.tar");
    fs::write(&archive, oci_archive(true).0).unwrap();
    let error = images.import(&archive, None).await.unwrap_err().to_string();
    assert!(error.contains("has the digest"), "{error}");
    for part in ["images", "layers"] {
        assert_eq!(fs::read_dir(dir.path().join("store").join(part)).unwrap().count(), 0, "{part}");
    }
    assert!(!dir.path().join("store/tmp").exists());
    assert!(images.import(Path::new("/no/such"), None).await.is_err());
}

#[tokio::test]
async fn a_docker_archive_and_a_root_file_system_are_imported() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(&dir.path().join("store")).unwrap();
    let layer = tar(&[("a", b"1")]);
    let config =
        serde_json::to_vec(&serde_json::json!({"rootfs": {"diff_ids": [digest(&layer)]}})).unwrap();
    let manifest = br#"[{"Config":"c.json","RepoTags":["one:2","registry.example/one"],"Layers":["l/layer.tar"]}]"#;
    let archive = dir.path().join("docker.tar");
    fs::write(
        &archive,
        tar(&[("c.json", &config), ("l/layer.tar", &layer), ("manifest.json", manifest)]),
    )
    .unwrap();
    let imported = images.import(&archive, None).await.unwrap();
    assert_eq!(imported[0].names, ["docker.io/library/one:2", "registry.example/one:latest"]);
    assert_eq!(imported[0].id, digest(&config));

    let rootfs = dir.path().join("rootfs.tar");
    busybox_tar(&rootfs);
    let compressed = dir.path().join("rootfs.tar.gz");
    fs::write(&compressed, gzip(&fs::read(&rootfs).unwrap())).unwrap();
    let error = images.import(&rootfs, None).await.unwrap_err().to_string();
    assert!(error.contains("a root file system needs a name"), "{error}");
    let plain = images.import(&rootfs, Some("busybox:1")).await.unwrap();
    let zipped = images.import(&compressed, Some("busybox")).await.unwrap();
    assert_eq!(plain[0].id, zipped[0].id, "compression makes no difference");
    assert_eq!(images.list().await.unwrap().len(), 2);
    // A name that moves on takes the image that nothing names any more away.
    fs::write(&rootfs, tar(&[("b", b"2")])).unwrap();
    images.import(&rootfs, Some("busybox:1")).await.unwrap();
    images.import(&rootfs, Some("busybox")).await.unwrap();
    assert_eq!(images.resolve(&plain[0].id).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_share_a_store_import_at_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let rootfs = dir.path().join("rootfs.tar");
    busybox_tar(&rootfs);
    let imports = (0..4).map(|n| {
        // A store opened anew locks like another process.
        let images = Images::open(&dir.path().join("store")).unwrap();
        let rootfs = rootfs.clone();
        async move { images.import(&rootfs, Some(&format!("name-{n}"))).await.unwrap() }
    });
    futures::future::join_all(imports).await;
    let images = Images::open(&dir.path().join("store")).unwrap();
    assert_eq!(images.list().await.unwrap()[0].names.len(), 4);
    assert_eq!(fs::read_dir(dir.path().join("store/layers")).unwrap().count(), 1);
}
