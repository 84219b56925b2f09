// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service's named limits. A refusal carries the name of the setting.

use pli_domain::AccountId;
use pli_runtime::limits::Limit;

use crate::config::Config;

/// The limits of one process.
pub(crate) struct Limits {
    pub begun: Limit<AccountId>,
    pub calls: Limit<AccountId>,
}

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            begun: Limit::new("uploads_begun_per_account", config.uploads_begun_per_account),
            calls: Limit::new("media_calls_per_account", config.media_calls_per_account),
        }
    }
}
