//! The supervisor's one loop: signals, requests, output.

use super::log::{Log, Partial};
use super::protocol::{Message, Reply, Request, Start};
use crate::{ContainerState, ContainerStatus};
use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How long a peer may take over one line.
const PATIENCE: Duration = Duration::from_secs(5);

struct Output {
    fd: OwnedFd,
    stream: &'static str,
    partial: Partial,
}

struct Running {
    container: Container,
    status: ContainerStatus,
    status_file: PathBuf,
    cgroup: String,
    pid: i32,
    outputs: Vec<Output>,
    stdin: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    log: Log,
    attached: Vec<UnixStream>,
}

struct Supervisor {
    /// Where libcontainer keeps its state.
    root: PathBuf,
    folder: PathBuf,
    listener: UnixListener,
    signals: SignalFd,
    mask: SigSet,
    running: Vec<Running>,
    watchers: Vec<UnixStream>,
    closing: bool,
}

/// What an entry of the poll list stands for.
#[derive(Clone, Copy)]
enum Source {
    Signal,
    Listener,
    Output(usize, usize),
    Attached(usize, usize),
    Watcher(usize),
}

/// Supervises the sandbox whose state is in `folder`, until told to end.
pub(super) fn run(folder: &Path) -> io::Result<ExitCode> {
    nix::unistd::setsid().or_else(|error| if error == Errno::EPERM { Ok(Pid::this()) } else { Err(error) })?;
    nix::sys::prctl::set_child_subreaper(true)?;
    nix::unistd::chdir(folder)?;
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    // A server that goes away while we write to it, or a keyboard, must not end us.
    let mut ignored = SigSet::empty();
    for signal in [Signal::SIGPIPE, Signal::SIGINT, Signal::SIGHUP, Signal::SIGTERM] {
        ignored.add(signal);
    }
    ignored.thread_block()?;
    let signals = SignalFd::with_flags(&mask, nix::sys::signalfd::SfdFlags::SFD_NONBLOCK | nix::sys::signalfd::SfdFlags::SFD_CLOEXEC)?;
    let root = folder.join("oci");
    std::fs::create_dir_all(&root)?;
    mask.add(Signal::SIGPIPE);
    mask.add(Signal::SIGINT);
    mask.add(Signal::SIGHUP);
    mask.add(Signal::SIGTERM);
    let mut supervisor = Supervisor { root, folder: folder.to_path_buf(), listener, signals, mask, running: Vec::new(), watchers: Vec::new(), closing: false };
    while !(supervisor.closing && supervisor.running.is_empty()) {
        supervisor.turn()?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Supervisor {
    fn turn(&mut self) -> io::Result<()> {
        let ready = self.wait()?;
        // Highest indices first: handling one may remove it.
        for source in ready.into_iter().rev() {
            match source {
                Source::Signal => self.reap()?,
                Source::Listener => self.accept(),
                Source::Output(container, output) => self.read_output(container, output),
                Source::Attached(container, peer) => self.read_attached(container, peer),
                Source::Watcher(index) => drop(self.watchers.remove(index)),
            }
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut sources = vec![Source::Signal, Source::Listener];
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.signals.as_fd(), self.listener.as_fd()];
        for (index, running) in self.running.iter().enumerate() {
            for (number, output) in running.outputs.iter().enumerate() {
                sources.push(Source::Output(index, number));
                fds.push(output.fd.as_fd());
            }
            for (number, peer) in running.attached.iter().enumerate() {
                sources.push(Source::Attached(index, number));
                fds.push(peer.as_fd());
            }
        }
        for (index, watcher) in self.watchers.iter().enumerate() {
            sources.push(Source::Watcher(index));
            fds.push(watcher.as_fd());
        }
        let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let happened = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let mut ready: Vec<Source> = polled.iter().zip(&sources).filter(|(fd, _)| happened(fd)).map(|(_, source)| *source).collect();
        // Signals last (they are handled first to last in reverse): output is read before its container is put away.
        ready.sort_by_key(|source| u8::from(!matches!(source, Source::Signal | Source::Listener)));
        Ok(ready)
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if let Err(error) = self.serve(stream) {
                eprintln!("a request broke: {error}");
            }
        }
    }

    fn serve(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new(stream.try_clone()?).read_line(&mut line)?;
        let reply = match serde_json::from_str::<Message>(&line) {
            Ok(message) => match message.request {
                Request::Watch => {
                    answer(&stream, &Reply::Done)?;
                    self.watchers.push(stream);
                    return Ok(());
                }
                Request::Attach { id } => return self.attach(stream, &id),
                request => self.carry_out(request),
            },
            Err(error) => Reply::Refused(format!("not understood: {error}")),
        };
        answer(&stream, &reply)
    }

    fn carry_out(&mut self, request: Request) -> Reply {
        match request {
            Request::Start(start) => match self.start(*start) {
                Ok(()) => Reply::Done,
                Err(error) => Reply::StartFailed(error),
            },
            Request::Signal { id, signal } => match (self.find(&id), Signal::try_from(signal)) {
                (Some(index), Ok(signal)) => match kill(Pid::from_raw(self.running[index].pid), signal) {
                    Ok(()) | Err(Errno::ESRCH) => Reply::Done,
                    Err(error) => Reply::Refused(error.to_string()),
                },
                // A container that has ended needs no signal.
                (None, _) => Reply::Done,
                (_, Err(error)) => Reply::Refused(error.to_string()),
            },
            Request::Resize { id, columns, rows } => {
                if let Some(terminal) = self.find(&id).and_then(|index| self.running[index].terminal.as_ref()) {
                    if let Err(error) = crate::embedded::set_terminal_size(terminal.as_fd(), columns, rows) {
                        return Reply::Refused(error.to_string());
                    }
                }
                Reply::Done
            }
            Request::Shutdown => {
                self.closing = true;
                for running in &self.running {
                    // It may have ended this very moment.
                    let _ended = kill(Pid::from_raw(running.pid), Signal::SIGKILL);
                }
                Reply::Done
            }
            Request::Watch | Request::Attach { .. } => Reply::Refused("not here".to_owned()),
        }
    }

    fn find(&self, id: &str) -> Option<usize> {
        self.running.iter().position(|running| running.status.id == id)
    }

    fn start(&mut self, start: Start) -> Result<(), String> {
        let status_file = start.bundle.join("status.json");
        let result = self.try_start(start.clone());
        if let Err(error) = &result {
            let mut status = start.status;
            let now = nanoseconds();
            status.state = ContainerState::Exited { started_at: 0, finished_at: now, exit_code: 128, oom_killed: false, message: error.clone() };
            if let Err(error) = write_status(&status_file, &status) {
                eprintln!("{error}");
            }
        }
        result
    }

    fn try_start(&mut self, start: Start) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let Start { mut status, bundle, cgroup, tty, stdin } = start;
        let log = Log::open(&status.log_path).map_err(|error| text(&error))?;
        let mut builder = ContainerBuilder::new(status.id.clone(), SyscallType::default()).with_root_path(&self.root).map_err(|error| text(&error))?;
        let (mut outputs, mut input, mut console) = (Vec::new(), None, None);
        if tty {
            let path = self.folder.join(format!("c{}", status.attempt));
            remove_if_there(&path).map_err(|error| text(&error))?;
            console = Some(UnixListener::bind(&path).map_err(|error| text(&error))?);
            builder = builder.with_console_socket(Some(path));
        } else {
            let (out_reader, out_writer) = pipe()?;
            let (err_reader, err_writer) = pipe()?;
            builder = builder.with_stdout(out_writer).with_stderr(err_writer);
            if stdin {
                let (reader, writer) = pipe()?;
                builder = builder.with_stdin(reader);
                input = Some(writer);
            } else {
                builder = builder.with_stdin(OwnedFd::from(std::fs::File::open("/dev/null").map_err(|error| text(&error))?));
            }
            outputs.push(Output { fd: out_reader, stream: "stdout", partial: Partial::default() });
            outputs.push(Output { fd: err_reader, stream: "stderr", partial: Partial::default() });
        }
        // The container must not inherit what we block. What ends meanwhile is found by the sweep after it.
        self.mask.thread_unblock().map_err(|error| text(&error))?;
        let built = builder.as_init(&bundle).with_systemd(false).with_detach(true).build().and_then(|mut container| container.start().map(|()| container));
        self.mask.thread_block().map_err(|error| text(&error))?;
        let container = built.map_err(|error| crate::embedded::start_error(&error))?;
        let terminal = console.map(|listener| crate::embedded::receive_terminal(&listener)).transpose().map_err(|error| text(&error))?;
        if let Some(terminal) = &terminal {
            outputs.push(Output { fd: terminal.try_clone().map_err(|error| text(&error))?, stream: "stdout", partial: Partial::default() });
        }
        for output in &outputs {
            set_nonblocking(&output.fd).map_err(|error| text(&error))?;
        }
        let pid = container.pid().map_or(0, |pid| pid.as_raw());
        status.state = ContainerState::Running { started_at: nanoseconds(), pid };
        let status_file = bundle.join("status.json");
        write_status(&status_file, &status).map_err(|error| text(&error))?;
        self.running.push(Running { container, status, status_file, cgroup, pid, outputs, stdin: input, terminal, log, attached: Vec::new() });
        self.reap().map_err(|error| text(&error))
    }

    /// Collects every child that has ended.
    fn reap(&mut self) -> io::Result<()> {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.ended(pid.as_raw(), code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => self.ended(pid.as_raw(), 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn ended(&mut self, pid: i32, exit_code: i32) {
        let Some(index) = self.running.iter().position(|running| running.pid == pid) else { return };
        for output in (0..self.running[index].outputs.len()).rev() {
            self.read_output(index, output);
        }
        let mut running = self.running.remove(index);
        for output in &mut running.outputs {
            if let Err(error) = running.log.finish(output.stream, &mut output.partial) {
                eprintln!("{error}");
            }
        }
        let started_at = match running.status.state {
            ContainerState::Running { started_at, .. } => started_at,
            _ => 0,
        };
        let oom_killed = exit_code == 137 && crate::cgroup::was_oom_killed(&running.cgroup);
        running.status.state = ContainerState::Exited { started_at, finished_at: nanoseconds(), exit_code, oom_killed, message: String::new() };
        if let Err(error) = write_status(&running.status_file, &running.status) {
            eprintln!("{error}");
        }
        if let Err(error) = running.container.delete(true) {
            eprintln!("delete container {}: {error}", running.status.id);
        }
        let exited = Reply::Exited { id: running.status.id.clone() };
        self.watchers.retain(|watcher| answer(watcher, &exited).is_ok());
    }

    fn read_output(&mut self, container: usize, output: usize) {
        let Some(running) = self.running.get_mut(container) else { return };
        let Some(source) = running.outputs.get_mut(output) else { return };
        let mut buffer = [0; 16 * 1024];
        loop {
            match nix::unistd::read(&source.fd, &mut buffer) {
                Ok(0) | Err(Errno::EIO) => break,
                Ok(count) => {
                    let bytes = &buffer[..count];
                    if let Err(error) = running.log.write(source.stream, &mut source.partial, bytes) {
                        eprintln!("write log: {error}");
                    }
                    let stream = source.stream;
                    running.attached.retain(|peer| frame(peer, stream, bytes).is_ok());
                }
                Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        // The stream has ended.
        let mut ended = running.outputs.remove(output);
        if let Err(error) = running.log.finish(ended.stream, &mut ended.partial) {
            eprintln!("write log: {error}");
        }
    }

    fn attach(&mut self, stream: UnixStream, id: &str) -> io::Result<()> {
        match self.find(id) {
            Some(index) => {
                answer(&stream, &Reply::Done)?;
                self.running[index].attached.push(stream);
                Ok(())
            }
            None => answer(&stream, &Reply::Refused(format!("container {id} is not running"))),
        }
    }

    fn read_attached(&mut self, container: usize, peer: usize) {
        let Some(running) = self.running.get_mut(container) else { return };
        let Some(stream) = running.attached.get(peer) else { return };
        let mut buffer = [0; 16 * 1024];
        match nix::unistd::read(stream.as_fd(), &mut buffer) {
            Ok(0) | Err(_) => {
                running.attached.remove(peer);
                // The last one who could write has gone: the input ends.
                if running.attached.is_empty() && running.terminal.is_none() {
                    running.stdin = None;
                }
            }
            Ok(count) => {
                if let Some(input) = running.terminal.as_ref().or(running.stdin.as_ref()) {
                    if let Err(error) = write_all(input, &buffer[..count]) {
                        eprintln!("write standard input: {error}");
                    }
                }
            }
        }
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), String> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|error| error.to_string())
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)], PollTimeout::from(1000u16))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn answer(stream: &UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    (&*stream).write_all(&line)
}

/// One frame of output: the stream's number, the length, the bytes.
fn frame(peer: &UnixStream, stream: &str, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes();
    let mut frame = vec![if stream == "stderr" { 2 } else { 1 }];
    frame.extend_from_slice(&length);
    frame.extend_from_slice(bytes);
    (&*peer).write_all(&frame)
}

pub(crate) fn write_status(path: &Path, status: &ContainerStatus) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    std::fs::write(&unfinished, serde_json::to_vec(status)?)?;
    std::fs::rename(unfinished, path)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(crate) fn nanoseconds() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// Kept here so that both sides agree on how a descriptor becomes ours.
#[expect(unsafe_code, reason = "a descriptor that arrives in a message is a number until it is owned")]
pub(crate) fn own(fd: i32) -> OwnedFd {
    // SAFETY: the number was received by SCM_RIGHTS, which makes a descriptor that nobody else in this process knows.
    // JUSTIFICATION: nix hands received descriptors out as numbers.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

