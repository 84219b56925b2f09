// SPDX-License-Identifier: MIT OR Apache-2.0
//! Models, conformance suites, fault harnesses and the history checker. Development only.
//!
//! [`memory`] holds an in-memory model of every port, [`conformance`] one suite per port that every engine and every
//! model must pass, [`engines`] launchers of real servers, [`cluster`] every role apart on such servers, [`proxy`] the
//! way to a server, to be broken, [`history`] the checker that judges event logs, [`time`] the clocks that tests inject,
//! [`disk`] disks that get full, [`summary`] the file of what was measured.

pub mod cluster;
pub mod conformance;
pub mod disk;
pub mod engines;
pub mod history;
pub mod memory;
pub mod proxy;
pub mod summary;
pub mod time;
