// SPDX-License-Identifier: MIT OR Apache-2.0
//! The edge as its clients and its owners see it.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "edge/carriers.rs"]
mod carriers;
#[path = "edge/client.rs"]
mod client;
#[path = "edge/fan_out.rs"]
mod fan_out;
#[path = "edge/memory.rs"]
mod memory;
#[path = "edge/owner.rs"]
mod owner;
#[path = "edge/quic.rs"]
mod quic;
#[path = "edge/removal.rs"]
mod removal;
#[path = "edge/rig.rs"]
mod rig;
#[path = "edge/stubs.rs"]
mod stubs;
#[path = "edge/table.rs"]
mod table;
#[path = "edge/vectors.rs"]
mod vectors;
