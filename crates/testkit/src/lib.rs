//! For tests only: an in-process API server, a fake node, builders, `eventually`.
