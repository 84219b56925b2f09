// SPDX-License-Identifier: MIT OR Apache-2.0
//! What fuzzing reaches that nothing else may.

use crate::leases;
use crate::link::parse;
use crate::wire::{FoundWhole, Stored, StreamInfo, delivered};

/// Reads an answer of the JetStream API as everything that it might be.
pub fn answer(payload: &[u8]) {
    let _ = parse::<Stored>(payload);
    if let Ok(found) = parse::<FoundWhole>(payload) {
        let _ = (found.message.head.header("Nats-Msg-Id"), found.message.bytes());
    }
    if let Ok(info) = parse::<StreamInfo>(payload) {
        let _ = info.cluster.as_ref().map(|cluster| cluster.servers().count());
    }
}

/// Reads a value of the bucket of leases and workers.
pub fn lease(payload: &[u8]) {
    leases::read_again(payload);
}

/// Reads where a delivered message stands.
pub fn reply_subject(text: &str) {
    let _ = delivered(text);
}
