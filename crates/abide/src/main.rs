//! abide: Kubernetes StatefulSets in one small binary. The roof: the command line, and the one place where rooms are
//! put together.

mod check;
mod cli;
mod compose;
mod kubeconfig;
mod notify;
mod pki;

use clap::Parser;
use std::process::ExitCode;

/// Objects are trees of small strings, made and dropped on every way through the house.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Supervisors of pods are this same binary; they must stay single-threaded and small, so they branch off first.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "shim") {
        return runtime::shim::main(arguments);
    }
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("abide: {error:#}");
            ExitCode::FAILURE
        }
    }
}
