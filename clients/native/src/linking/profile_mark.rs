// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far a profile of a companion device came.

use std::time::Duration;

use pli_client_core::Table;
use pli_domain::UnixMillis;

use crate::client::ClientOptions;
use crate::history::stored_key;
use crate::profile::{self, Profile, ProfileError};
use crate::{StorageError, Store};

/// The key of the row that says that a link is not finished; its value is the server's time from which on
/// nobody will list this device by the code that it showed, in milliseconds since 1970, as a big-endian 64-bit number. No table has this number.
pub(super) const MARK: &[u8] = b"\xf0link";

/// How long a device list may be on its way at the end of a rendezvous.
const LISTED_WITHIN: Duration = Duration::from_secs(5);

/// How a profile of a companion device stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has no account yet.
    Fresh,
    /// It was to be listed, and was stopped before it heard that it is.
    Begun,
    /// It is a device of an account.
    Linked,
}

/// Looks into the profile; holds it only meanwhile.
pub fn standing(options: &ClientOptions) -> Result<Standing, ProfileError> {
    let folder = profile::folder(&options.home, &options.server, &options.name);
    if !profile::exists(&folder) {
        return Ok(Standing::Fresh);
    }
    let profile = Profile::lock(&folder)?;
    Ok(of(&profile.store()?)?)
}

pub(super) fn of(store: &Store) -> Result<Standing, StorageError> {
    if store.get(MARK)?.is_some() {
        return Ok(Standing::Begun);
    }
    let rows = store.scan(&stored_key(Table::Identity, &[]), None)?;
    Ok(if rows.is_empty() { Standing::Fresh } else { Standing::Linked })
}

/// Until when it may still be listed.
pub(super) fn undecided_until(store: &Store) -> Result<UnixMillis, StorageError> {
    let value = store.get(MARK)?.and_then(|value| Some(u64::from_be_bytes(value.try_into().ok()?)));
    Ok(UnixMillis(value.unwrap_or(0)))
}

/// The row of a link whose rendezvous is over then, by the server's time.
pub(super) fn begins(over: UnixMillis) -> (Vec<u8>, Option<Vec<u8>>) {
    (MARK.to_vec(), Some(over.after(LISTED_WITHIN).0.to_be_bytes().to_vec()))
}

/// Takes it away.
pub(super) fn finished() -> (Vec<u8>, Option<Vec<u8>>) {
    (MARK.to_vec(), None)
}
