//! Streams of processes inside containers, for the server's asynchronous world.

use super::Shim;
use super::client::{self, CallError};
use crate::layout::SandboxDir;
use crate::shim::fds;
use crate::shim::protocol::{self, Chunk, ExecNews, ExecOrder, Request, Response};
use crate::{ExecIo, ExecRequest, RuntimeError};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

/// Terminal sizes that wait to be told; only the last matters.
const RESIZES: usize = 8;
/// Bytes on their way between a stream and who uses it.
const BUFFER: usize = 64 * 1024;

fn other(what: &str) -> impl Fn(io::Error) -> RuntimeError + '_ {
    move |error| RuntimeError::Other(format!("{what}: {error}"))
}

/// Starts a process inside a running container, through a short-lived process of its own.
pub(super) async fn exec(
    shim: &Shim,
    dir: &SandboxDir,
    container: &str,
    request: ExecRequest,
) -> Result<ExecIo, RuntimeError> {
    let failed = other("exec");
    if request.command.is_empty() {
        return Err(RuntimeError::Config("exec: no command specified".into()));
    }
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(&failed)?;
    let order = ExecOrder {
        sandbox: dir.0.clone(),
        container: container.to_owned(),
        command: request.command,
        tty: request.tty,
    };
    let frame = protocol::encode(&order).map_err(&failed)?;
    let (pipes, given) = if request.tty {
        (None, Vec::new())
    } else {
        Pipes::make(request.stdin).map_err(&failed)?
    };
    let mut child = shim
        .command(crate::shim::EXEC)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(&failed)?;
    tokio::spawn(async move {
        // Only so that no zombie stays; the result comes over the socket.
        let _ = child.wait().await;
    });
    ours.set_nonblocking(true).map_err(&failed)?;
    let socket = UnixStream::from_std(ours).map_err(&failed)?;
    send(&socket, &frame, given).await.map_err(&failed)?;
    let mut inbound = Vec::new();
    let (news, mut received) = receive(&socket, &mut inbound).await.map_err(&failed)?;
    match news {
        ExecNews::Started => {}
        ExecNews::Failed { failure, message } => return Err(failure.into_error(message)),
        ExecNews::Exited { .. } => {
            return Err(RuntimeError::Other("exec: ended before it was started".into()));
        }
    }
    let exit = Box::pin(exit(socket, inbound));
    if let Some(pipes) = pipes {
        return Ok(ExecIo {
            stdin: pipes.stdin,
            stdout: pipes.stdout,
            stderr: Some(pipes.stderr),
            resize: None,
            exit,
        });
    }
    let master =
        received.pop().ok_or_else(|| RuntimeError::Other("exec: no terminal came".into()))?;
    let terminal = Terminal::new(master).map_err(&failed)?;
    Ok(ExecIo {
        stdin: request.stdin.then(|| Box::new(terminal.clone()) as _),
        stdout: Box::new(terminal.clone()),
        stderr: None,
        resize: Some(terminal.resizer()),
        exit,
    })
}

/// Dropping this closes the socket, whereupon the process at its other end kills what it has started.
async fn exit(mut socket: UnixStream, mut inbound: Vec<u8>) -> Result<i32, RuntimeError> {
    match client::next(&mut socket, &mut inbound).await.map_err(other("exec"))? {
        Some(ExecNews::Exited { code }) => Ok(code),
        _ => Err(RuntimeError::Other("exec: its process was killed".into())),
    }
}

async fn send(socket: &UnixStream, bytes: &[u8], fds: Vec<OwnedFd>) -> io::Result<()> {
    let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    socket.async_io(Interest::WRITABLE, || fds::send(socket, bytes, &numbers)).await
}

async fn receive(
    socket: &UnixStream,
    inbound: &mut Vec<u8>,
) -> io::Result<(ExecNews, Vec<OwnedFd>)> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 4096];
    loop {
        let (length, received) =
            socket.async_io(Interest::READABLE, || fds::receive(socket, &mut buffer)).await?;
        all.extend(received);
        inbound.extend_from_slice(&buffer[..length]);
        if let Some(news) = protocol::decode(inbound)? {
            return Ok((news, all));
        }
        if length == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "its process ended without a word",
            ));
        }
    }
}

struct Pipes {
    stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    stdout: Box<dyn AsyncRead + Send + Unpin>,
    stderr: Box<dyn AsyncRead + Send + Unpin>,
}

impl Pipes {
    /// Our ends, and the three that are given away.
    fn make(stdin: bool) -> io::Result<(Option<Self>, Vec<OwnedFd>)> {
        let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC);
        let (stdout, their_stdout) = pipe()?;
        let (stderr, their_stderr) = pipe()?;
        let (stdin, their_stdin): (Option<Box<dyn AsyncWrite + Send + Unpin>>, OwnedFd) = if stdin {
            let (reader, writer) = pipe()?;
            (Some(Box::new(pipe::Sender::from_owned_fd(writer)?)), reader)
        } else {
            (None, File::open("/dev/null")?.into())
        };
        let ours = Pipes {
            stdin,
            stdout: Box::new(pipe::Receiver::from_owned_fd(stdout)?),
            stderr: Box::new(pipe::Receiver::from_owned_fd(stderr)?),
        };
        Ok((Some(ours), vec![their_stdin, their_stdout, their_stderr]))
    }
}

