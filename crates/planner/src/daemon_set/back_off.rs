//! How long a node waits whose pods fail. As upstream: `failedPodsBackoff` in `daemon_controller.go`.

use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// The delays of a set's nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackOffs(BTreeMap<String, (Duration, Timestamp)>);

impl BackOffs {
    /// How much longer the node's failed pod stays; `None`: it may be deleted.
    pub(super) fn wait(&self, node: &str, now: Timestamp) -> Option<Duration> {
        let (delay, since) = self.0.get(node)?;
        delay.checked_sub(elapsed(*since, now)).filter(|wait| !wait.is_zero())
    }

    /// Counts a failed pod: the next one stays twice as long.
    pub(super) fn step(&mut self, node: &str, now: Timestamp) {
        // What was long ago is forgiven.
        self.0.retain(|_, (_, since)| elapsed(*since, now) <= LONGEST * 2);
        let delay = self.0.get(node).map_or(FIRST, |(delay, _)| (*delay * 2).min(LONGEST));
        self.0.insert(node.to_owned(), (delay, now));
    }
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_a_quarter_of_an_hour_and_are_forgiven() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let mut back_offs = BackOffs::default();
        let mut now = 0;
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900] {
            assert_eq!(back_offs.wait("a", at(now)), None);
            back_offs.step("a", at(now));
            assert_eq!(back_offs.wait("a", at(now)), Some(Duration::from_secs(seconds)));
            assert_eq!(back_offs.wait("b", at(now)), None);
            now += i64::try_from(seconds).unwrap();
        }
        back_offs.step("a", at(now + 1801));
        assert_eq!(back_offs.wait("a", at(now + 1801)), Some(FIRST));
    }
}
