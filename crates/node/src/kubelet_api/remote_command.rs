//! One conversation with a process in a container, whatever carries it: what a client sends comes as [`Input`], what it
//! shall see goes as [`Output`].

use bytes::Bytes;
use runtime::ExecIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// How much is sent at once.
const CHUNK: usize = 32 * 1024;
/// Messages that wait, each way.
const QUEUE: usize = 16;

/// What the client sends.
#[derive(Debug)]
pub(super) enum Input {
    /// For the process to read.
    Stdin(Bytes),
    /// No more input.
    StdinEnd,
    /// The terminal's size: `{"Width": columns, "Height": rows}`.
    Resize(Bytes),
}

/// What the client is sent.
#[derive(Debug)]
pub(super) enum Output {
    /// What the process printed.
    Stdout(Bytes),
    /// What it printed as errors.
    Stderr(Bytes),
    /// A Status: the last that is sent.
    Outcome(String),
}

/// The client's side of a conversation. Dropping `input` says that the client has gone.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) input: mpsc::Sender<Input>,
    pub(super) output: mpsc::Receiver<Output>,
}

/// Holds a conversation, in a task of its own.
pub(super) fn converse(io: Result<ExecIo, String>) -> Client {
    let (input, incoming) = mpsc::channel(QUEUE);
    let (outgoing, output) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let code = match io {
            Ok(io) => carry(io, incoming, &outgoing).await,
            Err(why) => Some(Err(why)),
        };
        if let Some(code) = code {
            // The client may have gone meanwhile.
            let _gone = outgoing.send(Output::Outcome(outcome(code).to_string())).await;
        }
    });
    Client { input, output }
}

/// Carries streams until the process has ended; `None` if the client went away first, which ends the process.
async fn carry(
    io: ExecIo,
    mut incoming: mpsc::Receiver<Input>,
    outgoing: &mpsc::Sender<Output>,
) -> Option<Result<i32, String>> {
    let ExecIo { mut stdin, stdout, stderr, resize, exit } = io;
    let out = pump(stdout, Output::Stdout, outgoing);
    let err = async {
        if let Some(stderr) = stderr {
            pump(stderr, Output::Stderr, outgoing).await;
        }
    };
    let receiving = async {
        while let Some(message) = incoming.recv().await {
            match message {
                Input::Stdin(bytes) => {
                    if let Some(writer) = &mut stdin {
                        let written =
                            writer.write_all(&bytes).await.is_ok() && writer.flush().await.is_ok();
                        if !written {
                            stdin = None;
                        }
                    }
                }
                Input::StdinEnd => stdin = None,
                Input::Resize(size) => {
                    if let (Some(resize), Some(size)) = (&resize, terminal_size(&size)) {
                        // The process may have ended meanwhile.
                        let _ended = resize.send(size).await;
                    }
                }
            }
        }
    };
    tokio::select! {
        ((), (), code) = async { tokio::join!(out, err, exit) } => {
            Some(code.map_err(|error| error.to_string()))
        }
        () = receiving => None,
    }
}

fn terminal_size(json: &[u8]) -> Option<(u16, u16)> {
    let size: Value = serde_json::from_slice(json).ok()?;
    let number = |key: &str| size[key].as_u64().and_then(|number| u16::try_from(number).ok());
    Some((number("Width")?, number("Height")?))
}

async fn pump(
    mut from: Box<dyn AsyncRead + Send + Unpin>,
    wrap: fn(Bytes) -> Output,
    to: &mpsc::Sender<Output>,
) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.send(wrap(Bytes::copy_from_slice(&buffer[..count]))).await.is_err() {
            return;
        }
    }
}

/// The Status that ends a conversation. As upstream: k8s.io/kubelet/pkg/cri/streaming/remotecommand.
fn outcome(code: Result<i32, String>) -> Value {
    match code {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => {
            json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}})
        }
        Err(why) => {
            json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "message": format!("error executing command in container: {why}"), "code": 500})
        }
    }
}
