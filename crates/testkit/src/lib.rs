//! For tests only: an API server in the process, a node without containers, a clock that tests turn, `eventually`.
//!
//! Nothing here uses a socket, so that with tokio's paused clock minutes of a cluster's life take milliseconds.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod node;
mod server;

pub use node::FakeNode;
pub use server::{Answer, TestServer};

use jiff::Timestamp;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long (of tokio's clock) anything may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often it is looked at, in the beginning and after a while: minutes of waiting are not spent on looking.
const PACE: Duration = Duration::from_millis(5);
const CALM: Duration = Duration::from_millis(50);
const A_WHILE: Duration = Duration::from_secs(2);

/// A wall clock that follows tokio's: where that is paused, time passes only when everybody waits.
pub fn clock() -> Arc<dyn Fn() -> Timestamp + Send + Sync> {
    let began = tokio::time::Instant::now();
    Arc::new(move || Timestamp::from_second(1_800_000_000).unwrap() + began.elapsed())
}

/// Waits until `look` finds something, and returns it. Panics with `what` if it never does.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let began = tokio::time::Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        // Lets everybody else go on.
        tokio::time::sleep(if began.elapsed() < A_WHILE { PACE } else { CALM }).await;
    }
}

/// Makes the log visible in the output of a test that fails. Call it as often as you like.
pub fn log() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
        tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().init();
    });
}
