//! Talks to supervisors.

use crate::shim::protocol::{Message, Reply, Request, VERSION};
use futures::stream::{self, Stream};
use std::io;
use std::path::Path;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Opens a connection and says what is wanted; the answer is to be read from it.
pub(super) async fn open(socket: &Path, request: Request) -> io::Result<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(socket).await?;
    let mut line = serde_json::to_vec(&Message { version: VERSION, request })?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    Ok(BufReader::new(stream))
}

/// The next answer on a connection; `None` when it has ended.
pub(super) async fn read(stream: &mut BufReader<UnixStream>) -> io::Result<Option<Reply>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}

/// Asks once.
pub(super) async fn ask(socket: &Path, request: Request) -> io::Result<Reply> {
    let mut stream = open(socket, request).await?;
    read(&mut stream).await?.ok_or_else(|| io::Error::other("it ended"))
}

/// The ids of containers that end, from now on; the stream ends with the supervisor.
pub(super) async fn watch(socket: &Path) -> io::Result<impl Stream<Item = String> + Unpin + use<>> {
    let mut connection = open(socket, Request::Watch).await?;
    match read(&mut connection).await? {
        Some(Reply::Done) => {}
        other => return Err(io::Error::other(format!("unexpected answer: {other:?}"))),
    }
    Ok(Box::pin(stream::unfold(connection, |mut connection| async move {
        loop {
            match read(&mut connection).await {
                Ok(Some(Reply::Exited { id })) => return Some((id, connection)),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    })))
}

/// Whether somebody listens.
pub(super) async fn is_alive(socket: &Path) -> bool {
    match watch(socket).await {
        Ok(_) => true,
        Err(_) => false,
    }
}

/// Waits until the supervisor has ended.
pub(super) async fn wait_until_gone(socket: &Path) {
    use futures::StreamExt;
    if let Ok(mut exits) = watch(socket).await {
        while exits.next().await.is_some() {}
    }
}
