//! Standard streams: of processes that enter a container, and of a container's main process.

use super::sandbox::Sandbox;
use super::{blocking, client, failed};
use crate::shim::protocol::{Reply, Request};
use crate::shim::{EXEC, ExecFile, own};
use crate::{ExecIo, ExecRequest, RuntimeError};
use futures::FutureExt;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;
use serde_json::json;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// How much output waits for a slow reader.
const PIPE: usize = 64 * 1024;

/// Receives the terminal that a container's process was given.
pub(crate) fn receive_terminal(listener: &UnixListener) -> io::Result<OwnedFd> {
    let (stream, _) = listener.accept()?;
    let mut buffer = [0u8; 64];
    let mut parts = [io::IoSliceMut::new(&mut buffer)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            if let Some(number) = numbers.first() {
                return Ok(own(*number));
            }
        }
    }
    Err(io::Error::other("no terminal was sent"))
}

/// Sets a terminal's size.
#[expect(unsafe_code, reason = "there is no safe way to set a terminal's size")]
pub(crate) fn set_terminal_size(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = nix::libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open for the call, and `size` is a whole winsize that the kernel only reads.
    // JUSTIFICATION: neither std nor nix has a safe TIOCSWINSZ.
    let result = unsafe { nix::libc::ioctl(terminal.as_raw_fd(), nix::libc::TIOCSWINSZ, &raw const size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The files of one exec; removed with it.
struct Files {
    folder: PathBuf,
    finished: bool,
}

impl Drop for Files {
    fn drop(&mut self) {
        if !self.finished {
            let pid = std::fs::read_to_string(self.folder.join("pid")).ok().and_then(|text| text.trim().parse::<i32>().ok());
            if let Some(pid) = pid {
                // It may have ended meanwhile, which is what is wanted.
                let _ended = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::debug!(%error, "the files of an exec stay behind");
        }
    }
}

/// Runs a process inside a running container.
pub(super) async fn exec(sandbox: &Sandbox, id: &str, request: ExecRequest, program: &Path) -> Result<ExecIo, RuntimeError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = format!("e{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let folder = sandbox.folder.join(number);
    std::fs::create_dir(&folder).map_err(|error| failed("make", &folder, &error))?;
    let files = Files { folder: folder.clone(), finished: false };
    let mut process = sandbox.container_config(id)?.process;
    process["args"] = json!(request.command);
    process["terminal"] = json!(request.tty);
    if request.tty {
        let environment = process["env"].as_array_mut().map(|list| list.iter().any(|pair| pair.as_str().is_some_and(|pair| pair.starts_with("TERM="))));
        if environment == Some(false) {
            if let Some(list) = process["env"].as_array_mut() {
                list.push(json!("TERM=xterm"));
            }
        }
    }
    let console = request.tty.then(|| folder.join("c"));
    let file = ExecFile { process: folder.join("process.json"), pid_file: folder.join("pid"), console: console.clone() };
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).map_err(|error| failed("write", &folder.join(name), &error));
    write("process.json", process.to_string())?;
    write("exec.json", serde_json::to_string(&file).map_err(|error| RuntimeError::Other(error.to_string()))?)?;
    let listener = console.map(|path| UnixListener::bind(&path).map_err(|error| failed("listen at", &path, &error))).transpose()?;

    let mut command = tokio::process::Command::new(program);
    command.arg(EXEC).arg(sandbox.oci_root()).arg(id).arg(folder.join("exec.json"));
    command.stdin(if request.stdin && !request.tty { Stdio::piped() } else { Stdio::null() });
    command.stdout(if request.tty { Stdio::null() } else { Stdio::piped() }).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed("start", program, &error))?;

    let (stdin, stdout, stderr, resize): (Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>>, Box<dyn tokio::io::AsyncRead + Send + Unpin>, _, _) = match listener {
        None => {
            let stdin = child.stdin.take().map(|stdin| Box::new(stdin) as _);
            let stdout = child.stdout.take().ok_or_else(|| RuntimeError::Other("no standard output".to_owned()))?;
            let stderr: Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>> = child.stderr.take().map(|stderr| Box::new(stderr) as _);
            (stdin, Box::new(stdout), stderr, None)
        }
        Some(listener) => {
            let terminal = wait_for_terminal(listener, &mut child).await?;
            let (stdin, stdout, resize) = terminal_streams(terminal)?;
            (request.stdin.then_some(stdin), stdout, None, Some(resize))
        }
    };
    let exit = async move {
        let mut files = files;
        let status = child.wait().await.map_err(|error| RuntimeError::Other(error.to_string()))?;
        files.finished = true;
        Ok(status.code().unwrap_or(137))
    };
    Ok(ExecIo { stdin, stdout, stderr, resize, exit: exit.boxed() })
}

/// The terminal, or why there is none: the process that should have sent it has ended with an error.
async fn wait_for_terminal(listener: UnixListener, child: &mut tokio::process::Child) -> Result<OwnedFd, RuntimeError> {
    listener.set_nonblocking(true).map_err(|error| RuntimeError::Other(error.to_string()))?;
    let waiting = tokio::net::UnixListener::from_std(listener.try_clone().map_err(|error| RuntimeError::Other(error.to_string()))?)
        .map_err(|error| RuntimeError::Other(error.to_string()))?;
    tokio::select! {
        ready = std::future::poll_fn(|context| waiting.poll_accept(context)) => {
            let (stream, _) = ready.map_err(|error| RuntimeError::Other(error.to_string()))?;
            let stream = stream.into_std().map_err(|error| RuntimeError::Other(error.to_string()))?;
            blocking(move || {
                stream.set_nonblocking(false).map_err(|error| RuntimeError::Other(error.to_string()))?;
                receive(&stream).map_err(|error| RuntimeError::Other(error.to_string()))
            }).await
        }
        ended = child.wait() => {
            let mut words = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                // What it said is a courtesy; without it the status still tells that it failed.
                let _unread = stderr.read_to_string(&mut words).await;
            }
            let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            Err(RuntimeError::Start(if words.trim().is_empty() { status } else { words.trim().to_owned() }))
        }
    }
}

fn receive(stream: &std::os::unix::net::UnixStream) -> io::Result<OwnedFd> {
    let mut buffer = [0u8; 64];
    let mut parts = [io::IoSliceMut::new(&mut buffer)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let number = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(numbers) => numbers.first().copied(),
        _ => None,
    });
    number.map(own).ok_or_else(|| io::Error::other("no terminal was sent"))
}

