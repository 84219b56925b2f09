// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory's named rate limits, by account or by address.

use std::net::IpAddr;

use pli_domain::AccountId;
use pli_runtime::limits::Limit;

use crate::config::Config;

/// The directory's limits; a refusal carries the name of the setting.
pub(crate) struct Limits {
    pub registrations: Limit<IpAddr>,
    pub lookups: Limit<AccountId>,
    pub claims: Limit<AccountId>,
    /// By who claims and whose packages they are.
    pub claims_of_one: Limit<(AccountId, AccountId)>,
    pub lists_fetched: Limit<AccountId>,
    pub lists_put: Limit<AccountId>,
    pub publications: Limit<AccountId>,
}

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            registrations: Limit::new("registrations_per_address", config.registrations_per_address),
            lookups: Limit::new("lookups_per_account", config.lookups_per_account),
            claims: Limit::new("claims_per_account", config.claims_per_account),
            claims_of_one: Limit::new("claims_of_one_account", config.claims_of_one_account),
            lists_fetched: Limit::new("lists_fetched_per_account", config.lists_fetched_per_account),
            lists_put: Limit::new("lists_put_per_account", config.lists_put_per_account),
            publications: Limit::new("publications_per_account", config.publications_per_account),
        }
    }
}
