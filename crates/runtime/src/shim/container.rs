//! One container inside its supervisor: start, streams, exit.

use super::executor::Report;
use super::logs::{Lines, LogFile, Stream};
use super::{fds, warn};
use crate::cgroup::Hierarchies;
use crate::layout::{self, ContainerDir, ContainerRecord, SandboxDir};
use crate::{ContainerState, RuntimeError};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::OFlag;
use nix::unistd::{Pid, pipe2};
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Instant;

/// Exit code of a container that could not be started, as containerd's.
const START_FAILED: i32 = 128;
/// How much is read from a stream at a time.
const READ_SIZE: usize = 32 * 1024;

/// A running container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) pid: Pid,
    pub(super) record: ContainerRecord,
    pub(super) outputs: Vec<Output>,
    /// Open while standard input was asked for; with a terminal its master.
    pub(super) stdin: Option<File>,
    /// Bytes on their way to standard input.
    pub(super) stdin_pending: Vec<u8>,
    /// Close standard input when nothing waits for it any more.
    stdin_ending: bool,
    /// When it is killed, if it is being stopped.
    pub(super) deadline: Option<Instant>,
    dir: ContainerDir,
    log: LogFile,
    started_at: i64,
}

/// One stream of a container's main process.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) file: File,
    lines: Lines,
}

struct Streams {
    outputs: Vec<(OwnedFd, Stream)>,
    stdin: Option<OwnedFd>,
}

impl Container {
    /// Starts a container whose bundle lies ready. A failure is also written as its state.
    pub(super) fn start(sandbox: &SandboxDir, id: &str) -> Result<Container, RuntimeError> {
        let dir = sandbox.container(id);
        let not_readable =
            |error: io::Error| RuntimeError::Other(format!("start container {id}: {error}"));
        let record: Option<ContainerRecord> = layout::read(&dir.record()).map_err(not_readable)?;
        let record = record.ok_or_else(|| RuntimeError::NotFound(format!("container {id}")))?;
        if layout::container_state(&dir).map_err(not_readable)? != ContainerState::Created {
            return Err(RuntimeError::Other(format!("container {id} was started before")));
        }
        launch(sandbox, &dir, record).map_err(|message| {
            let state = ContainerState::Exited {
                started_at: 0,
                finished_at: layout::now(),
                exit_code: START_FAILED,
                oom_killed: false,
                message: message.clone(),
            };
            save(&dir, &state);
            forget_run(sandbox, id);
            RuntimeError::Start(message)
        })
    }

    /// Reads what one stream has to say now: its bytes, for those attached, and whether it has ended.
    pub(super) fn read(&mut self, index: usize) -> (Vec<u8>, bool) {
        let mut buffer = vec![0; READ_SIZE];
        let Some(output) = self.outputs.get_mut(index) else { return (Vec::new(), true) };
        match output.file.read(&mut buffer) {
            Ok(0) => (Vec::new(), true),
            Ok(length) => {
                buffer.truncate(length);
                let lines = output.lines.push(&buffer, layout::now());
                self.log(&lines);
                (buffer, false)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                (Vec::new(), false)
            }
            // A terminal whose last user is gone answers with EIO.
            Err(_) => (Vec::new(), true),
        }
    }

    /// Which stream that is.
    pub(super) fn stream(&self, index: usize) -> Stream {
        self.outputs.get(index).map_or(Stream::Stdout, |output| output.lines.stream())
    }

    /// Closes a stream that has ended; what was left of a line is logged.
    pub(super) fn close(&mut self, index: usize) {
        if index < self.outputs.len() {
            let rest = self.outputs.remove(index).lines.finish(layout::now());
            self.log(&rest);
        }
    }

    fn log(&mut self, lines: &[u8]) {
        if !lines.is_empty()
            && let Err(error) = self.log.write(lines)
        {
            warn(format_args!("write the log of container {}: {error}", self.id));
        }
    }

