// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an operator can set.

use std::path::PathBuf;

use pli_domain::UnixMillis;
use pli_runtime::limits::Rate;
use serde::{Deserialize, Serialize};

/// Settings of the media service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder of the parts; made when it does not exist. Processes with the role media must share it, so on a cluster it
    /// must be set. Default: the folder media in server.data.
    pub folder: PathBuf,
    /// Room of an account's uploads that have not expired, in bytes. Default 256 MiB: four histories at their longest.
    pub quota_bytes: u64,
    /// Life of an upload from its beginning, in hours; 1 to 168. Default 168, which is 7 days.
    pub keep_hours: u32,
    /// Uploads begun per account; going on with one counts. Default 20 at once, 10 a minute.
    pub uploads_begun_per_account: Rate,
    /// Calls about uploads and their parts per account. Default 1,200 at once, 1,800 a minute.
    pub media_calls_per_account: Rate,
    /// How often to delete what has expired, in milliseconds. Default 10 minutes.
    pub sweep_every_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            folder: PathBuf::new(),
            quota_bytes: 256 << 20,
            keep_hours: 168,
            uploads_begun_per_account: Rate::new(20, 10),
            media_calls_per_account: Rate::new(1_200, 1_800),
            sweep_every_ms: 600_000,
        }
    }
}

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("media.{field} {problem}")]
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
        if !(1..=1 << 50).contains(&self.quota_bytes) {
            return refuse("quota_bytes", "must be 1 to 1125899906842624");
        }
        if !(1..=168).contains(&self.keep_hours) {
            return refuse("keep_hours", "must be 1 to 168");
        }
        if self.sweep_every_ms == 0 {
            return refuse("sweep_every_ms", "is 0; set at least 1");
        }
        Ok(())
    }

    /// When an upload expires that is begun `now`.
    pub(crate) fn expires_at(&self, now: UnixMillis) -> UnixMillis {
        UnixMillis(now.0.saturating_add(u64::from(self.keep_hours) * 3_600_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        assert_eq!(Config::default().check(), Ok(()));
        let broken = [
            ("quota_bytes", Config { quota_bytes: 0, ..Config::default() }),
            ("keep_hours", Config { keep_hours: 169, ..Config::default() }),
            ("sweep_every_ms", Config { sweep_every_ms: 0, ..Config::default() }),
        ];
        for (field, config) in broken {
            let refused = config.check().expect_err(field);
            assert!(refused.to_string().starts_with(&format!("media.{field} ")), "{refused}");
        }
    }
}
