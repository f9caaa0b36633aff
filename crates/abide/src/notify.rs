//! Tells whoever started the server that it is ready (systemd's `sd_notify` protocol).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `READY=1` to `$NOTIFY_SOCKET`, if that is set.
pub(crate) fn ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent = send(&path.to_string_lossy());
    if let Err(error) = sent {
        tracing::warn!(%error, "could not tell NOTIFY_SOCKET that the server is ready");
    }
}

fn send(path: &str) -> std::io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    socket.send_to_addr(b"READY=1", &address).map(drop)
}
