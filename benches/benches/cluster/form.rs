// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much is measured.

use std::time::Duration;

/// How large the cluster is and how long each part takes.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// One server of each kind, figures that count for nothing.
    pub small: bool,
    /// Pairs that talk.
    pub pairs: usize,
    /// Pairs whose receiver is away, among as many as `pairs`: one in twenty.
    pub away: usize,
    /// Before each measurement, so that what waited is delivered and caches are filled.
    pub warm: Duration,
    /// Each measurement.
    pub measured: Duration,
    /// One of the five runs of a limit.
    pub limit: Duration,
    /// A rate that is held must be held for so long.
    pub held: Duration,
    /// Messages a second of the slow and the middle rate.
    pub rates: [f64; 2],
    /// Settings of the roles besides those that put limits out of the way.
    pub more: &'static str,
    /// An envelope that is not acknowledged after so long gets a row: `delivery.spill_after_ms`.
    pub spill_after: Duration,
}

impl Form {
    /// The one that counts.
    pub const fn full() -> Self {
        Self {
            small: false,
            pairs: 64,
            away: 3,
            warm: Duration::from_secs(2),
            measured: Duration::from_secs(20),
            limit: Duration::from_secs(4),
            held: Duration::from_secs(20),
            rates: [10.0, 300.0],
            more: "",
            spill_after: Duration::from_secs(10),
        }
    }

    /// The one that proves that the measurement works.
    pub const fn small() -> Self {
        Self {
            small: true,
            pairs: 8,
            away: 1,
            warm: Duration::from_millis(500),
            measured: Duration::from_secs(2),
            limit: Duration::from_millis(300),
            held: Duration::from_secs(1),
            rates: [10.0, 60.0],
            more: "[delivery]\nspill_after_ms = 2000\nsettle_every_ms = 500\n",
            spill_after: Duration::from_secs(2),
        }
    }
}
