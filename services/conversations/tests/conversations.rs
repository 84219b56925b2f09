// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conversations service as its callers see it: real MLS clients call it through a generated client, over the
//! in-memory models of its stores and logs.

#[path = "conversations/change.rs"]
mod change;
#[path = "conversations/crash.rs"]
mod crash;
#[path = "conversations/create.rs"]
mod create;
#[path = "conversations/device.rs"]
mod device;
#[path = "conversations/fixture.rs"]
mod fixture;
#[path = "conversations/forged.rs"]
mod forged;
#[path = "conversations/large.rs"]
mod large;
#[path = "conversations/leave.rs"]
mod leave;
#[path = "conversations/payloads.rs"]
mod payloads;
#[path = "conversations/race.rs"]
mod race;
#[path = "conversations/rejoin.rs"]
mod rejoin;
