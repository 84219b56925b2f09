// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an operator can set.

use pli_domain::limits::{FAN_OUT_ABOVE_SHARDS, PAYLOAD_BYTES_MAX};
use pli_runtime::limits::Rate;
use serde::{Deserialize, Serialize};

/// Settings of the conversations service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Creations, commits, proposals and failure reports per account. Default 500 at once, 240 a minute.
    pub changes_per_account: Rate,
    /// Questions (commits, group info, lists) per account. Default 1,000 at once, 600 a minute.
    pub questions_per_account: Rate,
    /// Pages of 48 KiB stored per account. Default 512 at once (24 MiB), 128 a minute.
    pub pages_stored_per_account: Rate,
    /// Pages of 48 KiB fetched per account. Default 2,048 at once (96 MiB), 1,024 a minute.
    pub pages_fetched_per_account: Rate,
    /// Bytes of decoded groups kept in memory, measured by their stored size. Default 64 MiB.
    pub groups_cached_bytes: u64,
    /// A decided commit whose epoch is still closed after so many milliseconds was left behind; others finish it.
    /// Default 2,000.
    pub left_behind_after_ms: u64,
    /// How often to look for commits that were left behind, in milliseconds. Default 1,000.
    pub sweep_every_ms: u64,
    /// When an edge asks again about an epoch that is not open yet, in milliseconds. Default 200.
    pub not_open_retry_ms: u32,
    /// Messages, commits and proposals to devices of more shards than this are appended once, for the fan-out worker of
    /// their conversation, which appends them to each by reference to one payload. Edges are told with the roster.
    /// Default 8.
    pub fan_out_above_shards: usize,
    /// Conversations of suite 0x004F may be made; `directory.post_quantum` says so for all roles.
    #[serde(skip)]
    pub post_quantum: bool,
    /// Most bytes of a group's public state, which clients fetch as one payload: that bounds groups of suite 0x004F. A commit
    /// that adds leaves half of it free. Lower in tests only.
    #[serde(skip)]
    pub state_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            changes_per_account: Rate::new(500, 240),
            questions_per_account: Rate::new(1_000, 600),
            pages_stored_per_account: Rate::new(512, 128),
            pages_fetched_per_account: Rate::new(2_048, 1_024),
            groups_cached_bytes: 64 * 1024 * 1024,
            left_behind_after_ms: 2_000,
            sweep_every_ms: 1_000,
            not_open_retry_ms: 200,
            fan_out_above_shards: FAN_OUT_ABOVE_SHARDS,
            post_quantum: false,
            state_bytes_max: PAYLOAD_BYTES_MAX as u64,
        }
    }
}
