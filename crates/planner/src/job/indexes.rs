//! Completion indexes, as intervals: `1,3-5,7`. As upstream: `pkg/controller/job/indexed_job_utils.go`.

use std::collections::BTreeSet;
use std::fmt;

/// A set of indexes, kept as ascending intervals that do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<(i64, i64)>);

impl Indexes {
    /// Reads what a status or a rule says. What cannot be read, and what lies beyond the completions, is left out.
    pub(super) fn parse(text: &str, completions: i64) -> Indexes {
        let mut intervals: Vec<(i64, i64)> = text
            .split(',')
            .filter_map(|part| {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let (first, last) = (first.parse().ok()?, last.parse::<i64>().ok()?);
                (0 <= first && first < completions).then(|| (first, last.min(completions - 1)))
            })
            .collect();
        intervals.sort_unstable();
        Indexes::merged(intervals)
    }

    fn merged(intervals: Vec<(i64, i64)>) -> Indexes {
        let mut merged: Vec<(i64, i64)> = Vec::with_capacity(intervals.len());
        for (first, last) in intervals {
            match merged.last_mut() {
                Some((_, before)) if first <= before.saturating_add(1) => {
                    *before = (*before).max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        Indexes(merged)
    }

    /// With the indexes of another set.
    pub(super) fn and(&self, other: &Indexes) -> Indexes {
        let mut all: Vec<(i64, i64)> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        Indexes::merged(all)
    }

    /// How many there are.
    pub(super) fn total(&self) -> i64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this one is among them.
    pub(super) fn contains(&self, index: i64) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many indexes are in both.
    pub(super) fn common(&self, other: &Indexes) -> i64 {
        let overlap = |(first, last): &(i64, i64)| -> i64 {
            other.0.iter().map(|(low, high)| (last.min(high) - first.max(low) + 1).max(0)).sum()
        };
        self.0.iter().map(overlap).sum()
    }

    /// The lowest indexes below `completions` that are not among these, at most `count`.
    pub(super) fn first_absent(&self, count: usize, completions: i64) -> Vec<i64> {
        let mut found = Vec::new();
        let mut candidate = 0;
        let end = (completions, completions);
        for (first, last) in self.0.iter().chain([&end]) {
            while candidate < *first.min(&completions) && found.len() < count {
                found.push(candidate);
                candidate += 1;
            }
            candidate = candidate.max(last + 1);
        }
        found
    }
}

impl FromIterator<i64> for Indexes {
    fn from_iter<T: IntoIterator<Item = i64>>(indexes: T) -> Indexes {
        let sorted: BTreeSet<i64> = indexes.into_iter().collect();
        Indexes::merged(sorted.into_iter().map(|index| (index, index)).collect())
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (first, last)) in self.0.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_intervals() {
        for (indexes, text) in
            [(vec![], ""), (vec![3], "3"), (vec![3, 4], "3,4"), (vec![5, 1, 3, 4, 9], "1,3-5,9")]
        {
            let indexes: Indexes = indexes.into_iter().collect();
            assert_eq!(indexes.to_string(), text);
            assert_eq!(Indexes::parse(text, 10), indexes, "{text}");
        }
        assert_eq!(Indexes::parse("0-20,x,-3,30", 5).to_string(), "0-4");
    }

    #[test]
    fn intervals_are_joined_counted_and_compared() {
        let some = Indexes::parse("0,2-4", 10);
        let both = some.and(&Indexes::parse("1,8", 10));
        assert_eq!((both.to_string().as_str(), both.total()), ("0-4,8", 6));
        assert!(both.contains(3) && both.contains(8) && !both.contains(5) && !both.contains(9));
        assert_eq!(some.common(&Indexes::parse("3-9", 10)), 2);
        assert_eq!(both.first_absent(3, 10), [5, 6, 7]);
        assert_eq!(both.first_absent(9, 10), [5, 6, 7, 9]);
        assert_eq!(both.first_absent(9, 6), [5]);
        assert_eq!(Indexes::default().first_absent(2, 1_000_000_000), [0, 1]);
    }
}
