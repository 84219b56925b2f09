// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bad days: one thing goes wrong for long, is told clearly, and nothing is lost.

mod clocks;
mod database;
mod leases;
mod workers;

use crate::simulation::cast::Outcome;
use crate::simulation::plan::Plan;

/// Seed of the days: what they vary is not what goes wrong.
const SEED: u64 = 7;

/// The plan of a day on which nothing happens by itself.
fn plan() -> Plan {
    Plan {
        send_every: std::time::Duration::from_millis(400),
        stay: std::time::Duration::from_secs(15),
        ..crate::faults::schedule::plan(SEED)
    }
}

/// Nothing was lost, shown twice or reordered, and everything that was accepted was stored.
fn assert_whole(outcome: &Outcome) {
    assert_eq!(outcome.failure, None);
    let report = &outcome.report;
    assert!(report.intended > 0, "nobody sent anything");
    assert_eq!((report.accepted, report.stored), (report.intended, report.intended));
}
