//! The planner, with every rule of `list.rs` breakable. Made by `build.rs` from the planner's own sources.
#![allow(warnings, clippy::all, reason = "a generated copy of code that is checked where it lives")]

use std::sync::atomic::{AtomicUsize, Ordering};

/// Which mutant lives; none by default.
pub static LIVING: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Whether this mutant lives.
pub fn lives(number: usize) -> bool {
    LIVING.load(Ordering::Relaxed) == number
}

include!("list.rs");
include!(concat!(env!("OUT_DIR"), "/planner/lib.rs"));
