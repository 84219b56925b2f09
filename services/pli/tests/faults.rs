// SPDX-License-Identifier: MIT OR Apache-2.0
//! The message path under faults over the real engines: the production types of delivery, edge session, outbox and inbox
//! in this process, as several workers and edges, each with connections of its own to one NATS server and one CQL node
//! through a proxy that can be made slow, silent or broken. Judged as the simulation is: every call at the ports by the
//! invariants, and at the end what devices showed by the history checker.
//!
//! A seed decides the faults, their order and their times; servers and network decide the rest. `PLI_FAULTS_SEEDS=n`
//! runs n seeds, `PLI_FAULTS_SEED=s` one again with its whole story.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "counts, seeds and lines that say why a test is skipped")]

#[path = "simulation/shared.rs"]
#[allow(dead_code, reason = "the simulation uses more of it")]
mod simulation;

mod faults {
    pub mod connections;
    mod days;
    pub mod failing;
    #[cfg(feature = "mutants")]
    mod mutants;
    pub mod run;
    pub mod schedule;
    pub mod servers;
    pub mod strike;
    pub mod suite;
}
