//! The command of a throw-away cluster, with signals as its user would have given them: the processes around it hold
//! some back, and a child inherits that.

use anyhow::Result;
use nix::sys::signal::SigSet;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The command.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl Arguments {
    /// Becomes the command. Returns only if it cannot, with the exit status that shells have for that.
    pub(crate) fn run(self) -> Result<ExitCode> {
        SigSet::empty().thread_set_mask()?;
        let Some((program, arguments)) = self.command.split_first() else {
            return Ok(ExitCode::from(127));
        };
        let error = Command::new(program).args(arguments).exec();
        eprintln!("abide: start {program}: {error}");
        Ok(ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }))
    }
}