type Input = Box<dyn tokio::io::AsyncWrite + Send + Unpin>;
type Output = Box<dyn tokio::io::AsyncRead + Send + Unpin>;

/// A terminal as streams. Reading and writing it blocks, so two threads do it.
fn terminal_streams(terminal: OwnedFd) -> Result<(Input, Output, mpsc::Sender<(u16, u16)>), RuntimeError> {
    let other = |error: io::Error| RuntimeError::Other(error.to_string());
    let (for_input, for_size) = (terminal.try_clone().map_err(other)?, terminal.try_clone().map_err(other)?);
    let (mut output, reader) = tokio::io::duplex(PIPE);
    let (writer, mut input) = tokio::io::duplex(PIPE);
    let handle = tokio::runtime::Handle::current();
    let reading = handle.clone();
    tokio::task::spawn_blocking(move || {
        let mut buffer = [0; 16 * 1024];
        // EIO is the end of a terminal: nobody has its other side open.
        while let Ok(count @ 1..) = nix::unistd::read(&terminal, &mut buffer) {
            if reading.block_on(output.write_all(&buffer[..count])).is_err() {
                return;
            }
        }
    });
    tokio::task::spawn_blocking(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = handle.block_on(input.read(&mut buffer)) {
            let mut bytes = &buffer[..count];
            while !bytes.is_empty() {
                match nix::unistd::write(&for_input, bytes) {
                    Ok(written) => bytes = &bytes[written..],
                    Err(_) => return,
                }
            }
        }
    });
    let (resize, mut sizes) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some((columns, rows)) = sizes.recv().await {
            if let Err(error) = set_terminal_size(for_size.as_fd(), columns, rows) {
                tracing::debug!(%error, "a terminal keeps its size");
            }
        }
    });
    Ok((Box::new(writer), Box::new(reader), resize))
}

/// Connects to a container's main process.
pub(super) async fn attach(sandbox: &Sandbox, id: &str, tty: bool) -> Result<ExecIo, RuntimeError> {
    let other = |error: io::Error| RuntimeError::Other(format!("attach to container {id}: {error}"));
    let socket = sandbox.socket();
    let mut exits = client::watch(&socket).await.map_err(|_| RuntimeError::NotRunning(id.to_owned()))?;
    let mut connection = client::open(&socket, Request::Attach { id: id.to_owned() }).await.map_err(other)?;
    match client::read(&mut connection).await.map_err(other)? {
        Some(Reply::Done) => {}
        _ => return Err(RuntimeError::NotRunning(id.to_owned())),
    }
    let (mut frames, input) = tokio::io::split(connection);
    let (mut out, stdout) = tokio::io::duplex(PIPE);
    let (mut err, stderr) = tokio::io::duplex(PIPE);
    tokio::spawn(async move {
        let mut head = [0; 5];
        while frames.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let mut bytes = vec![0; length.min(1 << 20)];
            let to = if head[0] == 2 { &mut err } else { &mut out };
            if frames.read_exact(&mut bytes).await.is_err() || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let (resize, mut sizes) = mpsc::channel::<(u16, u16)>(4);
    let (place, container) = (socket.clone(), id.to_owned());
    tokio::spawn(async move {
        while let Some((columns, rows)) = sizes.recv().await {
            if let Err(error) = client::ask(&place, Request::Resize { id: container.clone(), columns, rows }).await {
                tracing::debug!(%error, "a terminal keeps its size");
            }
        }
    });
    let (sandbox, id) = (sandbox.clone(), id.to_owned());
    let exit = async move {
        use futures::StreamExt;
        loop {
            if let crate::ContainerState::Exited { exit_code, .. } = sandbox.container_status(&id)?.state {
                return Ok(exit_code);
            }
            if exits.next().await.is_none() {
                return Err(RuntimeError::NotRunning(id));
            }
        }
    };
    Ok(ExecIo { stdin: Some(Box::new(input)), stdout: Box::new(stdout), stderr: (!tty).then(|| Box::new(stderr) as _), resize: tty.then_some(resize), exit: exit.boxed() })
}
