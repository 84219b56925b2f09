// SPDX-License-Identifier: MIT OR Apache-2.0
//! What fuzzing reaches that nothing else may.

use bytes::Bytes;
use pli_domain::ShardMap;

/// Parts of a receipt that a client presents; none when this server cannot have made it.
pub fn receipt(receipt: &Bytes, shards: &ShardMap) -> Option<usize> {
    crate::receipts::parse(receipt, shards).map(|parts| parts.len())
}

/// Whether the text is a version of a client.
pub fn version(text: &str) -> bool {
    crate::session::hello::version_numbers(text).is_some()
}
