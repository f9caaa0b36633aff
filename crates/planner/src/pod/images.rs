//! Whether a container's image is fetched, and when again. As upstream: `pkg/kubelet/images/image_manager.go`.

use std::time::Duration;

/// Pulls wait so long after the first failure, and twice as long after each further one.
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// Pulls wait so long at most.
pub const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What the node has of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Nothing.
    Absent,
    /// Somebody brought it under this name, from an archive or a registry: it is what the name means.
    Brought,
    /// The node pulled it under this name, which may mean another image by now.
    Pulled,
}

/// What to do about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Take what is there.
    Use,
    /// Ask the registry, and fetch what is absent.
    Pull,
    /// The policy forbids it.
    Refuse,
}

/// Decides by the container's `imagePullPolicy`.
///
/// Other than upstream, `Always` takes an image that was brought as it is: nothing is newer than what somebody wants here.
pub fn step(policy: Option<&str>, presence: Presence) -> Step {
    match (policy, presence) {
        (_, Presence::Brought) => Step::Use,
        (Some("Always"), Presence::Pulled | Presence::Absent) => Step::Pull,
        (_, Presence::Pulled) => Step::Use,
        (Some("Never"), Presence::Absent) => Step::Refuse,
        (_, Presence::Absent) => Step::Pull,
    }
}

/// How long a pull waits after it has failed once more, if it had waited for `before`.
pub fn wait(before: Option<Duration>) -> Duration {
    before.map_or(FIRST_WAIT, |before| (before * 2).min(LONGEST_WAIT))
}

/// What a pull that succeeded is told with. `waited` includes the time before the registry was asked.
pub fn pulled_words(image: &str, pulling: Duration, waited: Duration, size_bytes: u64) -> String {
    format!(
        "Successfully pulled image {image:?} in {} ({} including waiting). Image size: {size_bytes} bytes.",
        go_words(pulling),
        go_words(waited)
    )
}

/// A duration, to the millisecond, as Go writes it: `345ms`, `1.2s`, `1m2.003s`.
fn go_words(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let fraction = format!("{:03}", rest % 1000);
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    let seconds = format!("{}{dot}{fraction}s", rest / 1000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_and_what_is_there_decide() {
        use Presence::{Absent, Brought, Pulled};
        let cases = [
            (None, [Step::Pull, Step::Use, Step::Use]),
            (Some("IfNotPresent"), [Step::Pull, Step::Use, Step::Use]),
            (Some("Always"), [Step::Pull, Step::Use, Step::Pull]),
            (Some("Never"), [Step::Refuse, Step::Use, Step::Use]),
        ];
        for (policy, expected) in cases {
            assert_eq!(
                [Absent, Brought, Pulled].map(|is| step(policy, is)),
                expected,
                "{policy:?}"
            );
        }
    }

    #[test]
    fn waits_double_up_to_five_minutes() {
        let waits = std::iter::successors(Some(wait(None)), |before| Some(wait(Some(*before))));
        let seconds: Vec<u64> = waits.take(7).map(|wait| wait.as_secs()).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        let cases = [
            (0, "0s"),
            (7, "7ms"),
            (999, "999ms"),
            (1000, "1s"),
            (1200, "1.2s"),
            (59_030, "59.03s"),
            (62_003, "1m2.003s"),
            (3_600_000, "1h0m0s"),
        ];
        for (millis, expected) in cases {
            assert_eq!(go_words(Duration::from_millis(millis)), expected);
        }
        assert_eq!(
            pulled_words("a:1", Duration::from_millis(20), Duration::from_millis(1200), 3),
            "Successfully pulled image \"a:1\" in 20ms (1.2s including waiting). Image size: 3 bytes."
        );
    }
}
