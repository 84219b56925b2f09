// SPDX-License-Identifier: MIT OR Apache-2.0
//! Models, conformance suites, fault harnesses and the history checker. Development only.
//!
//! [`memory`] holds an in-memory model of every port, [`conformance`] one suite per port that every engine and every
//! model must pass, [`engines`] starts the servers that some engines need, [`history`] the checker that judges event
//! logs, [`time`] the clocks that tests inject.

pub mod conformance;
pub mod engines;
pub mod history;
pub mod memory;
pub mod time;