/// A terminal's master, read and written by different tasks.
#[derive(Clone)]
struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    #[expect(
        unsafe_code,
        reason = "tokio cannot know that a descriptor stays open while it is registered"
    )]
    fn new(master: OwnedFd) -> io::Result<Self> {
        fds::set_nonblocking(&master)?;
        // SAFETY: the descriptor is owned by the `AsyncFd` and always the same.
        // JUSTIFICATION: the safe constructor is deprecated.
        let registered = unsafe { AsyncFd::register(master) }?;
        Ok(Terminal(Arc::new(registered)))
    }

    fn resizer(&self) -> mpsc::Sender<(u16, u16)> {
        let (sender, mut sizes) = mpsc::channel(RESIZES);
        let terminal = self.clone();
        tokio::spawn(async move {
            while let Some((columns, rows)) = sizes.recv().await {
                if let Err(error) = fds::resize(terminal.0.get_ref(), columns, rows) {
                    tracing::debug!(%error, "resize a terminal");
                }
            }
        });
        sender
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let result =
                guard.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), buf.initialize_unfilled())?));
            match result {
                Ok(Ok(length)) => {
                    buf.advance(length);
                    return Poll::Ready(Ok(()));
                }
                // The last process at the other end is gone: the end of the stream.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), buf)?)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Opens the streams of a container's main process, which its supervisor holds.
pub(super) async fn attach(
    dir: &SandboxDir,
    container: &str,
    input: bool,
) -> Result<ExecIo, RuntimeError> {
    let not_running = |error: CallError| match error {
        CallError::Gone => RuntimeError::NotRunning(container.to_owned()),
        CallError::Refused(error) => error,
    };
    let mut stream = client::connect(dir).await.map_err(not_running)?;
    let mut inbound = Vec::new();
    let request = Request::Attach { container: container.to_owned() };
    let response = client::ask(&mut stream, &request, &mut inbound).await.map_err(not_running)?;
    let Response::Attached { stdin, tty } = response else {
        return Err(RuntimeError::Other(format!(
            "attach to container {container}: unexpected answer"
        )));
    };
    let (reader, writer) = stream.into_split();
    let (outgoing, outgoing_receiver) = mpsc::channel(RESIZES);
    tokio::spawn(write_chunks(writer, outgoing_receiver));
    let (stdout, stdout_end) = tokio::io::duplex(BUFFER);
    let (stderr, stderr_end) = tokio::io::duplex(BUFFER);
    let (exit_sender, exit) = oneshot::channel();
    tokio::spawn(read_chunks(reader, inbound, stdout_end, stderr_end, exit_sender));
    let resize = tty.then(|| {
        let (sender, sizes) = mpsc::channel(RESIZES);
        tokio::spawn(forward_sizes(sizes, outgoing.clone()));
        sender
    });
    let stdin = (stdin && input).then(|| {
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        tokio::spawn(forward_input(theirs, outgoing.clone()));
        Box::new(ours) as Box<dyn AsyncWrite + Send + Unpin>
    });
    let id = container.to_owned();
    Ok(ExecIo {
        stdin,
        stdout: Box::new(stdout),
        stderr: (!tty).then(|| Box::new(stderr) as _),
        resize,
        exit: Box::pin(async move {
            // Kept so that the connection lives as long as somebody waits.
            let _outgoing = outgoing;
            exit.await.map_err(|_| {
                RuntimeError::Other(format!("attach to container {id}: the connection was lost"))
            })
        }),
    })
}

async fn write_chunks(
    mut writer: tokio::net::unix::OwnedWriteHalf,
    mut chunks: mpsc::Receiver<Chunk>,
) {
    while let Some(chunk) = chunks.recv().await {
        if writer.write_all(&chunk.encode()).await.is_err() {
            return;
        }
    }
}

async fn read_chunks(
    mut reader: tokio::net::unix::OwnedReadHalf,
    mut inbound: Vec<u8>,
    mut stdout: tokio::io::DuplexStream,
    mut stderr: tokio::io::DuplexStream,
    exit: oneshot::Sender<i32>,
) {
    loop {
        // Who reads only one of the streams must not miss the other's end, nor the exit: errors of a closed reader are ignored.
        match Chunk::decode(&mut inbound) {
            Ok(Some(Chunk::Stdout(data))) => drop(stdout.write_all(&data).await),
            Ok(Some(Chunk::Stderr(data))) => drop(stderr.write_all(&data).await),
            Ok(Some(Chunk::Exit(code))) => {
                // Nobody may be waiting for it.
                let _ = exit.send(code);
                return;
            }
            Ok(Some(_)) => {}
            Ok(None) => match reader.read_buf(&mut inbound).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
            Err(_) => return,
        }
    }
}

async fn forward_sizes(mut sizes: mpsc::Receiver<(u16, u16)>, outgoing: mpsc::Sender<Chunk>) {
    while let Some((columns, rows)) = sizes.recv().await {
        if outgoing.send(Chunk::Resize { columns, rows }).await.is_err() {
            return;
        }
    }
}

async fn forward_input(mut input: tokio::io::DuplexStream, outgoing: mpsc::Sender<Chunk>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = input.read(&mut buffer).await {
        if outgoing.send(Chunk::Stdin(buffer[..length].to_vec())).await.is_err() {
            return;
        }
    }
    // The supervisor may have ended meanwhile.
    let _ended = outgoing.send(Chunk::StdinEnd).await;
}
