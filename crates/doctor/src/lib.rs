//! Why is it not up, and what to do: `abide doctor`.
//!
//! Three steps: [`observe`](observe::observe) asks the API, [`diagnose`](diagnose::diagnose) decides (pure: no I/O, no
//! clock), [`report`] writes the answer down. Any Kubernetes cluster will do; nothing is ever changed, and the
//! content of a Secret is never asked for.

pub mod connect;
pub mod diagnose;
pub mod finding;
pub mod observe;
pub mod observed;
pub mod report;
pub mod subject;

pub use diagnose::diagnose;
pub use finding::{Diagnosis, Evidence, Finding, ObjectName, Severity, Step};
pub use observed::Observed;
pub use subject::{Subject, Target};
