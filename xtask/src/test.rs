//! `cargo xtask test`: everything that CI runs, in the order in which it fails soonest.

use crate::{cargo, images, root, step, system, target, tidy, tutorials};
use anyhow::{Context, Result, ensure};
use std::process::Command;

/// Images that end-to-end tests use.
const IMAGES: &[&str] = &[
    "rabbitmq:3-management",
    "postgres:15",
    "mariadb:10.11",
    "mysql:8.0",
    "quay.io/coreos/etcd:v3.5.21",
    "redis:7",
    "nginx:1.12",
    "nginx:1.13",
    "appropriate/curl",
    "busybox",
];

/// Runs everything, or the tests whose names contain `filter`.
pub(crate) fn run(filter: Option<&str>) -> Result<()> {
    system::need_root()?;
    system::install()?;
    if filter.is_none() {
        tidy::run()?;
        tutorials::run(true)?;
        if component("fmt") {
            step(&mut cargo(&["fmt", "--all", "--check"]))?;
        }
        if component("clippy") {
            step(&mut cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--quiet",
                "--",
                "-D",
                "warnings",
            ]))?;
        }
    }
    images::build(IMAGES)?;
    system::docker_registry()?;
    step(&mut cargo(&["build", "--workspace", "--bins"]))?;
    if filter.is_none() {
        compat(true)?;
    }
    tests(filter)?;
    if filter.is_none() {
        step(
            cargo(&["doc", "--workspace", "--no-deps", "--quiet", "--keep-going"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        )?;
    }
    Ok(())
}

fn tests(filter: Option<&str>) -> Result<()> {
    let mut command = if nextest() {
        cargo(&["nextest", "run", "--workspace", "--no-fail-fast"])
    } else {
        cargo(&["test", "--workspace", "--no-fail-fast", "--tests", "--"])
    };
    if let Some(filter) = filter {
        command.arg(filter);
    }
    step(
        command
            .env("PATH", system::path_with_kubectl()?)
            .env("ABIDE_BINARY", target().join("debug/abide"))
            .env("ABIDE_IMAGES", target().join("images")),
    )
}

/// Explores further than `cargo xtask test` does, and prints what was visited. Takes minutes and some GiB of memory.
pub(crate) fn model() -> Result<()> {
    let arguments =
        ["test", "--workspace", "--test", "model", "--", "--nocapture", "--test-threads=2"];
    step(cargo(&arguments).env("ABIDE_MODEL", "large"))
}

/// Compares (or writes) docs/compatibility.md with what the kinds say of themselves.
pub(crate) fn compat(check: bool) -> Result<()> {
    step(&mut cargo(&["build", "--workspace", "--bins", "--quiet"]))?;
    let output = Command::new(target().join("debug/abide"))
        .arg("compatibility")
        .output()
        .context("abide compatibility")?;
    ensure!(
        output.status.success(),
        "abide compatibility: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let file = root().join("docs/compatibility.md");
    if check {
        let stored = std::fs::read(&file).unwrap_or_default();
        ensure!(
            stored == output.stdout,
            "docs/compatibility.md is not current: run `cargo xtask compat`"
        );
    } else {
        std::fs::write(&file, &output.stdout)?;
    }
    Ok(())
}

fn component(name: &str) -> bool {
    let found = cargo(&[name, "--version"]).output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("cargo {name} is not installed: this check is skipped");
    }
    found
}

fn nextest() -> bool {
    cargo(&["nextest", "--version"]).output().is_ok_and(|output| output.status.success())
}
