//! Selectors: which objects are meant.

pub mod field;
pub mod label;
