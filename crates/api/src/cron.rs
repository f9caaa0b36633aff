//! Cron schedules: which minutes they name. As upstream: `github.com/robfig/cron/v3` (`parser.go`, `spec.go`,
//! `constantdelay.go`), whose words the errors are.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Years that are searched for the next time: `0 0 30 2 *` names no day at all.
const YEARS: i16 = 5;

/// A schedule in five fields (minute, hour, day of the month, month, day of the week), one of `@hourly` and its like, or
/// `@every 90m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule(Times);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    Fields(Fields),
    /// Seconds.
    Every(i64),
}

/// One bit for each number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// Sunday is 0.
    weekdays: u64,
    /// The day of the month, or that of the week, stands open: then the other one alone decides.
    open_day: bool,
}

/// What a field may hold.
struct Bounds {
    low: u32,
    high: u32,
    /// The highest number that may be written.
    written: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { low: 0, high: 59, written: 59, names: &[] };
const HOURS: Bounds = Bounds { low: 0, high: 23, written: 23, names: &[] };
const DAYS: Bounds = Bounds { low: 1, high: 31, written: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    low: 1,
    high: 12,
    written: 12,
    names: &[
        "", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
/// Sunday may be written as 7, as crontab(5) has it; upstream's library knows only 0.
const WEEKDAYS: Bounds = Bounds {
    low: 0,
    high: 6,
    written: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl Schedule {
    /// Reads a schedule. The error is a sentence without a full stop.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        if text.is_empty() {
            return Err("empty spec string".to_owned());
        }
        if text.starts_with('@') {
            return descriptor(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!(
                "expected exactly 5 fields, found {}: [{}]",
                fields.len(),
                fields.join(" ")
            ));
        };
        let (minutes, _) = field(minutes, &MINUTES)?;
        let (hours, _) = field(hours, &HOURS)?;
        let (days, any_day) = field(days, &DAYS)?;
        let (months, _) = field(months, &MONTHS)?;
        let (weekdays, any_weekday) = field(weekdays, &WEEKDAYS)?;
        let weekdays = weekdays & 0x7f | weekdays >> 7;
        let open_day = any_day || any_weekday;
        Ok(Schedule(Times::Fields(Fields { minutes, hours, days, months, weekdays, open_day })))
    }

    /// The seconds from one time to the next, of `@every`: such times follow from the first, not from the clock.
    pub fn period(&self) -> Option<i64> {
        match self.0 {
            Times::Every(seconds) => Some(seconds),
            Times::Fields(_) => None,
        }
    }

    /// The first time after `after`; `None` if there is none within five years.
    ///
    /// Hours that the zone skips are skipped with it, hours that it repeats are named twice, as upstream.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let whole = Timestamp::from_second(after.as_second()).ok()?;
        match &self.0 {
            Times::Every(seconds) => whole.checked_add(SignedDuration::from_secs(*seconds)).ok(),
            Times::Fields(fields) => {
                let start = whole.checked_add(SignedDuration::from_secs(1)).ok()?;
                let local = start.to_zoned(zone.clone());
                let last_year = local.year().saturating_add(YEARS);
                let mut date = local.date();
                while date.year() <= last_year {
                    if !has(fields.months, date.month()) {
                        date = date.last_of_month().tomorrow().ok()?;
                        continue;
                    }
                    if fields.names_day(date)
                        && let Some(found) = fields.on(date, start, zone)
                    {
                        return Some(found);
                    }
                    date = date.tomorrow().ok()?;
                }
                None
            }
        }
    }
}

impl Fields {
    /// Either of the two days will do when both are given, as in every cron.
    fn names_day(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        if self.open_day { day && weekday } else { day || weekday }
    }

    /// The first time on a day, not before `start`.
    fn on(&self, date: Date, start: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut time = date.to_zoned(zone.clone()).ok()?.timestamp().max(start);
        loop {
            let local = time.to_zoned(zone.clone());
            if local.date() != date {
                return None;
            }
            let (minute, second) = (i64::from(local.minute()), i64::from(local.second()));
            let step = if !has(self.hours, local.hour()) {
                3600 - minute * 60 - second
            } else if second > 0 || !has(self.minutes, local.minute()) {
                60 - second
            } else {
                return Some(time);
            };
            time = time.checked_add(SignedDuration::from_secs(step)).ok()?;
        }
    }
}

fn has(bits: u64, number: i8) -> bool {
    bits >> number & 1 == 1
}

fn descriptor(text: &str) -> Result<Schedule, String> {
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let every = text
                .strip_prefix("@every ")
                .ok_or_else(|| format!("unrecognized descriptor: {text}"))?;
            let seconds = go_duration(every)
                .map_err(|error| format!("failed to parse duration {text}: {error}"))?;
            return Ok(Schedule(Times::Every(seconds.max(1))));
        }
    };
    Schedule::parse(fields)
}

