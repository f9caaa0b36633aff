//! Copies the planner's sources and makes each rule of `src/list.rs` breakable while the program runs.

use std::fs;
use std::path::{Path, PathBuf};

include!("src/list.rs");

fn main() {
    let from = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default())
        .join("../crates/planner/src");
    let to = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("planner");
    println!("cargo::rerun-if-changed={}", from.display());
    println!("cargo::rerun-if-changed=src/list.rs");
    copy(&from, &to, &from);
}

fn copy(folder: &Path, to: &Path, top: &Path) {
    fs::create_dir_all(to).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
    for entry in
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let Ok(path) = entry.map(|entry| entry.path()) else { continue };
        let Some(name) = path.file_name() else { continue };
        if path.is_dir() {
            copy(&path, &to.join(name), top);
            continue;
        }
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = path.strip_prefix(top).unwrap_or(&path).display().to_string();
        let text = mutated(&file, strip_tests(&text));
        fs::write(to.join(name), text).unwrap_or_else(|error| panic!("{name:?}: {error}"));
    }
}

/// Whether a line of `lib.rs` names a module that has nothing to do with StatefulSets.
fn is_another_room(line: &str) -> bool {
    let module = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';'));
    let of_lib = [
        "claim_binding",
        "cron_job",
        "daemon_set",
        "deployment",
        "disruption",
        "endpoints",
        "garbage",
        "job",
        "pod",
        "replica_set",
        "scheduling",
    ];
    module.is_some_and(|module| of_lib.contains(&module))
}

/// Head comments cannot be included; tests are not wanted.
fn strip_tests(text: &str) -> String {
    let head: String = text
        .lines()
        .filter(|line| !line.starts_with("//!"))
        .filter(|line| !is_another_room(line))
        .map(|line| format!("{line}\n"))
        .collect();
    head.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

fn mutated(file: &str, mut text: String) -> String {
    for (number, mutant) in MUTANTS.iter().enumerate().filter(|(_, mutant)| mutant.file == file) {
        let (before, rest) = mutant.rule.split_once('«').unwrap_or(("", mutant.rule));
        let (rule, after) = rest.split_once('»').unwrap_or((rest, ""));
        let whole = format!("{before}{rule}{after}");
        // Later rules may stand inside what earlier ones have made breakable: compare without them.
        let count = text.matches(&whole).count();
        assert!(
            count == 1,
            "mutant {number} ({}): its rule stands {count} times in {file}:\n{whole}",
            mutant.breaks
        );
        let kept = if mutant.kept.is_empty() { rule } else { mutant.kept };
        let broken = format!(
            "{before}(if crate::lives({number}) {{ {} }} else {{ {kept} }}){after}",
            mutant.broken
        );
        text = text.replacen(&whole, &broken, 1);
    }
    text
}
