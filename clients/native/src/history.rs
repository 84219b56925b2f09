// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the database holds, reached without blocking the runtime.

use std::sync::{Arc, Mutex, PoisonError};

use pli_client_core::{ChangeSet, MessageRow, Table};
use pli_domain::ConversationId;
use prost::Message;

use crate::{StorageError, Store};

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
pub(crate) struct Rows(Arc<Mutex<Store>>);

impl Rows {
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Mutex::new(store)))
    }

    /// Commits a change set durably.
    pub async fn commit(&self, changes: ChangeSet) -> Result<(), StorageError> {
        self.with(move |store| {
            let keys: Vec<_> = changes.0.iter().map(|change| stored_key(change.table, &change.key)).collect();
            let values = changes.0.iter().map(|change| change.value.as_deref());
            store.apply(keys.iter().map(Vec::as_slice).zip(values))
        })
        .await
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

    /// Deletes every row in one transaction.
    pub async fn clear(&self) -> Result<(), StorageError> {
        self.with(|store| {
            let rows = store.scan(&[], None)?;
            store.apply(rows.iter().map(|(key, _)| (key.as_slice(), None)))
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
        let done = tokio::task::spawn_blocking(move || work(&mut store.lock().unwrap_or_else(PoisonError::into_inner)));
        done.await.map_err(|_| StorageError::Stopped)?
    }
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