/// The numbers of a field, and whether it stands open (`*` without a step).
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let mut bits = (0, false);
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (range, open) = range(part, bounds)?;
        bits = (bits.0 | range, bits.1 || open);
    }
    Ok(bits)
}

/// `number`, `first-last`, `*` or `?`, each with an optional `/step`.
fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let parts: Vec<&str> = text.split('/').collect();
    let limits: Vec<&str> = parts[0].split('-').collect();
    let everything = ["*", "?"].contains(&limits[0]);
    let (low, mut high) = match limits[..] {
        _ if everything => (bounds.low, bounds.high),
        [one] => (number_or_name(one, bounds)?, number_or_name(one, bounds)?),
        [low, high] => (number_or_name(low, bounds)?, number_or_name(high, bounds)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match parts[..] {
        [_] => 1,
        [_, step] => number(step)?,
        _ => return Err(format!("too many slashes: {text}")),
    };
    // `5/15` is `5-59/15`.
    if parts.len() == 2 && limits.len() == 1 {
        high = if low == bounds.written { low } else { bounds.high };
    }
    if low < bounds.low {
        return Err(format!("beginning of range ({low}) below minimum ({}): {text}", bounds.low));
    }
    if high > bounds.written {
        return Err(format!("end of range ({high}) above maximum ({}): {text}", bounds.written));
    }
    if low > high {
        return Err(format!("beginning of range ({low}) beyond end of range ({high}): {text}"));
    }
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let bits = (low..=high).step_by(step).fold(0, |bits, number| bits | 1 << number);
    Ok((bits, everything && step == 1))
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let lower = text.to_lowercase();
    match bounds.names.iter().position(|name| !name.is_empty() && *name == lower) {
        Some(position) => Ok(u32::try_from(position).unwrap_or(u32::MAX)),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"
        ));
    }
    digits.parse().map_err(|_| {
        format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: value out of range"
        )
    })
}

/// Whole seconds of a duration as Go writes it, e.g. `1h30m` or `1.5h`.
fn go_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (amount, tail) = rest.split_at(digits);
        let amount: f64 = amount.parse().map_err(|_| invalid())?;
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let size = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        seconds += amount * size;
        rest = tail;
    }
    let seconds = sign * seconds;
    // Go's durations are int64 nanoseconds.
    if seconds.abs() > i64::MAX as f64 / 1e9 {
        return Err(invalid());
    }
    #[expect(clippy::cast_possible_truncation, reason = "the range was just looked at")]
    Ok(seconds.trunc() as i64)
}

