//! The command line. One file a command.

mod backup;
mod compatibility;
mod doctor;
mod image;
pub(crate) mod pulling;
mod run;
pub(crate) mod server;
mod stop_pods;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Kubernetes StatefulSets in one small binary.
#[derive(Debug, Parser)]
#[command(name = "abide", version, about, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Control plane and node agent in one process, in the foreground.
    Server(server::Arguments),
    /// A throw-away cluster in namespaces of its own, for the life of a command.
    Run(run::Arguments),
    /// The images that containers are made from.
    #[command(subcommand)]
    Image(image::Command),
    /// Writes a cluster's state, its keys and, on request, its volumes into one file.
    Backup(backup::Backup),
    /// Makes a data directory from a backup.
    Restore(backup::Restore),
    /// Stops every pod of this machine, which outlive their server. State and volumes stay.
    StopPods(stop_pods::Arguments),
    /// Says why something is not up, and what to do; for any Kubernetes cluster.
    Doctor(doctor::Arguments),
    /// Prints the admin kubeconfig of a server on this machine.
    Kubeconfig {
        /// The server's data directory.
        #[arg(long, default_value = "/var/lib/abide")]
        data_dir: std::path::PathBuf,
    },
    /// Prints the version of abide and of the Kubernetes API types it is built on.
    Version,
    /// Prints completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// The first process of a throw-away cluster.
    #[command(hide = true)]
    RunInit(run::init::Arguments),
    /// The command of a throw-away cluster.
    #[command(hide = true, name = "run-command")]
    Become(run::command::Arguments),
    /// Removes what a throw-away cluster leaves in the machine, once its end is near.
    #[command(hide = true)]
    RunReaper(run::reaper::Arguments),
    /// Prints the manual page.
    #[command(hide = true)]
    Manual,
    /// Prints docs/compatibility.md.
    #[command(hide = true)]
    Compatibility,
}

impl Cli {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Server(arguments) => arguments.run(),
            Command::Run(arguments) => arguments.run(),
            Command::Image(command) => command.run(),
            Command::Backup(arguments) => arguments.run(),
            Command::Restore(arguments) => arguments.run(),
            Command::StopPods(arguments) => arguments.run(),
            Command::Doctor(arguments) => arguments.run(),
            Command::Kubeconfig { data_dir } => print_kubeconfig(&data_dir),
            Command::Version => Ok(print(&format!(
                "abide {}\nKubernetes API {}\n",
                env!("CARGO_PKG_VERSION"),
                apiserver::KUBERNETES_VERSION
            ))),
            Command::Completions { shell } => {
                let mut text = Vec::new();
                clap_complete::generate(
                    shell,
                    &mut <Cli as clap::CommandFactory>::command(),
                    "abide",
                    &mut text,
                );
                Ok(print(&String::from_utf8_lossy(&text)))
            }
            Command::RunInit(arguments) => arguments.run(),
            Command::Become(arguments) => arguments.run(),
            Command::RunReaper(arguments) => arguments.run(),
            Command::Manual => {
                let mut text = Vec::new();
                clap_mangen::Man::new(<Cli as clap::CommandFactory>::command())
                    .render(&mut text)?;
                Ok(print(&String::from_utf8_lossy(&text)))
            }
            Command::Compatibility => Ok(print(&compatibility::table())),
        }
    }
}

fn print_kubeconfig(data_dir: &std::path::Path) -> Result<ExitCode> {
    use anyhow::Context;
    let path = data_dir.join("kubeconfig");
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "read {}: is a server running with --data-dir {}?",
            path.display(),
            data_dir.display()
        )
    })?;
    Ok(print(&text))
}

/// Writes to standard output; a reader that has gone away is no failure.
fn print(text: &str) -> ExitCode {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
