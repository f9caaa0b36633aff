//! One way to observe and one way to run a controller.

mod cache;
mod caches;
mod queue;

pub use cache::{Cache, Cached, Change, Indexer};
pub use caches::{CLAIM, Caches, FREE, LABEL, TRACKED, claims_of, with_labels};
pub use queue::{Queue, drive, queue};

/// Namespace (empty for the cluster's own) and name.
pub type Key = (String, String);
