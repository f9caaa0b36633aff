//! Which times of a schedule were missed, and which comes next. As upstream: `mostRecentScheduleTime`, but exact where
//! upstream reckons.

use api::cron::Schedule;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// More missed times than this are told: they are a sign of a clock that jumped.
pub(super) const MANY: usize = 100;

/// Times that have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unmet {
    pub(super) newest: Timestamp,
    /// How many, counted up to one more than [`MANY`].
    pub(super) count: usize,
}

/// The times after `since` that have passed; `None` if there are none.
pub(super) fn unmet(
    schedule: &Schedule,
    since: Timestamp,
    now: Timestamp,
    zone: &TimeZone,
) -> Option<Unmet> {
    let next = |after: Timestamp| schedule.next(after, zone).filter(|time| *time <= now);
    let first = next(since)?;
    let count = std::iter::successors(Some(first), |time| next(*time)).take(MANY + 1).count();
    if let Some(period) = schedule.period() {
        let steps = (now.as_second() - first.as_second()) / period;
        let newest = first.checked_add(SignedDuration::from_secs(steps * period)).ok()?;
        return Some(Unmet { newest, count });
    }
    // The newest is the next after the last second that has a next that has passed.
    let (mut low, mut high) = (since.as_second(), now.as_second());
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if Timestamp::from_second(middle).ok().and_then(next).is_some() {
            low = middle;
        } else {
            high = middle;
        }
    }
    let newest = Timestamp::from_second(low).ok().and_then(next).unwrap_or(first);
    Some(Unmet { newest, count })
}

/// The first time that has not passed yet; `None` if there is none within five years.
pub(super) fn after(
    schedule: &Schedule,
    since: Timestamp,
    now: Timestamp,
    zone: &TimeZone,
) -> Option<Timestamp> {
    let last = unmet(schedule, since, now, zone).map_or(since, |unmet| unmet.newest);
    // A schedule of fields knows no beginning.
    let from = if schedule.period().is_some() { last } else { now };
    schedule.next(from, zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn found(schedule: &str, since: &str, now: &str) -> Option<(String, usize)> {
        let schedule = Schedule::parse(schedule).unwrap();
        unmet(&schedule, at(since), at(now), &TimeZone::UTC)
            .map(|unmet| (unmet.newest.to_string(), unmet.count))
    }

    #[test]
    fn the_newest_missed_time_is_found_however_many_there_are() {
        let start = "2027-01-01T00:00:00Z";
        let some = |time: &str, count: usize| Some((time.to_owned(), count));
        assert_eq!(found("0 * * * *", start, "2027-01-01T00:59:59Z"), None);
        assert_eq!(
            found("0 * * * *", start, "2027-01-01T01:00:00Z"),
            some("2027-01-01T01:00:00Z", 1)
        );
        assert_eq!(
            found("0 * * * *", start, "2027-01-01T05:30:00Z"),
            some("2027-01-01T05:00:00Z", 5)
        );
        assert_eq!(
            found("* * * * *", start, "2027-06-01T00:00:30Z"),
            some("2027-06-01T00:00:00Z", 101)
        );
        assert_eq!(
            found("* * * 1 *", start, "2027-06-01T00:00:30Z"),
            some("2027-01-31T23:59:00Z", 101)
        );
        assert_eq!(found("0 0 31 2 *", start, "2028-01-01T00:00:00Z"), None);
    }

    #[test]
    fn every_so_often_is_counted_from_the_beginning() {
        let start = "2027-01-01T00:00:10Z";
        assert_eq!(
            found("@every 90s", start, "2027-01-01T00:05:00Z"),
            Some(("2027-01-01T00:04:40Z".to_owned(), 3))
        );
        let schedule = Schedule::parse("@every 90s").unwrap();
        let next =
            |now: &str| after(&schedule, at(start), at(now), &TimeZone::UTC).unwrap().to_string();
        assert_eq!(next("2027-01-01T00:00:30Z"), "2027-01-01T00:01:40Z");
        assert_eq!(next("2027-01-01T00:05:00Z"), "2027-01-01T00:06:10Z");
    }
}
