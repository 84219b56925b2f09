// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers that something was said of.

/// First and last.
pub(in crate::commands::chat) type Range = (u64, u64);

/// A set of numbers as ranges, in order and apart; few, as devices that came in at different times leave few gaps.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<Range>);

impl Ranges {
    /// Adds the numbers from `first` to `last`.
    pub(super) fn add(&mut self, (mut first, mut last): Range) {
        let mut rest = Vec::with_capacity(self.0.len() + 1);
        for (from, to) in self.0.drain(..) {
            if to.saturating_add(1) < first || last.saturating_add(1) < from {
                rest.push((from, to));
            } else {
                (first, last) = (first.min(from), last.max(to));
            }
        }
        rest.push((first, last));
        rest.sort_unstable();
        self.0 = rest;
    }

    /// What of these ranges is not in it.
    pub(super) fn missing_of(&self, ranges: Vec<Range>) -> Vec<Range> {
        self.0.iter().fold(ranges, |left, (from, to)| {
            let parts = |(first, last): Range| {
                let below = (first < *from).then(|| (first, last.min(from - 1)));
                let above = (*to < last).then(|| (first.max(to + 1), last));
                [below, above].into_iter().flatten()
            };
            left.into_iter().flat_map(parts).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_was_added_and_nothing_else() {
        let mut random = 1_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for _ in 0..200 {
            let (mut ranges, mut has) = (Ranges::default(), [false; 32]);
            for _ in 0..6 {
                let first = next(24);
                let last = first + next(8);
                ranges.add((first, last));
                (first..=last).for_each(|n| has[usize::try_from(n).expect("small")] = true);
                assert!(ranges.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{ranges:?}");
                let missing = ranges.missing_of(vec![(0, 31)]);
                let is_missing = |n: u64| missing.iter().any(|(first, last)| (*first..=*last).contains(&n));
                assert!((0..32).all(|n| is_missing(n) != has[usize::try_from(n).expect("small")]), "{ranges:?}");
            }
        }
    }

    #[test]
    fn the_ends_of_what_a_number_can_be_do_no_harm() {
        let mut ranges = Ranges::default();
        ranges.add((0, u64::MAX));
        ranges.add((3, 4));
        assert_eq!(ranges.missing_of(vec![(0, u64::MAX)]), []);
        assert_eq!(ranges.0.len(), 1);
    }
}
