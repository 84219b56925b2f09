// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a page stores: change sets one behind the other. Later ones win, so a page may append them; what they replaced or
//! deleted, keys above all, stands in them until the page begins anew with what is left ([`compacted`]).

use std::collections::BTreeMap;

use pli_client_core::{ChangeSet, Table};
use prost::Message;
use wasm_bindgen::prelude::JsError;

/// One change of a row; numbers are never reused.
#[derive(Clone, PartialEq, Message)]
struct SavedRow {
    #[prost(uint32, tag = "1")]
    table: u32,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    /// None deletes the row.
    #[prost(bytes = "vec", optional, tag = "3")]
    value: Option<Vec<u8>>,
}

/// Bytes of several, one behind the other, are those of all of them.
#[derive(Clone, PartialEq, Message)]
struct Saved {
    #[prost(message, repeated, tag = "1")]
    rows: Vec<SavedRow>,
}

/// A change set as bytes.
pub(crate) fn bytes(changes: ChangeSet) -> Vec<u8> {
    let row = |change: pli_client_core::Change| SavedRow {
        table: u32::from(change.table.number()),
        key: change.key,
        value: change.value,
    };
    Saved { rows: changes.0.into_iter().map(row).collect() }.encode_to_vec()
}

/// Why saved bytes cannot be read.
#[derive(Debug)]
pub(crate) enum SavedError {
    /// They are not what was saved, or cut off.
    Damaged(prost::DecodeError),
    /// Of a table that this version does not know.
    Later,
}

impl From<SavedError> for JsError {
    fn from(error: SavedError) -> Self {
        match error {
            SavedError::Damaged(error) => Self::new(&format!("the saved bytes are damaged: {error}")),
            SavedError::Later => Self::new("a saved row is of a later version; load a newer client"),
        }
    }
}

/// The rows that all the change sets in `saved` left.
pub(crate) fn rows(saved: &[u8]) -> Result<impl Iterator<Item = (Table, Vec<u8>, Vec<u8>)>, SavedError> {
    let mut rows = BTreeMap::new();
    for row in Saved::decode(saved).map_err(SavedError::Damaged)?.rows {
        let table = u8::try_from(row.table).ok().and_then(Table::from_number).ok_or(SavedError::Later)?;
        match row.value {
            Some(value) => drop(rows.insert((table, row.key), value)),
            None => drop(rows.remove(&(table, row.key))),
        }
    }
    Ok(rows.into_iter().map(|((table, key), value)| (table, key, value)))
}

/// One change set that says the same as all in `saved`, without anything that was replaced or deleted.
pub(crate) fn compacted(saved: &[u8]) -> Result<Vec<u8>, SavedError> {
    let row = |(table, key, value): (Table, Vec<u8>, Vec<u8>)| SavedRow {
        table: u32::from(table.number()),
        key,
        value: Some(value),
    };
    Ok(Saved { rows: rows(saved)?.map(row).collect() }.encode_to_vec())
}

#[cfg(test)]
mod seized;
