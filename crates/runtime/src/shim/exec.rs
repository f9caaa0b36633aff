//! The process behind one exec: joins the container, hands over the streams, waits.
//!
//! Its standard input is a socket to the server. When that closes, nobody wants the result any more: the process and
//! its group are killed.

use super::container::{Console, chain};
use super::executor::Report;
use super::fds;
use super::protocol::{self, ExecNews, ExecOrder, Failure};
use crate::layout::SandboxDir;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

/// Serves one order.
pub(super) fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::warn(format_args!("exec: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    // Takes the socket off standard input, which belongs to the program that will be started.
    let socket: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let (order, streams) = receive(&socket)?;
    match start(&order, streams) {
        Ok((pid, master)) => {
            let beside: Vec<_> = master.iter().map(AsRawFd::as_raw_fd).collect();
            let told = fds::send(&socket, &protocol::encode(&ExecNews::Started)?, &beside);
            drop(master);
            let code = match told {
                Ok(()) => wait(&socket, pid)?,
                Err(_) => end(pid)?,
            };
            tell(&socket, &ExecNews::Exited { code })
        }
        Err((failure, message)) => tell(&socket, &ExecNews::Failed { failure, message }),
    }
}

fn tell(socket: &OwnedFd, news: &ExecNews) -> io::Result<()> {
    match fds::send(socket, &protocol::encode(news)?, &[]) {
        // The server has lost interest, or its life.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn receive(socket: &OwnedFd) -> io::Result<(ExecOrder, Vec<OwnedFd>)> {
    let mut inbound = Vec::new();
    let mut streams = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (length, received) = fds::receive(socket, &mut buffer)?;
        streams.extend(received);
        inbound.extend_from_slice(&buffer[..length]);
        if let Some(order) = protocol::decode(&mut inbound)? {
            return Ok((order, streams));
        }
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

type Refusal = (Failure, String);

fn other(error: impl std::fmt::Display) -> Refusal {
    (Failure::Other, format!("exec: {error}"))
}

/// Starts the process. Gives its terminal's master, if it has one.
fn start(order: &ExecOrder, streams: Vec<OwnedFd>) -> Result<(Pid, Option<OwnedFd>), Refusal> {
    let sandbox = SandboxDir(order.sandbox.clone());
    if !sandbox.run().join(&order.container).exists() {
        return Err((Failure::NotRunning, order.container.clone()));
    }
    let (report, workload) = Report::new().map_err(other)?;
    let process = process(&sandbox, order).map_err(other)?;
    let mut builder = ContainerBuilder::new(order.container.clone(), SyscallType::default())
        .with_executor(workload)
        .with_root_path(sandbox.run())
        .map_err(|error| other(chain(&error)))?;
    let mut console = None;
    if order.tty {
        let path =
            sandbox.container(&order.container).0.join(format!("exec-{}.sock", std::process::id()));
        console = Some((Console::listen(&path).map_err(other)?, path.clone()));
        builder = builder.with_console_socket(Some(path));
    } else {
        let [stdin, stdout, stderr] =
            <[OwnedFd; 3]>::try_from(streams).map_err(|_| other("no streams came"))?;
        builder = builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr);
    }
    let process_path = PathBuf::from(format!("/proc/self/fd/{}", process.as_raw_fd()));
    let built = builder.as_tenant().with_detach(true).with_process(Some(process_path)).build();
    let master = console.map(|(console, path)| {
        let master = console.accept();
        // The sandbox's removal takes it away otherwise.
        let _ = fs::remove_file(path);
        master
    });
    match built {
        Ok(pid) => Ok((Pid::from_raw(pid.as_raw()), master.transpose().map_err(other)?)),
        Err(error) => {
            let message = report.take().unwrap_or_else(|| chain(&error));
            Err((Failure::Start, format!("unable to start container process: {message}")))
        }
    }
}

/// The container's own process description with another command, in a file that has no name.
fn process(sandbox: &SandboxDir, order: &ExecOrder) -> io::Result<File> {
    let spec = fs::read(sandbox.container(&order.container).spec())?;
    let mut spec: serde_json::Value = serde_json::from_slice(&spec)?;
    let mut process = spec["process"].take();
    process["args"] = serde_json::json!(order.command);
    process["terminal"] = serde_json::json!(order.tty);
    if order.tty
        && let Some(environment) = process["env"].as_array_mut()
        && !environment
            .iter()
            .any(|entry| entry.as_str().is_some_and(|entry| entry.starts_with("TERM=")))
    {
        environment.push(serde_json::json!("TERM=xterm"));
    }
    let mut file = File::from(memfd_create(c"process", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&serde_json::to_vec(&process)?)?;
    Ok(file)
}

/// Waits for the process, or for the server to lose interest.
fn wait(socket: &OwnedFd, pid: Pid) -> io::Result<i32> {
    let raw = rustix::process::Pid::from_raw(pid.as_raw()).ok_or(io::ErrorKind::InvalidInput)?;
    let process = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty())?;
    loop {
        let mut fds = [
            PollFd::new(process.as_fd(), PollFlags::POLLIN),
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::Error::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        if fds[0].any().unwrap_or(false) {
            return code(waitpid(pid, None)?);
        }
        // The server says nothing more on this socket: it only ever closes it.
        if fds[1].any().unwrap_or(false) {
            return end(pid);
        }
    }
}

fn end(pid: Pid) -> io::Result<i32> {
    // It leads its own session and group. Either call fails only where there is nobody left.
    let _ = killpg(pid, Signal::SIGKILL);
    let _ = kill(pid, Signal::SIGKILL);
    code(waitpid(pid, None)?)
}

fn code(status: WaitStatus) -> io::Result<i32> {
    match status {
        WaitStatus::Exited(_, code) => Ok(code),
        WaitStatus::Signaled(_, signal, _) => Ok(128 + signal as i32),
        other => Err(io::Error::other(format!("unexpected {other:?}"))),
    }
}
