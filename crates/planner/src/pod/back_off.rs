//! How long a container that crashes waits. As upstream: `k8s.io/client-go/util/flowcontrol/backoff.go` (T120).

use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
/// A container that ran longer than this after its last wait starts from the beginning.
const FORGIVEN: Duration = Duration::from_secs(600);

/// The delays of a pod's containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackOffs(BTreeMap<String, (Duration, Timestamp)>);

impl BackOffs {
    /// How much longer a container that ended at `finished_at` (nanoseconds) waits; `None`: it may start.
    pub fn wait(&self, name: &str, finished_at: i64, now: Timestamp) -> Option<Duration> {
        let (delay, stepped_at) = self.0.get(name)?;
        if since(*stepped_at, now) > FORGIVEN {
            return None;
        }
        let finished = Timestamp::from_nanosecond(i128::from(finished_at)).unwrap_or(now);
        delay.checked_sub(since(finished, now)).filter(|wait| !wait.is_zero())
    }

    /// Counts a restart: the next one waits twice as long.
    pub fn step(&mut self, name: &str, now: Timestamp) {
        let delay = match self.0.get(name) {
            Some((delay, stepped_at)) if since(*stepped_at, now) <= FORGIVEN => {
                (*delay * 2).min(LONGEST)
            }
            _ => FIRST,
        };
        self.0.insert(name.to_owned(), (delay, now));
    }

    /// The delay that a container is in, for messages.
    pub fn delay(&self, name: &str) -> Duration {
        self.0.get(name).map_or(FIRST, |(delay, _)| *delay)
    }
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// T120.
    #[test]
    fn delays_double_to_five_minutes_and_are_forgiven_after_ten() {
        let mut back_offs = BackOffs::default();
        let nanos = |second: i64| second * 1_000_000_000;
        assert_eq!(back_offs.wait("a", nanos(0), at(0)), None);
        let mut now = 0;
        for seconds in [10, 20, 40, 80, 160, 300, 300] {
            back_offs.step("a", at(now));
            assert_eq!(
                back_offs.wait("a", nanos(now), at(now)),
                Some(Duration::from_secs(seconds))
            );
            assert_eq!(
                back_offs.wait("a", nanos(now), at(now + i64::try_from(seconds).unwrap())),
                None
            );
            now += i64::try_from(seconds).unwrap();
        }
        assert_eq!(back_offs.wait("a", nanos(now + 700), at(now + 700)), None);
        back_offs.step("a", at(now + 700));
        assert_eq!(back_offs.delay("a"), FIRST);
    }
}
