// SPDX-License-Identifier: MIT OR Apache-2.0
//! The embedded engine against the conformance suites, kills, power cuts, full disks and time.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what tests share is test code too")]

#[path = "embedded/backup.rs"]
mod backup;
#[path = "embedded/bounds.rs"]
mod bounds;
#[path = "embedded/conformance.rs"]
mod conformance;
#[path = "embedded/crash.rs"]
mod crash;
#[path = "embedded/folder.rs"]
mod folder;
#[path = "embedded/ledger.rs"]
mod ledger;
#[path = "embedded/space.rs"]
mod space;
#[path = "embedded/support.rs"]
mod support;
#[path = "embedded/tables.rs"]
mod tables;
#[path = "embedded/worker.rs"]
mod worker;
