// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the database holds, reached without blocking the runtime.

mod archived;

use std::sync::{Arc, Mutex, PoisonError};

use pli_client_core::{ChangeSet, MessageRow, RowKind, Table};
use pli_domain::ConversationId;
use prost::Message;

use crate::{StorageError, Store};

/// The key of the row that says up to which place messages were handled by a program, as a big-endian 64-bit number. No
/// table has this number.
const HANDLED: &[u8] = b"\xf0handled";
/// Where the core keeps the last place that was given.
const ORDER: &[u8] = b"order";

/// A row of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryItem {
    /// Its place; rises in the order of showing.
    pub order: u64,
    /// The conversation that carried it.
    pub conversation: ConversationId,
    /// What it says.
    pub row: MessageRow,
}

/// The store, shared between the driver and readers of the history. Calls run one at a time on the blocking pool.
#[derive(Debug, Clone)]
pub(crate) struct Rows(Arc<Mutex<Option<Store>>>);

impl Rows {
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Mutex::new(Some(store))))
    }

    /// Closes the store, whoever else still holds a handle to it: from here on every call ends with
    /// [`StorageError::Stopped`].
    pub async fn close(&self) {
        let store = self.0.clone();
        // Closing writes; where that panicked there is nothing left to close.
        let _ = tokio::task::spawn_blocking(move || drop(store.lock().unwrap_or_else(PoisonError::into_inner).take()))
            .await;
    }

    /// Commits a change set durably, with the place up to which messages are handled where that has risen.
    pub async fn commit(&self, changes: ChangeSet, handled: Option<u64>) -> Result<(), StorageError> {
        self.with(move |store| {
            let before = if handled.is_some() { place(store, HANDLED)? } else { None };
            let handled = handled.filter(|handled| before < Some(*handled)).map(handled_row);
            let rows = changes.0.into_iter().map(|change| (stored_key(change.table, &change.key), change.value));
            let rows: Vec<_> = rows.chain(handled).collect();
            store.apply(rows.iter().map(|(key, value)| (key.as_slice(), value.as_deref())))
        })
        .await
    }

    /// Up to which place messages are handled; a profile in which nothing says so begins with what comes.
    pub async fn handled(&self) -> Result<u64, StorageError> {
        self.with(|store| {
            if let Some(handled) = place(store, HANDLED)? {
                return Ok(handled);
            }
            let last = place(store, &stored_key(Table::Position, ORDER))?.unwrap_or(0);
            let (key, value) = handled_row(last);
            store.apply([(key.as_slice(), value.as_deref())])?;
            Ok(last)
        })
        .await
    }

    /// What others said behind a place in every conversation, in its order: all of it as it stood at one moment.
    pub async fn said_after(&self, after: u64) -> Result<Vec<HistoryItem>, StorageError> {
        let read = move |store: &mut Store| {
            let mut items = Vec::new();
            for prefix in conversation_prefixes(store)? {
                let mut from = [prefix.as_slice(), &after.to_be_bytes()].concat();
                loop {
                    let rows = store.scan(&prefix, Some(&from))?;
                    let Some((last, _)) = rows.last() else { break };
                    from = last.clone();
                    items.extend(rows.iter().filter_map(|(key, value)| item(key, value)));
                }
            }
            items.retain(|item| item.row.kind() == RowKind::Incoming);
            items.sort_unstable_by_key(|item| item.order);
            Ok(items)
        };
        self.with(read).await
    }

    /// The same with rows that are not the core's.
    pub async fn commit_with(
        &self,
        changes: ChangeSet,
        others: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<(), StorageError> {
        self.with(move |store| {
            let rows = changes.0.into_iter().map(|change| (stored_key(change.table, &change.key), change.value));
            let rows: Vec<_> = rows.chain(others).collect();
            store.apply(rows.iter().map(|(key, value)| (key.as_slice(), value.as_deref())))
        })
        .await
    }

    /// Leaves nothing of what was deleted or replaced; see [`Store::scrub`].
    pub async fn scrub(&self) -> Result<bool, StorageError> {
        self.with(|store| store.scrub()).await
    }

    /// The value under a stored key.
    pub async fn get(&self, key: Vec<u8>) -> Result<Option<Vec<u8>>, StorageError> {
        self.with(move |store| store.get(&key)).await
    }

    /// Deletes every row, in transactions of some thousand rows.
    pub async fn clear(&self) -> Result<(), StorageError> {
        self.with(|store| {
            loop {
                let rows = store.scan(&[], None)?;
                if rows.is_empty() {
                    return Ok(());
                }
                store.apply(rows.iter().map(|(key, _)| (key.as_slice(), None)))?;
            }
        })
        .await
    }

    /// The last rows of some conversations together, oldest first; the place is one over all of them.
    pub async fn history(
        &self,
        conversations: Vec<ConversationId>,
        rows_max: usize,
    ) -> Result<Vec<HistoryItem>, StorageError> {
        let read = move |store: &mut Store| {
            let mut items = Vec::new();
            for conversation in conversations {
                let rows = store.scan_last(&stored_key(Table::Messages, conversation.as_bytes()), rows_max)?;
                items.extend(rows.iter().filter_map(|(key, value)| item(key, value)));
                items.sort_unstable_by_key(|item| item.order);
                items.drain(..items.len().saturating_sub(rows_max));
            }
            Ok(items)
        };
        self.with(read).await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let store = self.0.clone();
        let work = move || match &mut *store.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(store) => work(store),
            None => Err(StorageError::Stopped),
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| StorageError::Stopped)?
    }
}

/// What the keys of messages begin with, one for each conversation that has any.
fn conversation_prefixes(store: &Store) -> Result<Vec<Vec<u8>>, StorageError> {
    let table = stored_key(Table::Messages, &[]);
    let (mut prefixes, mut after) = (Vec::new(), None);
    while let Some((key, _)) = store.next(&table, after.as_deref())? {
        let prefix = key.get(..17).unwrap_or(&key).to_vec();
        // Above every place in it.
        after = Some([prefix.as_slice(), &[0xff; 9]].concat());
        prefixes.push(prefix);
    }
    Ok(prefixes)
}

fn place(store: &Store, key: &[u8]) -> Result<Option<u64>, StorageError> {
    Ok(store.get(key)?.and_then(|value| value.try_into().ok()).map(u64::from_be_bytes))
}

/// The row that says up to which place messages are handled.
pub(crate) fn handled_row(order: u64) -> (Vec<u8>, Option<Vec<u8>>) {
    (HANDLED.to_vec(), Some(order.to_be_bytes().to_vec()))
}

/// Where a row stands in the database: the table's number, then its key.
pub(crate) fn stored_key(table: Table, key: &[u8]) -> Vec<u8> {
    [&[table.number()], key].concat()
}

/// A row whose key or value this version cannot read is left out, not fatal: history is for display only.
fn item(key: &[u8], value: &[u8]) -> Option<HistoryItem> {
    let order = u64::from_be_bytes(key.last_chunk::<8>().copied()?);
    let conversation = key.get(1..17)?.try_into().ok()?;
    Some(HistoryItem { order, conversation, row: MessageRow::decode(value).ok()? })
}
