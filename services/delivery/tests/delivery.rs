// SPDX-License-Identifier: MIT OR Apache-2.0
//! Owners on the in-memory models, under paused time.

#[path = "delivery/aside.rs"]
mod aside;
#[path = "delivery/bounds.rs"]
mod bounds;
#[path = "delivery/handover.rs"]
mod handover;
#[path = "delivery/harness.rs"]
mod harness;
#[path = "delivery/path.rs"]
mod path;
#[path = "delivery/random.rs"]
mod random;
#[path = "delivery/receipts.rs"]
mod receipts;
#[path = "delivery/sessions.rs"]
mod sessions;
