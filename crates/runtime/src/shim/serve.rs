//! The supervisor's loop: children, streams, requests. One thread, one poll.

use super::container::Container;
use super::logs::Stream;
use super::protocol::{self, Chunk, Event, Request, Response};
use super::warn;
use crate::RuntimeError;
use crate::layout::{SandboxDir, SandboxRecord};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// What a listener may lag behind before it is cut off: the log has everything.
const OUTBOUND_MAX: usize = 4 * 1024 * 1024;
/// Input that waits for the container; beyond it the sender has to wait.
const STDIN_MAX: usize = 256 * 1024;
/// How long an ephemeral supervisor waits for its server's first word.
const FIRST_WORD: Duration = Duration::from_secs(60);
/// Connections at a time; there is one server with a handful of requests.
const CONNECTIONS_MAX: usize = 512;

struct Supervisor {
    dir: SandboxDir,
    signals: SignalFd,
    listener: UnixListener,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    /// Only those that run.
    containers: BTreeMap<String, Container>,
    /// Set by `Shutdown`: ends when the last container has.
    closing: bool,
    /// For an ephemeral sandbox: by when somebody must listen. `None` while somebody does, and for all others.
    orphaned: Option<Instant>,
}

struct Connection {
    stream: UnixStream,
    inbound: Vec<u8>,
    outbound: Vec<u8>,
    role: Role,
    dead: bool,
}

#[derive(PartialEq)]
enum Role {
    /// Has asked nothing yet.
    Fresh,
    /// Its answer is on the way; then it is closed.
    Answered,
    /// Waits for a container's end.
    Stopping(String),
    /// Waits for the end of all.
    ShuttingDown,
    Subscribed,
    Attached(String),
}

#[derive(Clone)]
enum Token {
    Signals,
    Listener,
    Connection(u64),
    Output(String, usize),
    Stdin(String),
}

