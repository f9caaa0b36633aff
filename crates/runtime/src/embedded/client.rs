//! The server's side of a supervisor's socket.

use crate::RuntimeError;
use crate::layout::{self, SandboxDir};
use crate::shim::protocol::{self, Request, Response};
use serde::de::DeserializeOwned;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// Nobody serves the socket: the supervisor is dead, or was never born.
    Gone,
    /// It answered with an error.
    Refused(RuntimeError),
}

impl From<CallError> for RuntimeError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Gone => {
                RuntimeError::Other("the sandbox's supervisor is not running".into())
            }
            CallError::Refused(error) => error,
        }
    }
}

/// Connects to a supervisor; `Gone` if there is none.
pub(super) async fn connect(dir: &SandboxDir) -> Result<UnixStream, CallError> {
    let connected = async {
        let (_directory, short) = layout::short_path(&dir.socket())?;
        UnixStream::connect(&short).await
    };
    connected.await.map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => CallError::Gone,
        _ => CallError::Refused(RuntimeError::Other(format!("connect to the supervisor: {error}"))),
    })
}

/// Asks and waits for the answer, on a connection that can be used on.
pub(super) async fn ask(
    stream: &mut UnixStream,
    request: &Request,
    inbound: &mut Vec<u8>,
) -> Result<Response, CallError> {
    let io = |error: io::Error| match error.kind() {
        io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::UnexpectedEof => CallError::Gone,
        _ => CallError::Refused(RuntimeError::Other(format!("ask the supervisor: {error}"))),
    };
    let frame = protocol::encode(request).map_err(io)?;
    stream.write_all(&frame).await.map_err(io)?;
    match next(stream, inbound).await.map_err(io)? {
        Some(Response::Failed { failure, message }) => {
            Err(CallError::Refused(failure.into_error(message)))
        }
        Some(response) => Ok(response),
        None => Err(CallError::Gone),
    }
}

/// Asks once.
pub(super) async fn call(dir: &SandboxDir, request: &Request) -> Result<(), CallError> {
    let mut stream = connect(dir).await?;
    ask(&mut stream, request, &mut Vec::new()).await.map(drop)
}

/// The next frame; `None` at the end. What was read beyond it stays in the buffer.
pub(super) async fn next<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    inbound: &mut Vec<u8>,
) -> io::Result<Option<T>> {
    loop {
        if let Some(body) = protocol::decode(inbound)? {
            return Ok(Some(body));
        }
        if stream.read_buf(inbound).await? == 0 {
            return Ok(None);
        }
    }
}
