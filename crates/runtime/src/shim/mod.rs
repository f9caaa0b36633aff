//! The supervisor of one pod: a small single-threaded process that owns the pod's containers, their logs and exit
//! codes, and outlives whoever started it.
//!
//! It is this same binary under another first argument. It must have one thread: containers are made by `clone`, and
//! their first code runs in a copy of this process.

mod exec;
mod log;
pub mod protocol;
mod supervisor;

use std::process::ExitCode;

/// First argument of a supervisor: `shim DIRECTORY`. Its listening socket is its standard input.
pub const SHIM: &str = "shim";
/// First argument of a process that enters a container: `shim-exec DIRECTORY CONTAINER REQUEST`.
pub const EXEC: &str = "shim-exec";

/// Becomes a supervisor, if the arguments say so. Must be called first thing in `main`.
pub fn branch_off(arguments: &[String]) -> Option<ExitCode> {
    let result = match arguments.get(1).map(String::as_str)? {
        SHIM => supervisor::run(arguments.get(2)?.as_ref()),
        EXEC => exec::run(arguments.get(2)?.as_ref(), arguments.get(3)?, arguments.get(4)?.as_ref()),
        _ => return None,
    };
    Some(result.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(255)
    }))
}

pub use exec::ExecFile;
pub(crate) use supervisor::{nanoseconds as now, own, write_status as supervisor_status};
