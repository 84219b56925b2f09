// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an operator may set of a delivery worker.

use std::time::Duration;

use pli_domain::limits;
use serde::{Deserialize, Serialize};

/// Settings of delivery. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a shard's lease lives without renewal, in milliseconds: a crashed worker's shards stand still about so
    /// long.
    pub lease_ttl_ms: u64,
    /// How often a held lease is renewed, in milliseconds; workers below their share look for free ones four times as
    /// often.
    pub lease_renew_ms: u64,
    /// How often the checkpoint is moved on, in milliseconds.
    pub settle_every_ms: u64,
    /// An envelope that is not acknowledged after so many milliseconds gets a row; 0 writes every row at once.
    pub spill_after_ms: u64,
    /// After a start nothing is settled for so many milliseconds: edges announce their sessions again meanwhile.
    pub announce_round_ms: u64,
    /// Longest wait between two starts of one shard, in milliseconds.
    pub start_backoff_max_ms: u64,
    /// Longest wait between two tries of a store call, in milliseconds.
    pub store_backoff_max_ms: u64,
    /// How long a stopping owner may take to settle before it leaves the rest to the next one, in milliseconds.
    pub release_grace_ms: u64,
    /// Bytes of envelopes that one owner keeps in memory. Above half of it the oldest are spilled at once, above all
    /// of it (the database is down) bodies are dropped and read again from the log when they are needed.
    pub tail_bytes_max: usize,
    /// Un-acknowledged (device, position) pairs that one owner keeps; above it the owner stops following the log.
    pub tail_slots_max: usize,
    /// Rows and registers that one settle writes at most; the rest waits for the next one.
    pub settle_rows_max: usize,
    /// Bytes that one read of the log takes at most.
    pub read_bytes_max: usize,
    /// Most rows in a page.
    pub page_rows_max: usize,
    /// Bytes of envelopes after which a page ends.
    pub page_bytes_max: usize,
    /// Pages, registrations and receipt queries that one owner answers at once; more are told to come back.
    pub jobs_max: usize,
    /// A doorbell carries an envelope of at most so many bytes.
    pub ring_body_bytes_max: usize,
    /// Un-acknowledged rows of one device above which its floor rises.
    pub queue_rows_max: usize,
    /// Un-acknowledged bytes of one device above which its floor rises.
    pub queue_bytes_max: usize,
    /// Entries that could not be decoded and are kept per shard; above it the owner stops following.
    pub aside_entries_max: usize,
    /// Rows of a device are deleted after so many acknowledgements …
    pub trim_acks: u32,
    /// … or so many milliseconds.
    pub trim_after_ms: u64,
    /// How long entries stay in a log of its own behind the checkpoint, in milliseconds, so that receipts can be
    /// judged by them.
    pub receipts_kept_ms: u64,
    /// While nothing is settled the last notice is repeated this often, in milliseconds.
    pub notice_repeat_ms: u64,
    /// Sessions of one device that are rung; an older one is forgotten.
    pub sessions_per_device_max: usize,
    /// A session that was not heard of for so many milliseconds is forgotten. Edges re-check at least every 300 s.
    pub session_idle_ms: u64,
    /// Devices without sessions whose queue size one owner remembers.
    pub idle_devices_max: usize,
    /// Edges that one owner sends notices to; the one that was silent longest is forgotten.
    pub edges_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease_ttl_ms: 6_000,
            lease_renew_ms: 2_000,
            settle_every_ms: 2_000,
            spill_after_ms: 10_000,
            announce_round_ms: 2_000,
            start_backoff_max_ms: 60_000,
            store_backoff_max_ms: 5_000,
            release_grace_ms: 5_000,
            tail_bytes_max: 64 * 1024 * 1024,
            tail_slots_max: 1_000_000,
            settle_rows_max: 16_384,
            read_bytes_max: 1024 * 1024,
            page_rows_max: 256,
            page_bytes_max: 256 * 1024,
            jobs_max: 256,
            ring_body_bytes_max: 16 * 1024,
            queue_rows_max: limits::QUEUE_ROWS_MAX,
            queue_bytes_max: limits::QUEUE_BYTES_MAX,
            aside_entries_max: limits::ASIDE_ENTRIES_MAX,
            trim_acks: 256,
            trim_after_ms: 60_000,
            receipts_kept_ms: 24 * 3600 * 1000,
            notice_repeat_ms: 60_000,
            sessions_per_device_max: 8,
            session_idle_ms: 15 * 60 * 1000,
            idle_devices_max: 16_384,
            edges_max: 4_096,
        }
    }
}

macro_rules! durations {
    ($($name:ident = $field:ident,)*) => {
        impl Config {
            $(pub(crate) fn $name(&self) -> Duration { Duration::from_millis(self.$field) })*
        }
    };
}
durations! {
    lease_ttl = lease_ttl_ms,
    lease_renew = lease_renew_ms,
    settle_every = settle_every_ms,
    spill_after = spill_after_ms,
    announce_round = announce_round_ms,
    start_backoff_max = start_backoff_max_ms,
    store_backoff_max = store_backoff_max_ms,
    release_grace = release_grace_ms,
    trim_after = trim_after_ms,
    receipts_kept = receipts_kept_ms,
    notice_repeat = notice_repeat_ms,
    session_idle = session_idle_ms,
}

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("delivery.{field} {problem}")]
pub struct InvalidConfig {
    /// The field.
    pub field: &'static str,
    /// What is wrong and what would do.
    pub problem: &'static str,
}

impl Config {
    /// Whether the settings can work together; names the first that cannot.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let positive = [
            ("settle_every_ms", self.settle_every_ms),
            ("lease_renew_ms", self.lease_renew_ms),
            ("tail_bytes_max", self.tail_bytes_max as u64),
            ("tail_slots_max", self.tail_slots_max as u64),
            ("settle_rows_max", self.settle_rows_max as u64),
            ("read_bytes_max", self.read_bytes_max as u64),
            ("page_rows_max", self.page_rows_max as u64),
            ("page_bytes_max", self.page_bytes_max as u64),
            ("jobs_max", self.jobs_max as u64),
            ("queue_rows_max", self.queue_rows_max as u64),
            ("queue_bytes_max", self.queue_bytes_max as u64),
            ("sessions_per_device_max", self.sessions_per_device_max as u64),
        ];
        if let Some((field, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(InvalidConfig { field, problem: "is 0; set at least 1" });
        }
        if self.lease_renew_ms * 2 > self.lease_ttl_ms {
            return Err(InvalidConfig { field: "lease_renew_ms", problem: "must be at most half of lease_ttl_ms" });
        }
        if self.page_bytes_max > 512 * 1024 {
            return Err(InvalidConfig { field: "page_bytes_max", problem: "must be at most 524288" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_work_and_nonsense_is_named() {
        assert_eq!(Config::default().check(), Ok(()));
        let bad = Config { settle_every_ms: 0, ..Config::default() };
        assert_eq!(bad.check().map_err(|e| e.field), Err("settle_every_ms"));
        let bad = Config { lease_renew_ms: 9_000, ..Config::default() };
        assert_eq!(bad.check().map_err(|e| e.field), Err("lease_renew_ms"));
    }
}
