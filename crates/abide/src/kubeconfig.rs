//! The admin kubeconfig.

use crate::pki::Pair;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::path::Path;

/// Writes a kubeconfig that only its owner can read, in one step, so that no reader sees half of it.
pub(crate) fn write(path: &Path, server: &str, ca_pem: &str, admin: &Pair) -> Result<()> {
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: abide\nclusters:\n- name: abide\n  cluster:\n    server: {server}\n    \
         certificate-authority-data: {}\ncontexts:\n- name: abide\n  context:\n    cluster: abide\n    user: admin\nusers:\n- name: admin\n  \
         user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
        STANDARD.encode(ca_pem),
        STANDARD.encode(&admin.certificate_pem),
        STANDARD.encode(&admin.key_pem),
    );
    crate::pki::write_private(path, &text)
        .with_context(|| format!("write kubeconfig {}", path.display()))
}
