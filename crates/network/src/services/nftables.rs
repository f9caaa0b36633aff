//! Hands rules to the kernel, by the program `nft`.

use crate::NetworkError;
use crate::host::failed;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Applies a rule set: all of it or nothing.
pub(super) async fn apply(text: &str) -> Result<(), NetworkError> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed("start nft (package nftables)", error))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes()).await.map_err(|error| failed("write to nft", error))?;
    }
    let output = child.wait_with_output().await.map_err(|error| failed("wait for nft", error))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(NetworkError::Other(format!(
        "nft refused the rules: {}",
        words.lines().take(3).collect::<Vec<_>>().join(" ")
    )))
}
