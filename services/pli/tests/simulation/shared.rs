// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the faults' suite over real engines uses of the simulation.

pub mod cast;
pub mod device;
pub mod disk;
pub mod network;
pub mod oracle;
pub mod owners;
pub mod plan;
pub mod ports;
pub mod process;
pub mod rare;
pub mod rosters;
pub mod seeds;
pub mod stores;
pub mod trace;
pub mod world;
