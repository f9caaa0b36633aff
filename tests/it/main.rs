//! End-to-end tests: the real kubectl against the real binary, real containers, one throw-away cluster each.
//!
//! Each test is named as a sentence and carries the rows that it proves (A1, T30 …).
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod apply;
mod batch;
mod clusters;
mod deployments;
mod disruption;
mod doctor;
mod exercise_nginx_curl;
mod harness;
mod identity;
mod names;
mod pods;
mod sample_statefulset;
mod storage;
mod survival;
mod updates;
