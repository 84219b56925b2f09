// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an operator can set.

use pli_runtime::limits::Rate;
use serde::{Deserialize, Serialize};

/// Who may register an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Anybody, within the limit by address.
    Open,
    /// Who has an invite. Not built yet: refuses everybody.
    Invite,
    /// Who signs in at the operator's issuer. Not built yet: refuses everybody.
    Oidc,
}

impl Registration {
    /// As the settings write it and server info says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Invite => "invite",
            Self::Oidc => "oidc",
        }
    }
}

/// Settings of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who may register. Default `open`.
    pub registration: Registration,
    /// Registrations per address (IPv6: per /64). Default 100 at once, 20 a minute.
    pub registrations_per_address: Rate,
    /// Look-ups by handle per account. Default 100 at once, 30 a minute.
    pub lookups_per_account: Rate,
    /// Key packages claimed per account. Default 1,000 at once (four full groups), 250 a minute.
    pub claims_per_account: Rate,
    /// Key packages that one account claims of one other account, whatever devices it has: nobody empties the stock of
    /// somebody else alone. Default 50 at once, 10 a minute.
    pub claims_of_one_account: Rate,
    /// Device lists fetched per account. Default 2,000 at once (eight full groups), 1,000 a minute.
    pub lists_fetched_per_account: Rate,
    /// Device lists put per account; each costs two signature checks. Default 20 at once, 5 a minute.
    pub lists_put_per_account: Rate,
    /// Key packages published per account; each costs two signature checks. Default 1,500 at once, which ten new devices
    /// need, and 60 a minute.
    pub publications_per_account: Rate,
    /// Whether devices and conversations of suite 0x004F are taken besides 0x0001 and 0x0003: X-Wing, against who records
    /// now and has a quantum computer one day. Its code point is not assigned yet; where that changes, conversations of it
    /// have to be made anew. Default `false`.
    pub post_quantum: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            registration: Registration::Open,
            registrations_per_address: Rate::new(100, 20),
            lookups_per_account: Rate::new(100, 30),
            claims_per_account: Rate::new(1_000, 250),
            claims_of_one_account: Rate::new(50, 10),
            lists_fetched_per_account: Rate::new(2_000, 1_000),
            lists_put_per_account: Rate::new(20, 5),
            publications_per_account: Rate::new(1_500, 60),
            post_quantum: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_is_named_as_the_settings_write_it() {
        for registration in [Registration::Open, Registration::Invite, Registration::Oidc] {
            let deserializer = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(registration.name());
            assert_eq!(Registration::deserialize(deserializer), Ok(registration));
        }
    }
}
