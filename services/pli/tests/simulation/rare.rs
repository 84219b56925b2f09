// SPDX-License-Identifier: MIT OR Apache-2.0
//! How often states were reached that seldom occur and that the rules exist for.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! rare {
    ($($(#[$doc:meta])* $field:ident = $name:literal, at least $least:literal;)*) => {
        /// Counters, one a state.
        #[derive(Debug, Default)]
        pub struct Rare { $($(#[$doc])* pub $field: Count,)* }

        impl Rare {
            /// Name, count and the least count that makes the simulation worth anything.
            pub fn rows(&self) -> Vec<(&'static str, u64, u64)> {
                vec![$(($name, self.$field.get(), $least),)*]
            }
            /// Adds what another run reached.
            pub fn add(&self, other: &Self) {
                $(self.$field.by(other.$field.get());)*
            }
        }
    };
}

rare! {
    /// An owner starts on a shard whose log holds unsettled entries.
    hand_over = "hand-over with a non-empty tail", at least 100;
    /// A row is written for a device whose session is being served.
    spill_live = "spill met live", at least 100;
    /// An owner settles a shard that another one holds.
    zombie_settle = "zombie settle", at least 100;
    /// The log lost entries above the checkpoint that its owner had read.
    fork_above = "fork above the checkpoint", at least 100;
    /// An owner created a log reader again.
    reader_again = "reader created again", at least 100;
    /// A doorbell did not know its predecessor.
    unknown_prev = "unknown prev", at least 100;
    /// A floor rose.
    floor_raised = "floor raised", at least 100;
    /// Two owners had a settle of one shard under way at the same time.
    two_settle = "two owners settling at once", at least 20;
    /// Two owners of one shard both settled while both took it for theirs.
    overlap = "overlap of two owners that settled", at least 20;
    /// A fork took the checkpoint's own entry.
    fork_below = "fork below the checkpoint", at least 1;
    /// A release mark was written and taken with it.
    mark_taken = "release mark taken", at least 1;
    /// A receipt was answered with `resend`.
    resend = "receipt to be sent again", at least 1;
    /// A message's life ended before a device had it.
    expired = "expired before it was shown", at least 1;
    /// A device was told of a gap.
    gap_told = "gap told", at least 1;
    /// A session was displaced by a newer one.
    displaced = "session displaced", at least 1;
    /// A fan-out worker acknowledged what it had spread.
    spread = "spread by a fan-out worker", at least 100;
    /// A fan-out worker took up what another one had left.
    spread_again = "spread by a second fan-out worker", at least 100;
    /// The store lost what was not synced.
    power_cut = "power cut", at least 1;
}

/// One counter.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn one(&self) {
        self.by(1);
    }
    /// So many more.
    pub fn by(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Rare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count, least) in self.rows() {
            writeln!(f, "{count:>8}  {name} (at least {least})")?;
        }
        Ok(())
    }
}
