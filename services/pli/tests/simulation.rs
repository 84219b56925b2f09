// SPDX-License-Identifier: MIT OR Apache-2.0
//! The message path under seeded faults: the production types of delivery, edge session, outbox and inbox over the
//! in-memory models, on one thread with paused time. One seed decides everything; every call at the ports is judged,
//! and at the end the history checker judges what devices showed.
//!
//! `PLI_SIM_SEEDS=n` runs n seeds, `PLI_SIM_SEED=s` one seed with its whole story.

// The counts, the stories of single seeds and the mutants' lines are what these tests are run for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod simulation {
    pub mod cast;
    pub mod device;
    pub mod disk;
    pub mod faults;
    #[cfg(feature = "mutants")]
    mod mutants;
    pub mod network;
    pub mod oracle;
    pub mod owners;
    pub mod plan;
    pub mod ports;
    pub mod process;
    pub mod rare;
    pub mod rosters;
    pub mod run;
    pub mod seeds;
    pub mod stores;
    mod suite;
    pub mod trace;
    pub mod world;
}
