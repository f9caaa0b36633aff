//! [`KINDS`]: the one list of kinds. One file a kind.

use crate::kind::Kind;

/// Every kind that is served, in the order of discovery.
pub const KINDS: &[&Kind] = &[];
