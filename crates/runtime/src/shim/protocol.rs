//! What the server and a supervisor say to each other: frames of a length (four bytes, big-endian) and JSON with a version.
//!
//! One request per connection. `Subscribe` and `Attach` keep theirs: the first carries [`Event`]s, the second [`Chunk`]s.

use crate::RuntimeError;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io;

/// The version of this protocol. A supervisor outlives the server that started it: requests are only ever added, and an
/// older supervisor answers those it does not know with [`Failure::Other`].
pub(crate) const VERSION: u32 = 1;

/// The largest frame that is accepted.
pub(crate) const FRAME_MAX: usize = 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    body: T,
}

/// Asked by the server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Starts a container whose bundle lies ready.
    Start { container: String },
    /// Sends its stop signal, after the grace SIGKILL; answered when it has ended.
    Stop { container: String, grace_millis: u64 },
    /// Exits from now on.
    Subscribe,
    /// The main process' streams.
    Attach { container: String },
    /// Kills everything and ends; answered when all have ended.
    Shutdown,
}

/// Answered by the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Done,
    Attached { stdin: bool, tty: bool },
    Failed { failure: Failure, message: String },
}

/// The variants of [`RuntimeError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    NotFound,
    NotRunning,
    Config,
    Start,
    Other,
}

/// A change that nobody asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    Exited { container: String },
}

impl Response {
    pub(crate) fn failed(error: RuntimeError) -> Self {
        let (failure, message) = match error {
            RuntimeError::NotFound(what) => (Failure::NotFound, what),
            RuntimeError::NotRunning(id) => (Failure::NotRunning, id),
            RuntimeError::Config(message) => (Failure::Config, message),
            RuntimeError::Start(message) => (Failure::Start, message),
            RuntimeError::Other(message) => (Failure::Other, message),
        };
        Response::Failed { failure, message }
    }
}

impl Failure {
    pub(crate) fn into_error(self, message: String) -> RuntimeError {
        match self {
            Failure::NotFound => RuntimeError::NotFound(message),
            Failure::NotRunning => RuntimeError::NotRunning(message),
            Failure::Config => RuntimeError::Config(message),
            Failure::Start => RuntimeError::Start(message),
            Failure::Other => RuntimeError::Other(message),
        }
    }
}

/// For an exec: asked of its own short-lived process, with the standard streams beside it as file descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecOrder {
    /// The sandbox's directory.
    pub(crate) sandbox: std::path::PathBuf,
    pub(crate) container: String,
    pub(crate) command: Vec<String>,
    pub(crate) tty: bool,
}

/// Told by that process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ExecNews {
    /// It runs; with a terminal, its master comes beside.
    Started,
    Failed {
        failure: Failure,
        message: String,
    },
    Exited {
        code: i32,
    },
}

/// Encodes one frame.
pub(crate) fn encode<T: Serialize>(body: &T) -> io::Result<Vec<u8>> {
    let json =
        serde_json::to_vec(&Envelope { version: VERSION, body }).map_err(io::Error::other)?;
    let length = u32::try_from(json.len()).ok().filter(|length| *length as usize <= FRAME_MAX);
    let length =
        length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "message too large"))?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(&json);
    Ok(frame)
}

/// Takes one frame from the head of a buffer; `None` while it is incomplete.
pub(crate) fn decode<T: DeserializeOwned>(buffer: &mut Vec<u8>) -> io::Result<Option<T>> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if length > FRAME_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message too large"));
    }
    let Some(json) = buffer.get(4..4 + length) else { return Ok(None) };
    let envelope: Envelope<T> = serde_json::from_slice(json).map_err(io::Error::other)?;
    buffer.drain(..4 + length);
    Ok(Some(envelope.body))
}

/// A piece of an attached stream: kind (one byte), length (four bytes, big-endian), payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chunk {
    Stdin(Vec<u8>),
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Resize { columns: u16, rows: u16 },
    Exit(i32),
    StdinEnd,
}

impl Chunk {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let frame = |kind: u8, payload: &[u8]| {
            let length =
                u32::try_from(payload.len()).expect("pieces are cut to the size of a read buffer");
            let mut bytes = vec![kind];
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(payload);
            bytes
        };
        match self {
            Chunk::Stdin(data) => frame(0, data),
            Chunk::Stdout(data) => frame(1, data),
            Chunk::Stderr(data) => frame(2, data),
            Chunk::Resize { columns, rows } => {
                frame(3, &[columns.to_be_bytes(), rows.to_be_bytes()].concat())
            }
            Chunk::Exit(code) => frame(4, &code.to_be_bytes()),
            Chunk::StdinEnd => frame(5, &[]),
        }
    }

    /// Takes one piece from the head of a buffer; `None` while it is incomplete.
    pub(crate) fn decode(buffer: &mut Vec<u8>) -> io::Result<Option<Chunk>> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "not a piece of a stream");
        let Some([kind, a, b, c, d]) = buffer.first_chunk::<5>().copied() else { return Ok(None) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > FRAME_MAX {
            return Err(invalid());
        }
        let Some(payload) = buffer.get(5..5 + length) else { return Ok(None) };
        let chunk = match (kind, payload) {
            (0, data) => Chunk::Stdin(data.to_vec()),
            (1, data) => Chunk::Stdout(data.to_vec()),
            (2, data) => Chunk::Stderr(data.to_vec()),
            (3, &[a, b, c, d]) => Chunk::Resize {
                columns: u16::from_be_bytes([a, b]),
                rows: u16::from_be_bytes([c, d]),
            },
            (4, &[a, b, c, d]) => Chunk::Exit(i32::from_be_bytes([a, b, c, d])),
            (5, []) => Chunk::StdinEnd,
            _ => return Err(invalid()),
        };
        buffer.drain(..5 + length);
        Ok(Some(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let frame = encode(&Request::Start { container: "a".into() }).unwrap();
        for cut in 0..frame.len() {
            let mut buffer = frame[..cut].to_vec();
            assert!(decode::<Request>(&mut buffer).unwrap().is_none());
            buffer.extend_from_slice(&frame[cut..]);
            assert!(matches!(decode(&mut buffer).unwrap(), Some(Request::Start { .. })));
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn pieces_of_streams_are_read_back() {
        let chunks = [
            Chunk::Stdin(b"x".to_vec()),
            Chunk::Stderr(Vec::new()),
            Chunk::Resize { columns: 80, rows: 24 },
            Chunk::Exit(-1),
            Chunk::StdinEnd,
        ];
        let mut buffer: Vec<u8> = chunks.iter().flat_map(Chunk::encode).collect();
        for chunk in chunks {
            assert_eq!(Chunk::decode(&mut buffer).unwrap(), Some(chunk));
        }
        assert!(Chunk::decode(&mut vec![9, 0, 0, 0, 0]).is_err());
        assert!(Chunk::decode(&mut vec![0, 255, 0, 0, 0]).is_err());
    }
}
