// SPDX-License-Identifier: MIT OR Apache-2.0
//! What fuzzing reaches that nothing else may.

use bytes::Bytes;
use pli_ports::{LogEntry, NewEntry};

use crate::block;

/// The entries of a stored block, up to the first that is damaged.
pub fn block(bytes: Bytes) -> Vec<LogEntry> {
    block::decode(1, bytes).map_while(Result::ok).collect()
}

/// The block of these entries.
pub fn encoded(entries: &[LogEntry]) -> Vec<u8> {
    let mut out = Vec::new();
    for LogEntry { id, bytes, .. } in entries {
        block::encode(&NewEntry { shard: pli_domain::ShardId::new(0), id: *id, bytes: bytes.clone() }, &mut out);
    }
    out
}
