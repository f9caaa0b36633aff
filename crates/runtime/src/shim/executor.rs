//! The last steps of a container's process before it becomes the user's program.

#![expect(
    unsafe_code,
    reason = "signal dispositions are the whole process', and libc offers no other way to reset them"
)]

use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::sys::signal::{SigSet, Signal};
use oci_spec::runtime::Spec;
use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Looks the program up in the words users know from runc, and starts it with signals as a fresh process has them.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// Where to say why the program cannot be started.
    report: RawFd,
}

/// The other end of [`Workload`]: why the program could not be started.
#[derive(Debug)]
pub(crate) struct Report {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Report {
    pub(crate) fn new() -> nix::Result<(Self, Workload)> {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let report = writer.as_raw_fd();
        Ok((Report { reader, writer }, Workload { report }))
    }

    /// What was said; `None` if nothing was. To be asked after the process has been started or has failed.
    pub(crate) fn take(self) -> Option<String> {
        drop(self.writer);
        nix::fcntl::fcntl(
            self.reader.as_fd(),
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
        )
        .ok()?;
        let mut text = Vec::new();
        // A process that still holds the other end has said all it will say: what was read until then is kept.
        let _ = std::fs::File::from(self.reader).take(4096).read_to_end(&mut text);
        (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
    }
}

impl Workload {
    fn refuse(&self, message: String) -> ExecutorValidationError {
        // SAFETY: the pipe's writing end stays open in the parent until `Report::take`, and this process is its child, which
        // closes file descriptors only by exec.
        // JUSTIFICATION: the value is cloned by libcontainer, so it cannot own the descriptor.
        let report = unsafe { BorrowedFd::borrow_raw(self.report) };
        // The same text travels in the error; only its exact words would be lost.
        let _ = nix::unistd::write(report, message.as_bytes());
        ExecutorValidationError::ArgValidationError(message)
    }
}

impl Executor for Workload {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let (program, search) = program(spec);
        find(&program, &search).map(drop).map_err(|message| self.refuse(message))
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args =
            spec.process().as_ref().and_then(|process| process.args().clone()).unwrap_or_default();
        let (program, search) = program(spec);
        let path = find(&program, &search).map_err(ExecutorError::Other)?;
        let path =
            CString::new(path.as_os_str().as_bytes()).map_err(|_| ExecutorError::InvalidArg)?;
        let args: Result<Vec<_>, _> = args.into_iter().map(CString::new).collect();
        let args = args.map_err(|_| ExecutorError::InvalidArg)?;
        fresh_signals();
        // The supervisor is gone: so are its containers, for nobody would keep their logs and exit codes any more.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
            .map_err(|error| ExecutorError::Other(error.to_string()))?;
        let error = match nix::unistd::execv(&path, &args) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        // Into the container's own log, as runc does: whoever started it has been told that it runs.
        let message = format!("exec {program}: {}\n", describe(error));
        let _ = nix::unistd::write(std::io::stderr().as_fd(), message.as_bytes());
        Err(ExecutorError::Other(message))
    }
}

/// The supervisor blocks and ignores signals that a program expects to get.
fn fresh_signals() {
    // The kernel's `struct sigaction` for the default: all zeros.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: the kernel reads the structure, whose mask has eight bytes, and runs no code of ours for a default disposition;
        // signals that cannot be set answer with an error.
        // JUSTIFICATION: the C library keeps 32 and 33 to itself, but has `posix_spawn` leave them ignored.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<libc::c_void>(),
                8_usize,
            )
        };
    }
    // Fails only for an invalid set.
    let _ = SigSet::empty().thread_set_mask();
}

fn program(spec: &Spec) -> (String, String) {
    let process = spec.process().as_ref();
    let program =
        process.and_then(|process| process.args().as_ref()?.first().cloned()).unwrap_or_default();
    let environment = process.and_then(|process| process.env().clone()).unwrap_or_default();
    let search =
        environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    (program, search.to_owned())
}

/// As Go's `exec.LookPath`, whose words runc's users know.
fn find(program: &str, search: &str) -> Result<PathBuf, String> {
    if program.contains('/') {
        return match check(Path::new(program)) {
            Ok(()) => Ok(PathBuf::from(program)),
            Err(nix::Error::ENOENT) => {
                Err(format!("exec: \"{program}\": stat {program}: no such file or directory"))
            }
            Err(error) => Err(format!("exec: \"{program}\": {}", describe(error))),
        };
    }
    let directories =
        search.split(':').map(|directory| if directory.is_empty() { "." } else { directory });
    directories
        .map(|directory| Path::new(directory).join(program))
        .find(|path| !program.is_empty() && check(path).is_ok())
        .ok_or_else(|| format!("exec: \"{program}\": executable file not found in $PATH"))
}

fn check(path: &Path) -> nix::Result<()> {
    let found = nix::sys::stat::stat(path)?;
    if found.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(nix::Error::EISDIR);
    }
    let executable = nix::unistd::faccessat(
        nix::fcntl::AT_FDCWD,
        path,
        nix::unistd::AccessFlags::X_OK,
        nix::fcntl::AtFlags::AT_EACCESS,
    );
    executable.map_err(|_| nix::Error::EACCES)
}

fn describe(error: nix::Error) -> String {
    error.desc().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_are_told_in_the_words_of_runc() {
        let told = |program: &str| find(program, "/nowhere:/bin").unwrap_err();
        assert_eq!(told("foo-bar"), "exec: \"foo-bar\": executable file not found in $PATH");
        assert_eq!(
            told("/no/such"),
            "exec: \"/no/such\": stat /no/such: no such file or directory"
        );
        assert_eq!(told("/etc"), "exec: \"/etc\": is a directory");
        assert_eq!(told("/etc/passwd"), "exec: \"/etc/passwd\": permission denied");
        assert_eq!(told(""), "exec: \"\": executable file not found in $PATH");
        assert_eq!(find("sh", "/nowhere:/bin").unwrap(), Path::new("/bin/sh"));
    }
}
