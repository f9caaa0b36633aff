//! End-to-end tests: the real kubectl against the real binary, real containers, one throw-away cluster each.
//!
//! Each test is named as a sentence and carries the rows that it proves (A1, T30 …).
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod applications;
mod apply;
mod backup;
mod batch;
mod clusters;
mod deployments;
mod disruption;
mod doctor;
mod documents;
mod exercise_nginx_curl;
mod first_contact;
mod harness;
mod identity;
mod installing;
mod names;
mod pods;
mod pulling;
mod registry;
mod sample_statefulset;
mod storage;
mod streams;
mod survival;
mod updates;
