//! A registry inside a story's network namespace: Debian's, with images made from busybox.

use crate::harness::{Beside, Cluster, docker_registry, image_archive};
use serde_json::{Value, json};
use std::net::TcpListener;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// `alice:secret`, as htpasswd writes it.
const PASSWORDS: &str = "alice:$2b$04$M08yTaN8ZhbNNnHdzzkQbeAF0ePulkJ0pYM.tv06YoLcgK1BmfqrK\n";

/// Runs as long as it is kept.
pub(crate) struct Registry<'a> {
    k: &'a Cluster,
    _process: Beside,
    pub(crate) address: String,
    /// What curl is told about who it is.
    who: &'static str,
}

/// A port of loopback that nobody has.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl<'a> Registry<'a> {
    /// Open to everybody.
    pub(crate) fn start(k: &'a Cluster, port: u16) -> Registry<'a> {
        Registry::with(k, port, "", "")
    }

    /// Open to alice, whose password is `secret`.
    pub(crate) fn start_private(k: &'a Cluster, port: u16) -> Registry<'a> {
        k.file("passwords", PASSWORDS);
        let auth = format!(
            "auth: {{htpasswd: {{realm: here, path: '{}'}}}}\n",
            k.folder().join("passwords").display()
        );
        Registry::with(k, port, &auth, "-u alice:secret")
    }

    fn with(k: &'a Cluster, port: u16, auth: &str, who: &'static str) -> Registry<'a> {
        let (address, data) = (format!("127.0.0.1:{port}"), k.folder().join("registry"));
        k.file(
            "config.yml",
            &format!("version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: '{}'}}}}\nhttp: {{addr: '{address}'}}\n{auth}", data.display()),
        );
        let process = k.beside(&format!("{} serve config.yml", docker_registry().display()));
        k.until(
            &format!("curl -s {who} -o answer -w '%{{http_code}}' http://{address}/v2/"),
            |code| code == "200",
        );
        k.sh(&format!("mkdir -p image && tar xf {} -C image", image_archive("busybox").display()));
        Registry { k, _process: process, address, who }
    }

    /// Pushes busybox for an architecture, with a variable `WHICH`, which makes it an image of its own. Returns the manifest's digest.
    pub(crate) fn push(
        &self,
        repository: &str,
        tag: &str,
        architecture: &str,
        which: &str,
    ) -> String {
        let layer = self.k.sh("find image/blobs -type f -size +1M").trim().to_owned();
        let diff_id = self.digest(&layer);
        self.k.sh(&format!("gzip -n < {layer} > layer.tar.gz"));
        let layer =
            self.blob(repository, "layer.tar.gz", "application/vnd.oci.image.layer.v1.tar+gzip");
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let config = json!({
            "architecture": architecture, "os": "linux",
            "config": {"Env": [format!("PATH={path}"), format!("WHICH={which}")], "Cmd": ["sh", "-c", "echo $WHICH; sleep 3600"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        });
        self.k.file("config.json", &config.to_string());
        let config =
            self.blob(repository, "config.json", "application/vnd.oci.image.config.v1+json");
        self.manifest(repository, tag, MANIFEST, &json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}))
    }

    /// Pushes an index of manifests that were pushed before, by digest and architecture. Returns its digest.
    pub(crate) fn push_index(
        &self,
        repository: &str,
        tag: &str,
        manifests: &[(String, &str)],
    ) -> String {
        let entries: Vec<Value> = manifests
            .iter()
            .map(|(digest, architecture)| {
                let size = self.k.sh(&format!("curl -sf {} -H 'Accept: {MANIFEST}' http://{}/v2/{repository}/manifests/{digest} | wc -c", self.who, self.address));
                json!({"mediaType": MANIFEST, "digest": digest, "size": size.trim().parse::<u64>().unwrap(), "platform": {"os": "linux", "architecture": architecture}})
            })
            .collect();
        self.manifest(
            repository,
            tag,
            INDEX,
            &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}),
        )
    }

    fn digest(&self, file: &str) -> String {
        let line = self.k.sh(&format!("sha256sum {file}"));
        format!("sha256:{}", line.split_whitespace().next().unwrap())
    }

    fn blob(&self, repository: &str, file: &str, kind: &str) -> Value {
        let (k, who, digest) = (self.k, self.who, self.digest(file));
        let start = format!(
            "curl -sf {who} -i -X POST http://{}/v2/{repository}/blobs/uploads/",
            self.address
        );
        let place = k.sh(&format!("{start} | tr -d '\\r' | sed -n 's/^Location: //Ip'"));
        let place = format!("{}&digest={digest}", place.trim());
        k.sh(&format!("curl -sf {who} -X PUT -H 'Content-Type: application/octet-stream' --data-binary @{file} '{place}'"));
        let size = std::fs::metadata(k.folder().join(file)).unwrap().len();
        json!({"mediaType": kind, "digest": digest, "size": size})
    }

    fn manifest(&self, repository: &str, tag: &str, kind: &str, document: &Value) -> String {
        self.k.file("manifest.json", &document.to_string());
        self.k.sh(&format!(
            "curl -sf {} -X PUT -H 'Content-Type: {kind}' --data-binary @manifest.json http://{}/v2/{repository}/manifests/{tag}",
            self.who, self.address
        ));
        self.digest("manifest.json")
    }
}
