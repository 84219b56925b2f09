// SPDX-License-Identifier: MIT OR Apache-2.0
//! A session of the first version: what its clients said, what they heard, and what one of them had stored at the end. It
//! was recorded once, into `proto/vectors/session_v1.json`, and is never recorded anew: whatever changes, clients of that
//! version are out there. See docs/protocol.md, "Compatibility".

mod file;
mod replay;
mod story;

use bytes::Bytes;

pub use replay::replay;

use crate::line::Happening;
use crate::person::Rows;

/// The nonce of every handshake in it.
pub const NONCE: [u8; 32] = [0x91; 32];

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The contracts as they were: the name of each file, and its descriptor (`google.protobuf.FileDescriptorProto`).
    pub contracts: Vec<(String, Bytes)>,
    /// What happened, in order.
    pub happenings: Vec<Happening>,
    /// What Bob's client had stored at the end.
    pub rows: Rows,
}
