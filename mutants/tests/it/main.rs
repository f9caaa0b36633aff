//! Every rule of the planner that is broken on purpose is noticed by the model.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it has seen"
)]

extern crate mutants as planner;

#[path = "../../../crates/planner/tests/model/explore.rs"]
mod explore;
#[path = "../../../crates/planner/tests/model/plans.rs"]
mod plans;
#[path = "../../../crates/planner/tests/model/promises.rs"]
mod promises;
#[path = "../../../crates/planner/tests/model/scenes.rs"]
mod scenes;
#[path = "../../../crates/planner/tests/model/world.rs"]
mod world;

use mutants::{LIVING, MUTANTS};
use std::panic::catch_unwind;
use std::sync::atomic::Ordering;

/// Which part of the mutants a test looks at, so that they run side by side.
const PARTS: usize = 4;

fn every_mutant_is_caught(part: usize) {
    std::panic::set_hook(Box::new(|_| {}));
    let mut survivors = Vec::new();
    for (number, mutant) in MUTANTS.iter().enumerate().skip(part).step_by(PARTS) {
        LIVING.store(number, Ordering::Relaxed);
        let caught = scenes::SCENES.iter().find_map(|(name, _)| {
            let story = catch_unwind(|| scenes::run(name)).err()?;
            let words = story.downcast_ref::<String>().cloned().unwrap_or_default();
            Some(format!("{name}: {}", words.lines().next().unwrap_or_default()))
        });
        match caught {
            Some(how) => println!("{number:2} {}\n   caught by {how}", mutant.breaks),
            None => survivors.push(format!("{number} {}", mutant.breaks)),
        }
    }
    LIVING.store(usize::MAX, Ordering::Relaxed);
    drop(std::panic::take_hook());
    assert!(survivors.is_empty(), "nobody notices that these rules are broken: {survivors:#?}");
}

#[test]
fn every_mutant_is_caught_first_part() {
    every_mutant_is_caught(0);
}

#[test]
fn every_mutant_is_caught_second_part() {
    every_mutant_is_caught(1);
}

#[test]
fn every_mutant_is_caught_third_part() {
    every_mutant_is_caught(2);
}

#[test]
fn every_mutant_is_caught_last_part() {
    every_mutant_is_caught(3);
}

#[test]
fn there_are_enough_mutants() {
    assert!(MUTANTS.len() >= 25, "{}", MUTANTS.len());
}
