// SPDX-License-Identifier: MIT OR Apache-2.0
//! Launchers of real servers, for tests of engines.

pub mod nats;