    /// Passes on to standard input as much as it takes now.
    pub(super) fn feed(&mut self) {
        let Some(stdin) = &mut self.stdin else { return self.stdin_pending.clear() };
        if self.stdin_pending.is_empty() {
            if self.stdin_ending {
                self.stdin = None;
            }
            return;
        }
        match stdin.write(&self.stdin_pending) {
            Ok(length) => {
                drop(self.stdin_pending.drain(..length));
                if self.stdin_pending.is_empty() && self.stdin_ending {
                    self.stdin = None;
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => {
                self.stdin = None;
                self.stdin_pending.clear();
            }
        }
    }

    /// Whoever was attached has ended the input, or has left: closes it, if it is for the first one only, once what waits
    /// has been passed on.
    pub(super) fn end_input(&mut self) {
        self.stdin_ending = self.record.config.stdin_once;
        self.feed();
    }

    /// Tells a terminal its size; without one nothing happens.
    pub(super) fn resize(&self, columns: u16, rows: u16) {
        if self.record.config.tty
            && let Some(output) = self.outputs.first()
            && let Err(error) = fds::resize(&output.file, columns, rows)
        {
            warn(format_args!("resize the terminal of container {}: {error}", self.id));
        }
    }

    /// Its main process has ended and its streams have been read: writes that down for good.
    pub(super) fn finish(mut self, sandbox: &SandboxDir, exit_code: i32) {
        while !self.outputs.is_empty() {
            self.close(0);
        }
        let oom_kills =
            Hierarchies::read().map_or(0, |hierarchies| hierarchies.oom_kills(&self.record.cgroup));
        let state = ContainerState::Exited {
            started_at: self.started_at,
            finished_at: layout::now(),
            exit_code,
            oom_killed: oom_kills > 0 && exit_code != 0,
            message: String::new(),
        };
        save(&self.dir, &state);
        forget_run(sandbox, &self.id);
    }
}

fn save(dir: &ContainerDir, state: &ContainerState) {
    if let Err(error) = layout::write(&dir.state(), state) {
        warn(format_args!("write {}: {error}", dir.state().display()));
    }
}

fn forget_run(sandbox: &SandboxDir, id: &str) {
    match fs::remove_dir_all(sandbox.run().join(id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn(format_args!("forget container {id}: {error}"))
        }
        _ => {}
    }
}

fn launch(
    sandbox: &SandboxDir,
    dir: &ContainerDir,
    record: ContainerRecord,
) -> Result<Container, String> {
    let words = |what: &str, error: &dyn std::fmt::Display| {
        format!("unable to start container process: {what}: {error}")
    };
    let log =
        LogFile::open(&record.config.log_path).map_err(|error| words("open its log", &error))?;
    let (report, workload) = Report::new().map_err(|error| words("make a pipe", &error))?;
    let builder = ContainerBuilder::new(record.id.clone(), SyscallType::default())
        .with_executor(workload)
        .with_root_path(sandbox.run())
        .map_err(|error| words("libcontainer", &chain(&error)))?;
    let result = if record.config.tty {
        with_terminal(builder, dir, record.config.stdin)
    } else {
        with_pipes(builder, dir, record.config.stdin)
    };
    let (pid, streams) = match (result, report.take()) {
        (Ok(started), _) => started,
        (Err(_), Some(told)) => return Err(format!("unable to start container process: {told}")),
        (Err(error), None) => return Err(format!("unable to start container process: {error}")),
    };
    let started_at = layout::now();
    let outputs: io::Result<Vec<Output>> = streams
        .outputs
        .into_iter()
        .map(|(fd, stream)| {
            fds::set_nonblocking(&fd)?;
            Ok(Output { file: File::from(fd), lines: Lines::new(stream) })
        })
        .collect();
    let outputs = outputs.map_err(|error| words("read its output", &error))?;
    if let Some(stdin) = &streams.stdin {
        fds::set_nonblocking(stdin).map_err(|error| words("feed its input", &error))?;
    }
    save(dir, &ContainerState::Running { started_at, pid: pid.as_raw() });
    Ok(Container {
        id: record.id.clone(),
        pid,
        record,
        outputs,
        stdin: streams.stdin.map(File::from),
        stdin_pending: Vec::new(),
        stdin_ending: false,
        deadline: None,
        dir: dir.clone(),
        log,
        started_at,
    })
}

fn with_pipes(
    builder: ContainerBuilder,
    dir: &ContainerDir,
    stdin: bool,
) -> Result<(Pid, Streams), String> {
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|error| error.to_string());
    let (stdout_reader, stdout) = pipe()?;
    let (stderr_reader, stderr) = pipe()?;
    let (input, feeder): (OwnedFd, Option<OwnedFd>) = if stdin {
        let (reader, writer) = pipe()?;
        (reader, Some(writer))
    } else {
        (File::open("/dev/null").map_err(|error| error.to_string())?.into(), None)
    };
    let builder = builder.with_stdin(input).with_stdout(stdout).with_stderr(stderr);
    let pid = build(builder, &dir.0, |_| Ok(()))?;
    let outputs = vec![(stdout_reader, Stream::Stdout), (stderr_reader, Stream::Stderr)];
    Ok((pid, Streams { outputs, stdin: feeder }))
}

fn with_terminal(
    builder: ContainerBuilder,
    dir: &ContainerDir,
    stdin: bool,
) -> Result<(Pid, Streams), String> {
    let path = dir.0.join("console.sock");
    let console = Console::listen(&path).map_err(|error| error.to_string())?;
    let mut master = None;
    let pid = build(builder.with_console_socket(Some(path)), &dir.0, |()| {
        master = Some(console.accept().map_err(|error| format!("receive its terminal: {error}"))?);
        Ok(())
    })?;
    let master = master.ok_or_else(|| "it sent no terminal".to_owned())?;
    let input = stdin.then(|| master.try_clone()).transpose().map_err(|error| error.to_string())?;
    Ok((pid, Streams { outputs: vec![(master, Stream::Stdout)], stdin: input }))
}

/// Creates and starts; `between` runs after the creation.
fn build(
    builder: ContainerBuilder,
    bundle: &Path,
    mut between: impl FnMut(()) -> Result<(), String>,
) -> Result<Pid, String> {
    let words = |error: LibcontainerError| chain(&error);
    let mut container =
        builder.as_init(bundle).with_systemd(false).with_detach(true).build().map_err(words)?;
    let pid = container.pid().ok_or("libcontainer tells no process")?;
    let started = between(()).and_then(|()| container.start().map_err(words));
    if let Err(error) = started {
        // It waits for the start that will not come.
        let _ =
            nix::sys::signal::kill(Pid::from_raw(pid.as_raw()), nix::sys::signal::Signal::SIGKILL);
        return Err(error);
    }
    Ok(Pid::from_raw(pid.as_raw()))
}

/// An error with all its causes, each said once.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// Where libcontainer sends a terminal's master.
pub(super) struct Console {
    listener: UnixListener,
}

impl Console {
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (_directory, short) = layout::short_path(path)?;
        Ok(Console { listener: UnixListener::bind(short)? })
    }

    /// To be called when the process has been made: by then the master has been sent.
    pub(super) fn accept(&self) -> io::Result<OwnedFd> {
        self.listener.set_nonblocking(true)?;
        let (socket, _) = self.listener.accept()?;
        let (_, mut received) = fds::receive(&socket, &mut [0; 64])?;
        let master = received.pop().ok_or_else(|| io::Error::other("no file descriptor came"))?;
        fds::resize(&master, 80, 24)?;
        Ok(master)
    }
}
