//! The project's own commands: `cargo xtask demo`, `cargo xtask test` and what they are made of.

mod bench;
mod demo;
mod dist;
mod images;
mod system;
mod test;
mod tidy;
mod tutorials;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "abide's own build, test and demo commands")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that CI runs: formatting, lints, the rooms' rules, unit, privileged and end-to-end tests.
    Test {
        /// Only the tests whose names contain this.
        filter: Option<String>,
    },
    /// A StatefulSet on real containers, step by step, with the kubectl line behind each step.
    Demo {
        /// Build without optimisation (quicker to build, slower to run).
        #[arg(long)]
        debug: bool,
    },
    /// Builds container images from Debian's packages under the public names that manifests use.
    Images {
        /// Which; all if none is named.
        names: Vec<String>,
        /// List the names that can be built.
        #[arg(long)]
        list: bool,
    },
    /// A Debian package: the binary, its service, its manual and its completions.
    Dist(dist::Arguments),
    /// The demo's steps, run inside its cluster.
    #[command(hide = true)]
    DemoInside,
    /// Our side of the performance table.
    Bench {
        /// Only the rows whose names contain this.
        filter: Option<String>,
        /// How often each row is measured.
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// Without optimisation: to try the bench itself.
        #[arg(long)]
        debug: bool,
    },
    /// The larger exploration of the StatefulSet planner: one more move of a user, one more fault, in each scene.
    Model,
    /// Checks who may depend on whom, and that nothing is forgotten.
    Tidy,
    /// Writes docs/compatibility.md from the kinds' own descriptions (or checks that it is current).
    Compat {
        /// Only check.
        #[arg(long)]
        check: bool,
    },
    /// Writes docs/tutorials.md: which line of which tutorial is proved by which test (or checks that it is current).
    Tutorials {
        /// Only check.
        #[arg(long)]
        check: bool,
    },
    /// Installs the distribution's packages that tests and the demo need.
    Setup,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Task::Test { filter } => test::run(filter.as_deref()),
        Task::Demo { debug } => demo::run(debug),
        Task::Dist(arguments) => dist::run(arguments),
        Task::DemoInside => demo::inside(),
        Task::Images { names, list } => images::run(&names, list),
        Task::Bench { filter, runs, debug } => bench::run(filter.as_deref(), runs, debug),
        Task::Model => test::model(),
        Task::Tidy => tidy::run(),
        Task::Compat { check } => test::compat(check),
        Task::Tutorials { check } => tutorials::run(check),
        Task::Setup => system::install(),
    }
}

/// The top of the checkout.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the checkout")
        .to_path_buf()
}

/// Where build output goes.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// `cargo`, as it was called, at the top of the checkout. What the outer one told this program about its package is not
/// handed on: build scripts take it for their own, and would build again what is built.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let told = name.to_string_lossy();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command.args(arguments).current_dir(root());
    command
}

/// Runs a command, shows it first, and fails if it fails.
fn step(command: &mut Command) -> Result<()> {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let line = words.join(" ");
    eprintln!(
        "\x1b[1m> {}\x1b[0m",
        line.rsplit_once("/bin/").map_or(line.as_str(), |(_, tail)| tail)
    );
    let status = command.status().map_err(|e| anyhow::anyhow!("start {line}: {e}"))?;
    anyhow::ensure!(status.success(), "{line}: {status}");
    Ok(())
}
