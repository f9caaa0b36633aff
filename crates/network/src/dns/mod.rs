//! Cluster DNS: answers are computed ([`records`]) from what is known of Services, and served (`server`).

pub mod records;
mod server;

pub use records::{Answer, Records};
pub use server::{Dns, serve};