/// The time zone of a name, as the machine's database has it; the error is Go's.
///
/// The one look that this room takes outside, as upstream's validation does: what zones there are is known to no program.
/// Without a database only `UTC` is found.
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    let unknown = || format!("unknown time zone {name}");
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    let zone = TimeZone::get(name).map_err(|_| unknown())?;
    // Names are files: their case matters.
    if zone.iana_name() == Some(name) { Ok(zone) } else { Err(unknown()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The next times after the first of 2027 (a Friday), as `MM-DDTHH:MM`.
    fn next(schedule: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(schedule).unwrap();
        let mut now = at("2027-01-01T00:00:30.5Z");
        let mut seen = Vec::new();
        for _ in 0..count {
            let Some(time) = schedule.next(now, &TimeZone::UTC) else { break };
            seen.push(time.to_string()[5..16].to_owned());
            now = time;
        }
        seen
    }

    #[test]
    fn five_fields_name_their_minutes() {
        for (schedule, times) in [
            ("* * * * *", &["01-01T00:01", "01-01T00:02"][..]),
            ("*/20 * * * *", &["01-01T00:20", "01-01T00:40", "01-01T01:00"]),
            ("5/25 3 * * *", &["01-01T03:05", "01-01T03:30", "01-01T03:55", "01-02T03:05"]),
            ("0,30 8-10/2 * * *", &["01-01T08:00", "01-01T08:30", "01-01T10:00"]),
            ("0 0 1 * *", &["02-01T00:00", "03-01T00:00"]),
            ("0 12 * feb-mar/1 *", &["02-01T12:00"]),
            ("0 0 29 2 *", &["02-29T00:00"]),
            ("0 9 * * MON-fri", &["01-01T09:00", "01-04T09:00"]),
            ("0 0 ? * ?", &["01-02T00:00"]),
        ] {
            assert_eq!(next(schedule, times.len()), times, "{schedule}");
        }
        let none: [String; 0] = [];
        assert_eq!(next("59 23 31 2 *", 1), none, "there is no such day");
    }

    #[test]
    fn sunday_is_0_and_7() {
        for schedule in ["0 0 * * 0", "0 0 * * 7", "0 0 * * sun", "0 0 * * 7-7"] {
            assert_eq!(next(schedule, 2), ["01-03T00:00", "01-10T00:00"], "{schedule}");
        }
        assert_eq!(next("0 0 * * 6-7", 3), ["01-02T00:00", "01-03T00:00", "01-09T00:00"]);
        assert_eq!(
            next("0 0 * * 5/2", 2),
            ["01-08T00:00", "01-15T00:00"],
            "a step ends at Saturday"
        );
    }

    #[test]
    fn either_day_will_do_when_both_are_given() {
        assert_eq!(
            next("0 0 13 * 5", 4),
            ["01-08T00:00", "01-13T00:00", "01-15T00:00", "01-22T00:00"]
        );
        assert_eq!(next("0 0 13 * *", 1), ["01-13T00:00"]);
        assert_eq!(next("0 0 * * 1", 1), ["01-04T00:00"]);
        // A star with a step is no open field.
        assert_eq!(next("0 0 */10 * 1", 3), ["01-04T00:00", "01-11T00:00", "01-18T00:00"]);
    }

    #[test]
    fn words_stand_for_schedules() {
        for (schedule, time) in [
            ("@yearly", "01-01T00:00"),
            ("@annually", "01-01T00:00"),
            ("@monthly", "02-01T00:00"),
            ("@weekly", "01-03T00:00"),
            ("@daily", "01-02T00:00"),
            ("@midnight", "01-02T00:00"),
            ("@hourly", "01-01T01:00"),
            ("@every 1h30m", "01-01T01:30"),
            ("@every 0.5h", "01-01T00:30"),
        ] {
            assert_eq!(next(schedule, 1), [time], "{schedule}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_told_in_upstreams_words() {
        for (schedule, words) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            ("* * * * 8", "end of range (8) above maximum (7): 8"),
            ("@fortnightly", "unrecognized descriptor: @fortnightly"),
            (
                "@every soon",
                "failed to parse duration @every soon: time: invalid duration \"soon\"",
            ),
            ("@every 5", "failed to parse duration @every 5: time: missing unit in duration \"5\""),
        ] {
            assert_eq!(Schedule::parse(schedule).unwrap_err(), words, "{schedule}");
        }
    }

    #[test]
    fn a_zone_decides_which_hour_it_is() {
        let berlin = time_zone("Europe/Berlin").unwrap();
        let schedule = Schedule::parse("30 2 * * *").unwrap();
        let next = |after: &str| schedule.next(at(after), &berlin).unwrap().to_string();
        assert_eq!(next("2027-01-01T00:00:00Z"), "2027-01-01T01:30:00Z");
        // On 28 March 2027 there is no half past two.
        assert_eq!(next("2027-03-27T12:00:00Z"), "2027-03-29T00:30:00Z");
        // On 31 October 2027 it comes twice.
        assert_eq!(next("2027-10-30T12:00:00Z"), "2027-10-31T00:30:00Z");
        assert_eq!(next("2027-10-31T00:30:00Z"), "2027-10-31T01:30:00Z");
        assert_eq!(time_zone("Europe/Nowhere").unwrap_err(), "unknown time zone Europe/Nowhere");
        assert_eq!(time_zone("europe/berlin").unwrap_err(), "unknown time zone europe/berlin");
    }
}
