// SPDX-License-Identifier: MIT OR Apache-2.0
//! The history as an archive has it, and what an archive brings.

use std::collections::HashSet;

use pli_client_core::archive::ArchiveRow;
use pli_client_core::{MessageRow, Table};
use pli_domain::{AccountId, ConversationId, DeviceId, SendId};
use prost::Message as _;

use super::{HistoryItem, Rows, item, stored_key};
use crate::{StorageError, Store};

/// Rows that are written in one transaction.
const ROWS_AT_ONCE: usize = 1_000;

/// Every row of the history below `prefix`, a page at a time.
fn each(store: &Store, prefix: &[u8], mut see: impl FnMut(HistoryItem)) -> Result<(), StorageError> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = store.scan(prefix, after.as_deref())?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        page.iter().filter_map(|(key, value)| item(key, value)).for_each(&mut see);
    }
}

/// What a row says which message it is.
fn message(row: &MessageRow) -> Option<(DeviceId, SendId)> {
    Some((row.device.as_ref().try_into().ok()?, row.send_id.as_ref().try_into().ok()?))
}

impl Rows {
    /// What is archived of these chats, each with all of its conversations, the one in which it goes on first.
    pub async fn archived(&self, chats: Vec<Vec<ConversationId>>) -> Result<Vec<ArchiveRow>, StorageError> {
        let read = move |store: &mut Store| {
            let mut rows = Vec::new();
            for chat in chats {
                let Some(home) = chat.first().copied() else { continue };
                for part in chat {
                    let prefix = stored_key(Table::Messages, part.as_bytes());
                    each(store, &prefix, |item| rows.extend(ArchiveRow::of(home, item.order, &item.row)))?;
                }
            }
            Ok(rows)
        };
        self.with(read).await
    }

    /// Adds what an archive of account `own` brings and is not there under any place; answers how many rows that are. May
    /// be repeated.
    pub async fn take_in(&self, own: AccountId, rows: Vec<ArchiveRow>) -> Result<usize, StorageError> {
        let write = move |store: &mut Store| {
            let mut known = HashSet::new();
            each(store, &stored_key(Table::Messages, &[]), |item| known.extend(message(&item.row)))?;
            let new: Vec<(Vec<u8>, Vec<u8>)> = rows
                .iter()
                .filter(|row| row.message().is_some_and(|message| !known.contains(&message)))
                .filter_map(|row| {
                    let (conversation, shown) = row.shown(own)?;
                    let key = [conversation.as_bytes().as_slice(), &row.order.to_be_bytes()].concat();
                    Some((stored_key(Table::Messages, &key), shown.encode_to_vec()))
                })
                .collect();
            for rows in new.chunks(ROWS_AT_ONCE) {
                store.apply(rows.iter().map(|(key, value)| (key.as_slice(), Some(value.as_slice()))))?;
            }
            Ok(new.len())
        };
        self.with(write).await
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use pli_client_core::{RowKind, RowStatus};

    use super::*;
    use crate::seal::Sealer;

    fn rows() -> (tempfile::TempDir, Rows) {
        let folder = tempfile::tempdir().expect("a folder");
        let sealer = Sealer::open_or_create(&folder.path().join("key")).expect("a key");
        let store = Store::open(&folder.path().join("profile.db"), sealer).expect("opens");
        (folder, Rows::new(store))
    }

    fn conversation(byte: u8) -> ConversationId {
        ConversationId::from_bytes([byte; 16])
    }

    fn message_row(account: u8, device: u8, send_id: u8, kind: RowKind) -> MessageRow {
        let id = |byte| Bytes::from(vec![byte; 16]);
        MessageRow {
            kind: kind.into(),
            account: id(account),
            device: id(device),
            send_id: id(send_id),
            text: format!("said {send_id}"),
            status: RowStatus::Stored.into(),
            ..MessageRow::default()
        }
    }

    async fn put(rows: &Rows, conversation: ConversationId, order: u64, row: &MessageRow) {
        let key = [conversation.as_bytes().as_slice(), &order.to_be_bytes()].concat();
        let row = (stored_key(Table::Messages, &key), Some(row.encode_to_vec()));
        rows.commit_with(Default::default(), vec![row]).await.expect("committed");
    }

    #[tokio::test]
    async fn a_history_goes_over_in_order_into_the_chat_that_goes_on_and_once() {
        let own = AccountId::from_bytes([1; 16]);
        let (_first, first) = rows();
        // A chat that moved from conversation 8 to 9.
        put(&first, conversation(8), 1, &message_row(1, 10, 1, RowKind::Outgoing)).await;
        put(&first, conversation(8), 2, &message_row(2, 20, 2, RowKind::Incoming)).await;
        put(&first, conversation(9), 4, &message_row(2, 20, 3, RowKind::Incoming)).await;
        put(&first, conversation(9), 5, &message_row(2, 20, 0, RowKind::Hole)).await;
        put(&first, conversation(9), 6, &message_row(1, 11, 4, RowKind::Elsewhere)).await;
        put(&first, conversation(7), 3, &message_row(2, 20, 5, RowKind::Incoming)).await;
        let archived = first.archived(vec![vec![conversation(9), conversation(8)]]).await.expect("read");

        let (_second, second) = rows();
        put(&second, conversation(9), 1 << 33, &message_row(1, 11, 4, RowKind::Outgoing)).await;
        assert_eq!(second.take_in(own, archived.clone()).await.expect("taken in"), 3);
        assert_eq!(second.take_in(own, archived).await.expect("taken in again"), 0);
        let shown = second.history(vec![conversation(9)], 100).await.expect("read");
        let shown: Vec<(&str, RowKind)> = shown.iter().map(|item| (item.row.text.as_str(), item.row.kind())).collect();
        assert_eq!(
            shown,
            [
                ("said 1", RowKind::Elsewhere),
                ("said 2", RowKind::Incoming),
                ("said 3", RowKind::Incoming),
                ("said 4", RowKind::Outgoing)
            ]
        );
    }
}
