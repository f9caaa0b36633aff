//! Enters a running container: a short-lived process of its own, whose streams are the caller's.

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What to run, as the server writes it into a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecFile {
    /// The OCI process, as a file.
    pub process: PathBuf,
    /// Where the process id is written.
    pub pid_file: PathBuf,
    /// A listening socket that is sent the terminal.
    pub console: Option<PathBuf>,
}

/// Runs the process and ends with its exit code.
pub(super) fn run(root: &Path, container: &str, request: &Path) -> io::Result<ExitCode> {
    let other = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
    let request: ExecFile = serde_json::from_slice(&std::fs::read(request)?)?;
    let mut builder = ContainerBuilder::new(container.to_owned(), SyscallType::default()).with_root_path(root).map_err(|error| other(&error))?;
    let detach = request.console.is_some();
    if let Some(console) = request.console {
        builder = builder.with_console_socket(Some(console));
    }
    let built = builder.with_pid_file(Some(request.pid_file)).map_err(|error| other(&error))?.as_tenant().with_detach(detach).with_process(Some(request.process)).build();
    let pid = match built {
        Ok(pid) => pid,
        Err(error) => {
            eprintln!("{}", crate::embedded::start_error(&error));
            return Ok(ExitCode::from(126));
        }
    };
    loop {
        return match waitpid(Pid::from_raw(pid.as_raw()), None) {
            Ok(WaitStatus::Exited(_, code)) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(255))),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ok(ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(255))),
            Ok(_) | Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}
