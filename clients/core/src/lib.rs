// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client without I/O: MLS, outbox, ordering, dedupe, change sets.
//!
//! Nothing here opens a socket, reads a clock or asks the system for randomness on its own account: time and a seed are
//! arguments, frames and change sets are results. It compiles natively and to wasm32.
//!
//! - [`content`]: what is said, in the IETF MIMI content format.
//! - [`outbox`]: what this device sent and is not `stored` yet (steps 5 and 6 of "The path of a message" in docs/architecture.md).
//! - [`inbox`]: what arrives is shown once (Q9) and in lane order (Q10).
//! - [`identity`]: the account's and the device's keys, device lists, safety numbers.
//! - [`archive`]: a history, sealed for another device of the account.
//! - [`linking`]: how a companion device comes to an account.
//! - [`mls`]: groups (RFC 9420) with their change sets.
//! - [`Core`]: all of it as one state machine.

pub mod archive;
pub mod content;
mod core;
pub mod identity;
pub mod inbox;
pub mod linking;
pub mod mls;
pub mod outbox;

pub use core::*;