/// Serves until it is told to shut down.
pub(super) fn run(
    dir: SandboxDir,
    record: SandboxRecord,
    listener: UnixListener,
) -> io::Result<()> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let mut supervisor = Supervisor {
        dir,
        signals,
        listener,
        connections: BTreeMap::new(),
        next_connection: 0,
        containers: BTreeMap::new(),
        closing: false,
        orphaned: record.ephemeral.then(|| Instant::now() + FIRST_WORD),
    };
    while !supervisor.is_done() {
        for (token, ready) in supervisor.wait()? {
            supervisor.handle(token, ready);
        }
        supervisor.enforce_deadlines();
        let listened_to = supervisor.is_listened_to();
        supervisor.connections.retain(|_, connection| !connection.is_over());
        if record.ephemeral {
            supervisor.mind_the_server(listened_to);
        }
    }
    if record.ephemeral && !supervisor.is_listened_to() {
        // Nobody is left who would. What the other sandboxes use stays.
        let hierarchies = crate::cgroup::Hierarchies::read()?;
        hierarchies.remove(&record.cgroup)?;
        if let Some((parent, _)) = record.cgroup.rsplit_once('/') {
            hierarchies.remove_if_empty(parent);
        }
    }
    match fs::remove_file(supervisor.dir.socket()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Supervisor {
    fn is_done(&self) -> bool {
        self.closing
            && self.containers.is_empty()
            && self.connections.values().all(|c| c.outbound.is_empty())
    }

    fn is_listened_to(&self) -> bool {
        self.connections.values().any(|connection| connection.role == Role::Subscribed)
    }

    /// The server listens as long as it lives.
    fn mind_the_server(&mut self, listened_to: bool) {
        let now = Instant::now();
        if self.is_listened_to() {
            self.orphaned = None;
        } else if listened_to {
            self.orphaned = Some(now);
        }
        if self.orphaned.is_some_and(|since| since <= now) && !self.closing {
            self.shut_down();
        }
    }

    fn shut_down(&mut self) {
        self.closing = true;
        for container in self.containers.values() {
            // It may have ended just now.
            let _ = kill(container.pid, Signal::SIGKILL);
        }
    }

    fn wait(&mut self) -> io::Result<Vec<(Token, PollFlags)>> {
        let interests = self.interests();
        let mut fds: Vec<PollFd<'_>> =
            interests.iter().map(|(_, fd, flags)| PollFd::new(*fd, *flags)).collect();
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let ready: Vec<_> = interests.iter().map(|(token, ..)| token.clone()).zip(ready).collect();
        Ok(ready.into_iter().filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn interests(&self) -> Vec<(Token, BorrowedFd<'_>, PollFlags)> {
        let mut interests = vec![(Token::Signals, self.signals.as_fd(), PollFlags::POLLIN)];
        if self.connections.len() < CONNECTIONS_MAX {
            interests.push((Token::Listener, self.listener.as_fd(), PollFlags::POLLIN));
        }
        for (id, connection) in &self.connections {
            let mut flags = PollFlags::empty();
            let full = match &connection.role {
                Role::Attached(name) => {
                    self.containers.get(name).is_some_and(|c| c.stdin_pending.len() > STDIN_MAX)
                }
                _ => false,
            };
            if !full {
                flags |= PollFlags::POLLIN;
            }
            if !connection.outbound.is_empty() {
                flags |= PollFlags::POLLOUT;
            }
            interests.push((Token::Connection(*id), connection.stream.as_fd(), flags));
        }
        for container in self.containers.values() {
            for (index, output) in container.outputs.iter().enumerate() {
                interests.push((
                    Token::Output(container.id.clone(), index),
                    output.file.as_fd(),
                    PollFlags::POLLIN,
                ));
            }
            if let Some(stdin) =
                container.stdin.as_ref().filter(|_| !container.stdin_pending.is_empty())
            {
                interests.push((
                    Token::Stdin(container.id.clone()),
                    stdin.as_fd(),
                    PollFlags::POLLOUT,
                ));
            }
        }
        interests
    }

    fn timeout(&self) -> PollTimeout {
        let deadlines = self.containers.values().filter_map(|container| container.deadline);
        let next = deadlines.chain(self.orphaned.filter(|_| !self.closing)).min();
        let Some(next) = next else { return PollTimeout::NONE };
        let millis = next.saturating_duration_since(Instant::now()).as_millis().saturating_add(1);
        PollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
    }

    fn handle(&mut self, token: Token, ready: PollFlags) {
        match token {
            Token::Signals => self.reap(),
            Token::Listener => self.accept(),
            Token::Connection(id) => self.converse(id, ready),
            Token::Output(id, index) => drop(self.forward(&id, index)),
            Token::Stdin(id) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.feed();
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let connection = Connection {
                stream,
                inbound: Vec::new(),
                outbound: Vec::new(),
                role: Role::Fresh,
                dead: false,
            };
            self.connections.insert(self.next_connection, connection);
            self.next_connection += 1;
        }
    }

    /// Reads one stream of a container once, for its log and for those attached.
    fn forward(&mut self, id: &str, index: usize) -> usize {
        let Some(container) = self.containers.get_mut(id) else { return 0 };
        let stream = container.stream(index);
        let (data, ended) = container.read(index);
        if ended {
            container.close(index);
        }
        let length = data.len();
        if length > 0 {
            let chunk = match stream {
                Stream::Stdout => Chunk::Stdout(data),
                Stream::Stderr => Chunk::Stderr(data),
            };
            self.tell_attached(id, &chunk);
        }
        length
    }

    fn tell_attached(&mut self, id: &str, chunk: &Chunk) {
        let attached = self
            .connections
            .values_mut()
            .filter(|c| matches!(&c.role, Role::Attached(name) if name == id));
        let mut bytes = None;
        for connection in attached {
            connection.send(bytes.get_or_insert_with(|| chunk.encode()));
        }
    }

    fn reap(&mut self) {
        // Read only so that the descriptor falls silent; who has ended is asked below.
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.ended(pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => self.ended(pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    fn ended(&mut self, pid: Pid, exit_code: i32) {
        let id =
            self.containers.values().find(|container| container.pid == pid).map(|c| c.id.clone());
        // Others are orphans of an exec, or processes that libcontainer needed on its way.
        let Some(id) = id else { return };
        // With the first process of a pid namespace all others in it are dead: what is in the pipes is all that will come.
        let mut index = 0;
        while let Some(open) =
            self.containers.get(&id).map(|container| container.outputs.len()).filter(|n| index < *n)
        {
            let silent = self.forward(&id, index) == 0;
            let still_open =
                self.containers.get(&id).is_some_and(|container| container.outputs.len() == open);
            if silent && still_open {
                index += 1;
            }
        }
        let Some(container) = self.containers.remove(&id) else { return };
        container.finish(&self.dir, exit_code);
        self.tell_attached(&id, &Chunk::Exit(exit_code));
        let last = self.containers.is_empty();
        for connection in self.connections.values_mut() {
            match &connection.role {
                Role::Stopping(name) if *name == id => connection.answer(&Response::Done),
                Role::ShuttingDown if last => connection.answer(&Response::Done),
                Role::Attached(name) if *name == id => connection.role = Role::Answered,
                Role::Subscribed => connection.send_frame(&Event::Exited { container: id.clone() }),
                _ => {}
            }
        }
    }

    fn enforce_deadlines(&mut self) {
        let now = Instant::now();
        for container in self.containers.values_mut() {
            if container.deadline.is_some_and(|deadline| deadline <= now) {
                container.deadline = None;
                // With the first process of the pid namespace all others die. It may have ended just now.
                let _ = kill(container.pid, Signal::SIGKILL);
            }
        }
    }

    fn converse(&mut self, id: u64, ready: PollFlags) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if ready.contains(PollFlags::POLLOUT) {
            connection.flush();
        }
        if ready.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            connection.receive();
        }
        match &connection.role {
            Role::Fresh => match protocol::decode(&mut connection.inbound) {
                Ok(None) => {}
                Ok(Some(request)) => self.answer(id, request),
                Err(error) => {
                    connection.answer(&Response::failed(RuntimeError::Other(error.to_string())))
                }
            },
            Role::Attached(name) => {
                let name = name.clone();
                self.take_input(id, &name);
            }
            _ => connection.inbound.clear(),
        }
    }

    fn take_input(&mut self, id: u64, name: &str) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(container) = self.containers.get_mut(name) else { return };
        loop {
            match Chunk::decode(&mut connection.inbound) {
                Ok(Some(Chunk::Stdin(data))) if container.stdin.is_some() => {
                    container.stdin_pending.extend_from_slice(&data);
                    container.feed();
                }
                Ok(Some(Chunk::Resize { columns, rows })) => container.resize(columns, rows),
                Ok(Some(Chunk::StdinEnd)) => container.end_input(),
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) => {
                    connection.dead = true;
                    return;
                }
            }
        }
    }

    fn answer(&mut self, id: u64, request: Request) {
        let (role, response) = match self.act(request) {
            Ok(step) => step,
            Err(error) => (Role::Answered, Some(Response::failed(error))),
        };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if let Some(response) = response {
            connection.send_frame(&response);
        }
        connection.role = role;
    }

    fn act(&mut self, request: Request) -> Result<(Role, Option<Response>), RuntimeError> {
        let done = (Role::Answered, Some(Response::Done));
        match request {
            Request::Start { .. } if self.closing => {
                Err(RuntimeError::Other("the sandbox is being stopped".into()))
            }
            Request::Start { container } => {
                if self.containers.contains_key(&container) {
                    return Err(RuntimeError::Other(format!(
                        "container {container} was started before"
                    )));
                }
                let started = Container::start(&self.dir, &container)?;
                self.containers.insert(container, started);
                Ok(done)
            }
            Request::Stop { container, grace_millis } => {
                if !self.stop(&container, grace_millis) {
                    return Ok(done);
                }
                Ok((Role::Stopping(container), None))
            }
            Request::Subscribe => Ok((Role::Subscribed, Some(Response::Done))),
            Request::Attach { container } => {
                let Some(found) = self.containers.get(&container) else {
                    return Err(RuntimeError::NotRunning(container));
                };
                let response = Response::Attached {
                    stdin: found.stdin.is_some(),
                    tty: found.record.config.tty,
                };
                Ok((Role::Attached(container), Some(response)))
            }
            Request::Shutdown => {
                self.shut_down();
                if self.containers.is_empty() { Ok(done) } else { Ok((Role::ShuttingDown, None)) }
            }
        }
    }

    /// Asks a container to end; whether it runs.
    fn stop(&mut self, id: &str, grace_millis: u64) -> bool {
        let Some(container) = self.containers.get_mut(id) else { return false };
        let now = Instant::now();
        // A second stop may shorten the first one's grace, never lengthen it. A day is for ever.
        let deadline = now + Duration::from_millis(grace_millis.min(86_400_000));
        container.deadline =
            Some(container.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        if grace_millis > 0
            && let Err(error) = raw_kill(container.pid, container.record.stop_signal)
        {
            warn(format_args!(
                "send signal {} to container {id}: {error}",
                container.record.stop_signal
            ));
        }
        true
    }
}

/// Also real-time signals, which nix cannot name but images ask for (`SIGRTMIN+3`).
#[expect(unsafe_code, reason = "nix cannot name real-time signals")]
fn raw_kill(pid: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: plain numbers; an invalid signal is answered with an error.
    // JUSTIFICATION: nix cannot name real-time signals.
    let result = unsafe { libc::kill(pid.as_raw(), signal) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Connection {
    fn is_over(&self) -> bool {
        self.dead || (self.role == Role::Answered && self.outbound.is_empty())
    }

    fn receive(&mut self) {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.dead = true,
            Ok(length) => self.inbound.extend_from_slice(&buffer[..length]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => self.dead = true,
        }
        if self.inbound.len() > 2 * protocol::FRAME_MAX {
            self.dead = true;
        }
    }

    fn answer(&mut self, response: &Response) {
        self.send_frame(response);
        self.role = Role::Answered;
    }

    fn send_frame<T: serde::Serialize>(&mut self, body: &T) {
        match protocol::encode(body) {
            Ok(frame) => self.send(&frame),
            Err(error) => {
                warn(format_args!("answer: {error}"));
                self.dead = true;
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.outbound.extend_from_slice(bytes);
        self.flush();
        if self.outbound.len() > OUTBOUND_MAX {
            self.dead = true;
        }
    }

    fn flush(&mut self) {
        while !self.outbound.is_empty() {
            match self.stream.write(&self.outbound) {
                Ok(length) => drop(self.outbound.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.dead = true;
                    self.outbound.clear();
                }
            }
        }
    }
}
