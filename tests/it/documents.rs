//! What the documents tell a reader to type works as it stands there.

use crate::harness::{abide, story};
use std::path::{Path, PathBuf};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The lines after `$ ` in a document's `console` blocks.
fn typed(document: &str) -> Vec<String> {
    let text = std::fs::read_to_string(top().join(document)).unwrap();
    let mut lines = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            inside = language == "console";
        } else if inside && let Some(command) = line.strip_prefix("$ ") {
            lines.push(command.to_owned());
        }
    }
    assert!(!lines.is_empty(), "{document} has no commands");
    lines
}

/// Every line of a document's blocks, and what stands between backticks outside of them.
fn code(document: &str) -> Vec<String> {
    let text = std::fs::read_to_string(top().join(document)).unwrap();
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else if inside {
            found.push(line.to_owned());
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

story! {
    /// C3: docs/operations.md, from its first line to its last, in one shell.
    fn operations_are_done_as_their_document_says(k, ["nginx:1.12"]) {
        k.sh(&format!("mkdir bin; ln -s {} bin/abide; ln -s {}/examples examples", abide().display(), top().display()));
        let commands = typed("docs/operations.md");
        k.file("typed.sh", &format!("set -e -o pipefail -x; export PATH=$PWD/bin:$PATH\n{}\n", commands.join("\n")));
        k.sh("bash typed.sh 2>&1");
    }
}

/// A command of abide that a document names is one that the program has, with these flags.
#[test]
fn every_command_of_ours_in_a_document_is_understood() {
    let mut seen = 0;
    for name in [
        "README.md",
        "README.ja.md",
        "docs/install.md",
        "docs/operations.md",
        "docs/images.md",
        "docs/doctor.md",
        "docs/simulated-nodes.md",
        "docs/security.md",
    ] {
        for code in code(name) {
            let Some(command) = code.trim_start_matches("$ ").strip_prefix("abide ") else {
                continue;
            };
            let Some(word) = command.split_whitespace().next() else { continue };
            if !word.chars().all(|character| character.is_ascii_lowercase() || character == '-') {
                continue;
            }
            let subcommand = command.split_whitespace().nth(1).filter(|_| word == "image");
            let help = std::process::Command::new(abide())
                .arg(word)
                .args(subcommand)
                .arg("--help")
                .output()
                .unwrap();
            assert!(
                help.status.success(),
                "{name}: abide {command}: {}",
                String::from_utf8_lossy(&help.stderr)
            );
            let help = String::from_utf8_lossy(&help.stdout).into_owned();
            let own = command.split(" -- ").next().unwrap().split(" #").next().unwrap();
            for flag in own.split([' ', '=']).filter(|part| part.starts_with("--")) {
                assert!(help.contains(flag), "{name}: abide {command}: there is no {flag}");
            }
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}
