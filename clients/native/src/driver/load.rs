// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a profile to a core, or a new one.

use pli_client_core::{Core, Table};

use crate::client::{ClientOptions, damaged};
use crate::driver::now;
use crate::error::OpenError;
use crate::history::{handled_row, stored_key};
use crate::profile::{Profile, ProfileError, ProfileName};
use crate::{StorageError, Store};

/// The core that the profile holds; at first use a new one, durable on return.
pub(crate) fn load(profile: &Profile, options: &ClientOptions) -> Result<(Core, Store), OpenError> {
    let mut store = profile.store()?;
    let rows = rows(&store).map_err(ProfileError::from)?;
    if rows.is_empty() && options.name.device.is_some() {
        return Err(OpenError::NotLinked(options.name.clone()));
    }
    if rows.is_empty() {
        let (core, changes) = Core::create_with(options.name.handle.clone(), options.suite, rand::random(), now());
        let rows = changes.0.into_iter().map(|change| (stored_key(change.table, &change.key), change.value));
        let rows: Vec<_> = rows.chain([handled_row(0)]).collect();
        let rows = rows.iter().map(|(key, value)| (key.as_slice(), value.as_deref()));
        store.apply(rows).map_err(ProfileError::from)?;
        return Ok((core, store));
    }
    let mut core = Core::load(rand::random(), rows, now()).map_err(|error| damaged(profile.folder(), error))?;
    core.links_ended();
    choose_suite(&mut core, &mut store, options).map_err(ProfileError::from)?;
    if *core.handle() != options.name.handle {
        let held = ProfileName { handle: core.handle().clone(), device: options.name.device.clone() };
        let folder = profile.folder().display().to_string();
        return Err(OpenError::OtherHandle { folder, rightly: held.folder_name(), held, asked: options.name.clone() });
    }
    Ok((core, store))
}

/// An account that was never registered takes the suite that is asked for now: the server may have refused the last one.
fn choose_suite(core: &mut Core, store: &mut Store, options: &ClientOptions) -> Result<(), StorageError> {
    let changes = core.choose_suite(options.suite).0;
    let rows: Vec<_> =
        changes.into_iter().map(|change| (stored_key(change.table, &change.key), change.value)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    store.apply(rows.iter().map(|(key, value)| (key.as_slice(), value.as_deref())))
}

/// A row as the core takes it.
pub(crate) type CoreRow = (Table, Vec<u8>, Vec<u8>);

/// Every row but the history's. Bounded by the bounds of the core's own tables.
pub(crate) fn rows(store: &Store) -> Result<Vec<CoreRow>, StorageError> {
    let mut rows = Vec::new();
    for &table in Table::ALL.iter().filter(|&&table| table != Table::Messages) {
        let prefix = stored_key(table, &[]);
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = store.scan(&prefix, after.as_deref())?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            rows.extend(page.into_iter().map(|(key, value)| (table, key[prefix.len()..].to_vec(), value)));
        }
    }
    Ok(rows)
}
