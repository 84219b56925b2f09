// SPDX-License-Identifier: MIT OR Apache-2.0
//! Key packages of last resort that a welcome has used (RFC 9420 section 16.8). Who records welcomes could open all of them
//! with the one private key, so it goes soon after its first use.

use std::collections::BTreeSet;

use openmls::prelude::{ExtensionType, KeyPackageBundle};
use pli_domain::{ConversationId, UnixMillis};

use super::packages::KEY_PACKAGES;
use super::{Mls, MlsError};

/// How the account's rows begin that say when a package was first used; the key of the package's row follows.
const SPENT: &[u8] = b"PliSpent";

/// A package of last resort that let this device into a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastResort {
    /// This device made a newer one that nobody has used.
    pub is_replaced: bool,
}

impl Mls {
    /// The package of last resort by which this device has just come into a group, if it was one; from now on, `at`, its
    /// private key counts as used.
    pub(crate) fn note_last_resort(&mut self, id: ConversationId, at: UnixMillis) -> Option<LastResort> {
        let leaf = self.groups.get(&id)?.mls.own_leaf_node()?;
        if !leaf.capabilities().extensions().contains(&ExtensionType::LastResort) {
            return None;
        }
        let made = self.account.map(KEY_PACKAGES, |key, value| {
            let bundle = serde_json::from_slice::<KeyPackageBundle>(value).ok()?;
            let package = bundle.key_package();
            let is_used = package.leaf_node().encryption_key() == leaf.encryption_key();
            package.last_resort().then(|| (key.to_vec(), package.life_time().not_after(), is_used))
        });
        let (used, until, _) = made.iter().find(|(.., is_used)| *is_used)?;
        let unspent = |key: &Vec<u8>| !self.spent.contains_key(key);
        let is_replaced = made.iter().any(|(key, other, _)| other > until && unspent(key));
        if !self.spent.contains_key(used) {
            self.spent.insert(used.clone(), at);
            self.account.put(spent_key(used), at.0.to_be_bytes().to_vec());
        }
        Some(LastResort { is_replaced })
    }

    /// When the first of the packages was used whose private keys are still here.
    pub(crate) fn spent_since(&self) -> Option<UnixMillis> {
        self.spent.values().min().copied()
    }

    /// Deletes the private keys of packages of last resort that were used at `until` or before, and of those that were used
    /// after `latest`, by a clock that was wrong.
    pub(crate) fn forget_spent(&mut self, until: UnixMillis, latest: UnixMillis) {
        let over = |at: UnixMillis| at <= until || at > latest;
        let gone: Vec<Vec<u8>> = self.spent.iter().filter(|(_, at)| over(**at)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.spent.remove(&key);
            self.account.forget(&BTreeSet::from([spent_key(&key), key]));
        }
    }

    /// What was used before this start.
    pub(super) fn load_spent(&mut self) -> Result<(), MlsError> {
        let read = |key: &[u8], value: &[u8]| Some((key.get(SPENT.len()..)?.to_vec(), value.try_into().ok()));
        for (key, at) in self.account.map(SPENT, read) {
            let at = at.map(u64::from_be_bytes).ok_or(MlsError::Decode("an MLS row"))?;
            self.spent.insert(key, UnixMillis(at));
        }
        Ok(())
    }
}

fn spent_key(package: &[u8]) -> Vec<u8> {
    [SPENT, package].concat()
}
