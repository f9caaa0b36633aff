//! The supervisor of one pod sandbox, and the short-lived process behind one exec.
//!
//! Both are the same executable as the server, started with other arguments, and both are single-threaded: libcontainer forks
//! without exec and runs Rust code in the child, which is sound only where no other thread holds a lock. So nothing here may
//! start a thread or a tokio runtime.

mod container;
mod exec;
mod executor;
pub(crate) mod fds;
mod logs;
pub(crate) mod protocol;
mod sandbox;
mod serve;

use crate::layout::{self, ProcessIdentity, SandboxDir, SandboxRecord};
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

/// The program's hidden subcommand that leads here.
pub const SUBCOMMAND: &str = "shim";
/// First argument of a supervisor; the sandbox's directory follows.
pub(crate) const SANDBOX: &str = "sandbox";
/// First (and only) argument of the process behind an exec.
pub(crate) const EXEC: &str = "exec";
/// Written to standard output by a supervisor that is ready; anything else is why it is not.
pub(crate) const READY: &str = "ready";

/// Becomes a supervisor, or the process behind an exec, if the program's arguments say so (its own name and `shim` come first).
/// Must be called first thing in the program: no thread may have been started.
pub fn branch_off(arguments: &[String]) -> Option<ExitCode> {
    match arguments {
        [_, subcommand, rest @ ..] if subcommand == SUBCOMMAND => {
            Some(main(rest.iter().map(OsString::from)))
        }
        _ => None,
    }
}

/// The entry of the hidden subcommand `shim`: the program calls it before it does anything else (no thread may have been
/// started), with the arguments behind the subcommand, and ends with what it returns.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    match args.as_slice() {
        [verb, directory] if verb == SANDBOX => supervise(&SandboxDir(directory.into())),
        [verb] if verb == EXEC => exec::main(),
        _ => {
            warn(format_args!("this subcommand is for the program's own use"));
            ExitCode::FAILURE
        }
    }
}

fn supervise(dir: &SandboxDir) -> ExitCode {
    match begin(dir) {
        Ok((record, listener)) => match serve::run(dir.clone(), record, listener) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                warn(format_args!("supervise {}: {error}", dir.0.display()));
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            announce(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Makes the sandbox and says so.
fn begin(dir: &SandboxDir) -> io::Result<(SandboxRecord, UnixListener)> {
    sandbox::detach()?;
    let record: Option<SandboxRecord> = layout::read(&dir.record())?;
    let mut record = record.ok_or_else(|| io::Error::other("no sandbox.json"))?;
    sandbox::build(dir, &record)?;
    let (directory, short) = layout::short_path(&dir.socket())?;
    let listener = UnixListener::bind(short)?;
    drop(directory);
    listener.set_nonblocking(true)?;
    record.shim = ProcessIdentity::of(nix::unistd::getpid().as_raw());
    layout::write(&dir.record(), &record)?;
    announce(READY);
    Ok((record, listener))
}

/// Says one thing to who started this process, and no more.
fn announce(text: &str) {
    // If nobody listens any more there is nobody to tell.
    let _ = writeln!(io::stdout(), "{text}");
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        // Cannot fail: both are open.
        let _ = nix::unistd::dup2_stdout(null);
    }
}

/// To the sandbox's `shim.log`: a supervisor has no tracing subscriber.
fn warn(message: fmt::Arguments<'_>) {
    // A full disk must not stop the containers.
    let _ = writeln!(io::stderr(), "{} {message}", logs::rfc3339(layout::now()));
}
