// SPDX-License-Identifier: MIT OR Apache-2.0
//! Overlaps: two owners of one shard that both settled while both took it for theirs.

use std::collections::{BTreeMap, BTreeSet};

/// One owner's time on the shard, in the order of what happened to it.
#[derive(Debug, Clone, Copy)]
struct Tenure {
    began: u64,
    /// When its newest settle was acknowledged; when it began where none was.
    settled: u64,
}

/// See the module. Grows with a run.
#[derive(Debug, Default)]
pub struct Tenures {
    happened: u64,
    newest: BTreeMap<String, Tenure>,
    /// Overlaps that were counted, by the beginnings of the two.
    counted: BTreeSet<(u64, u64)>,
}

impl Tenures {
    /// An owner starts on the shard, or starts again.
    pub fn began(&mut self, owner: &str) {
        self.happened += 1;
        self.newest.insert(owner.into(), Tenure { began: self.happened, settled: self.happened });
    }

    /// A settle of this owner was acknowledged: how many overlaps that makes which were none before.
    pub fn settled(&mut self, owner: &str) -> u64 {
        self.happened += 1;
        let Some(own) = self.newest.get_mut(owner) else { return 0 };
        own.settled = self.happened;
        let own = *own;
        let mut more = 0;
        for (_, other) in self.newest.iter().filter(|(name, _)| *name != owner) {
            let (early, late) = if other.began < own.began { (*other, own) } else { (own, *other) };
            let both = early.settled > late.began && late.settled > late.began;
            more += u64::from(both && self.counted.insert((early.began, late.began)));
        }
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlap_needs_settles_of_both_after_the_later_one_began_and_counts_once() {
        let mut tenures = Tenures::default();
        tenures.began("a");
        assert_eq!(tenures.settled("a"), 0);
        tenures.began("b");
        assert_eq!(tenures.settled("b"), 0, "a has not settled since");
        assert_eq!(tenures.settled("a"), 1);
        assert_eq!(tenures.settled("a") + tenures.settled("b"), 0, "the same two");
        tenures.began("a");
        assert_eq!(tenures.settled("b"), 0);
        assert_eq!(tenures.settled("a"), 1);
    }
}
