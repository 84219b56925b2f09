// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an operator can set.

use pli_runtime::limits::Rate;
use serde::{Deserialize, Serialize};

/// Settings of the links service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Life of a rendezvous from its opening, in milliseconds; 1 s to 10 minutes. Default a minute.
    pub rendezvous_ms: u32,
    /// Longest wait for a blob, in milliseconds. Keep it 1 s below `edge.call_ms` and `internal.call_timeout_ms`, which
    /// end the call. Default 8 s.
    pub wait_ms: u32,
    /// Calls that wait for a blob in this process at a time; each asks the store about once a second. Default 2,000.
    pub rendezvous_waits_max: usize,
    /// Rendezvous that were opened through this process and are not over, at most 128 KiB of blobs each. Default 2,000.
    pub rendezvous_open_max: usize,
    /// Rendezvous opened per address (IPv6: per /64). Default 10 at once, 10 a minute.
    pub rendezvous_opened_per_address: Rate,
    /// Rendezvous joined per account. Default 10 at once, 5 a minute.
    pub rendezvous_joined_per_account: Rate,
    /// Blobs put and waited for per address (IPv6: per /64). Default 300 at once, 300 a minute.
    pub rendezvous_calls_per_address: Rate,
    /// How often to forget what is over, in milliseconds, where the store does not do it by itself. Default 10 s.
    pub sweep_every_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rendezvous_ms: 60_000,
            wait_ms: 8_000,
            rendezvous_waits_max: 2_000,
            rendezvous_open_max: 2_000,
            rendezvous_opened_per_address: Rate::new(10, 10),
            rendezvous_joined_per_account: Rate::new(10, 5),
            rendezvous_calls_per_address: Rate::new(300, 300),
            sweep_every_ms: 10_000,
        }
    }
}

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("links.{field} {problem}")]
pub struct InvalidConfig {
    /// The field.
    pub field: &'static str,
    /// What is wrong and what would do.
    pub problem: &'static str,
}

impl Config {
    /// Refuses what a type cannot say.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let refuse = |field, problem| Err(InvalidConfig { field, problem });
        if !(1_000..=600_000).contains(&self.rendezvous_ms) {
            return refuse("rendezvous_ms", "must be 1000 to 600000");
        }
        if self.wait_ms > 25_000 {
            return refuse("wait_ms", "must be at most 25000");
        }
        for (field, value) in
            [("rendezvous_waits_max", self.rendezvous_waits_max), ("rendezvous_open_max", self.rendezvous_open_max)]
        {
            if !(1..=1_000_000).contains(&value) {
                return refuse(field, "must be 1 to 1000000");
            }
        }
        if self.sweep_every_ms == 0 {
            return refuse("sweep_every_ms", "is 0; set at least 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        assert_eq!(Config::default().check(), Ok(()));
        let broken = [
            ("rendezvous_ms", Config { rendezvous_ms: 999, ..Config::default() }),
            ("wait_ms", Config { wait_ms: 25_001, ..Config::default() }),
            ("rendezvous_waits_max", Config { rendezvous_waits_max: 0, ..Config::default() }),
            ("rendezvous_open_max", Config { rendezvous_open_max: 0, ..Config::default() }),
            ("sweep_every_ms", Config { sweep_every_ms: 0, ..Config::default() }),
        ];
        for (field, config) in broken {
            let refused = config.check().expect_err(field);
            assert!(refused.to_string().starts_with(&format!("links.{field} ")), "{refused}");
        }
    }
}
