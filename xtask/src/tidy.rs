//! The rules of the house that no compiler checks: who may depend on whom, and that nothing is forgotten.

use crate::root;
use anyhow::{Result, ensure};
use cargo_metadata::{DependencyKind, MetadataCommand};
use std::path::{Path, PathBuf};

/// What a room may depend on: other rooms, and (where it is restricted) libraries that it must not use.
struct Room {
    name: &'static str,
    rooms: &'static [&'static str],
    never: &'static [&'static str],
}

/// The table of rooms. A new edge is a reviewed change to this table.
const ROOMS: &[Room] = &[
    Room { name: "api", rooms: &[], never: &["tokio", "kube", "axum", "futures"] },
    Room {
        name: "planner",
        rooms: &["api"],
        never: &["tokio", "kube", "axum", "futures", "rand", "nix", "rustix", "libc"],
    },
    Room { name: "store", rooms: &[], never: &["k8s-openapi", "kube"] },
    Room { name: "runtime", rooms: &[], never: &["k8s-openapi", "kube"] },
    Room { name: "network", rooms: &[], never: &["kube"] },
    Room { name: "apiserver", rooms: &["api", "store"], never: &[] },
    Room { name: "controllers", rooms: &["api", "planner"], never: &[] },
    Room { name: "node", rooms: &["api", "network", "planner", "runtime"], never: &[] },
    Room { name: "doctor", rooms: &["api"], never: &["tokio"] },
    Room { name: "testkit", rooms: &["api", "apiserver", "store"], never: &[] },
    Room {
        name: "abide",
        rooms: &[
            "api",
            "apiserver",
            "controllers",
            "doctor",
            "network",
            "node",
            "planner",
            "runtime",
            "store",
        ],
        never: &[],
    },
    Room { name: "mutants", rooms: &["api"], never: &["tokio", "kube"] },
    Room { name: "e2e", rooms: &[], never: &["kube"] },
    Room { name: "xtask", rooms: &[], never: &["kube", "tokio", "k8s-openapi"] },
];

/// Runs all checks and reports every finding.
pub(crate) fn run() -> Result<()> {
    let mut findings = dependencies()?;
    let sources = sources(&root())?;
    findings.extend(forbidden_words(&sources)?);
    findings.extend(forgotten_tests(&sources)?);
    findings.extend(forgotten_kinds()?);
    findings.extend(decisions()?);
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    ensure!(findings.is_empty(), "{} finding(s)", findings.len());
    eprintln!("tidy: {} source files, {} rooms, nothing to say", sources.len(), ROOMS.len());
    Ok(())
}

fn dependencies() -> Result<Vec<String>> {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec()?;
    let members: Vec<String> =
        metadata.packages.iter().map(|package| package.name.to_string()).collect();
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let name = package.name.to_string();
        let Some(room) = ROOMS.iter().find(|room| room.name == name) else {
            findings
                .push(format!("package {name} is not in the table of rooms (xtask/src/tidy.rs)"));
            continue;
        };
        if package.publish != Some(Vec::new()) {
            findings.push(format!("package {name} wants `publish = false`"));
        }
        for dependency in package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal) {
            if members.contains(&dependency.name) && !room.rooms.contains(&dependency.name.as_str())
            {
                findings.push(format!("{name} must not know {}", dependency.name));
            }
            if room.never.contains(&dependency.name.as_str()) {
                findings.push(format!("{name} must not use the library {}", dependency.name));
            }
        }
    }
    Ok(findings)
}

/// Every Rust source file that the project has.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.join("crates"), root.join("tests"), root.join("xtask")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn forbidden_words(sources: &[PathBuf]) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    // Written in pieces, so that this file does not find itself.
    let ignore = concat!("#[", "ignore");
    let todo = concat!("TO", "DO");
    let unsafe_block = concat!("unsafe", " {");
    for path in sources {
        let text = std::fs::read_to_string(path)?;
        let shown = path.strip_prefix(root()).unwrap_or(path).display().to_string();
        for (number, line) in text.lines().enumerate() {
            let at = format!("{shown}:{}", number + 1);
            if line.contains(ignore) {
                findings.push(format!("{at}: a test that is ignored proves nothing"));
            }
            if line.contains(todo) && !line.contains(concat!("TO", "DO(#")) {
                findings.push(format!("{at}: work left undone needs an issue's number"));
            }
            if line.contains(unsafe_block) && !shown.starts_with("crates/runtime/") {
                findings.push(format!("{at}: only the room `runtime` may be unsafe"));
            }
        }
        if shown.ends_with("/lib.rs") && !text.starts_with("//!") {
            findings.push(format!("{shown}: a room's door says what the room is for"));
        }
    }
    Ok(findings)
}

/// A file beside a `main.rs` of tests that its `main.rs` does not name is never run.
fn forgotten_tests(sources: &[PathBuf]) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for main in sources
        .iter()
        .filter(|path| path.ends_with("main.rs") && path.iter().any(|part| part == "tests"))
    {
        let text = std::fs::read_to_string(main)?;
        let Some(folder) = main.parent() else { continue };
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
            let is_module = path.extension().is_some_and(|e| e == "rs") && stem != "main"
                || path.join("mod.rs").is_file();
            if is_module && !text.contains(&format!("mod {stem};")) {
                findings.push(format!("{} is not named in its main.rs", path.display()));
            }
        }
    }
    Ok(findings)
}

/// Every file in `api/src/kinds` that describes a kind is in the list of kinds.
fn forgotten_kinds() -> Result<Vec<String>> {
    let folder = root().join("crates/api/src/kinds");
    let list = std::fs::read_to_string(folder.join("mod.rs"))?;
    let mut findings = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned) else {
            continue;
        };
        let file = if path.is_dir() { path.join("mod.rs") } else { path };
        let describes = std::fs::read_to_string(&file)?.lines().any(|line| {
            line.starts_with("pub const KIND:")
                || line.starts_with("pub static KIND:")
                || line.starts_with("pub(crate) const KIND:")
        });
        if stem != "mod" && describes && !list.contains(&format!("&{stem}::KIND")) {
            findings.push(format!("kind {stem} is not in KINDS"));
        }
    }
    Ok(findings)
}

/// Decisions are numbered once.
fn decisions() -> Result<Vec<String>> {
    let folder = root().join("docs/decisions");
    let mut numbers: Vec<String> = Vec::new();
    let mut findings = Vec::new();
    if folder.is_dir() {
        for entry in std::fs::read_dir(folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let number: String = name.chars().take(4).collect();
            if number.chars().all(|c| c.is_ascii_digit()) && numbers.contains(&number) {
                findings.push(format!("decision {number} exists twice"));
            }
            numbers.push(number);
        }
    }
    Ok(findings)
}
