// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service's named rate limits, each by account.

use pli_domain::AccountId;
use pli_runtime::limits::Limit;

use crate::config::Config;

/// The service's limits; a refusal carries the name of the setting.
pub(crate) struct Limits {
    pub changes: Limit<AccountId>,
    pub questions: Limit<AccountId>,
    pub pages_stored: Limit<AccountId>,
    pub pages_fetched: Limit<AccountId>,
}

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            changes: Limit::new("changes_per_account", config.changes_per_account),
            questions: Limit::new("questions_per_account", config.questions_per_account),
            pages_stored: Limit::new("pages_stored_per_account", config.pages_stored_per_account),
            pages_fetched: Limit::new("pages_fetched_per_account", config.pages_fetched_per_account),
        }
    }
}
