// SPDX-License-Identifier: MIT OR Apache-2.0
//! Conversations: rosters, epochs and the commit that ended each.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::{AccountId, ConversationId, DeviceAddress, DeviceId, MlsEpoch, UnixMillis};
use pli_ports::{
    CommitIntent, CommitOutcome, ConversationHead, Conversations, CreateOutcome, DecidedCommit, EpochRoster,
    NewConversation, RosterRecord, StoreError,
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};

use crate::database::{damaged, millis, number};
use crate::store::{Ask, Store};

/// `created` is the digest of what the conversation was created with, so that a late retry is known for one.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS conversation (
    id BLOB PRIMARY KEY, epoch INTEGER NOT NULL, open INTEGER NOT NULL, state BLOB NOT NULL, created BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS roster (
    conversation BLOB NOT NULL, epoch INTEGER NOT NULL, devices BLOB NOT NULL, PRIMARY KEY (conversation, epoch)
) STRICT;
CREATE TABLE IF NOT EXISTS member (
    account BLOB NOT NULL, conversation BLOB NOT NULL, PRIMARY KEY (account, conversation)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS intent (
    conversation BLOB NOT NULL, epoch INTEGER NOT NULL, decided INTEGER NOT NULL, finished INTEGER NOT NULL,
    committer BLOB NOT NULL, state BLOB NOT NULL, payload BLOB NOT NULL, PRIMARY KEY (conversation, epoch)
) STRICT;
CREATE INDEX IF NOT EXISTS intent_unfinished ON intent (decided) WHERE finished = 0;
CREATE INDEX IF NOT EXISTS intent_finished ON intent (decided) WHERE finished = 1;";

const HEAD: &str = "SELECT epoch, open, state FROM conversation WHERE id = ?1";
const NEWEST: &str = "SELECT epoch, open FROM conversation WHERE id = ?1";
const CREATED: &str = "SELECT created FROM conversation WHERE id = ?1";
const PUT_CONVERSATION: &str = "INSERT INTO conversation (id, epoch, open, state, created) VALUES (?1, ?2, 1, ?3, ?4)";
const MOVE_HEAD: &str = "UPDATE conversation SET epoch = ?2, open = 0, state = ?3 WHERE id = ?1";
const OPEN: &str = "UPDATE conversation SET open = 1 WHERE id = ?1 AND epoch = ?2";
const ROSTER: &str = "SELECT devices FROM roster WHERE conversation = ?1 AND epoch = ?2";
const PUT_ROSTER: &str = "INSERT INTO roster (conversation, epoch, devices) VALUES (?1, ?2, ?3)";
const PUT_MEMBER: &str = "INSERT OR IGNORE INTO member (account, conversation) VALUES (?1, ?2)";
const DELETE_MEMBER: &str = "DELETE FROM member WHERE account = ?1 AND conversation = ?2";
const OF_ACCOUNT: &str = "SELECT m.conversation, c.epoch FROM member m JOIN conversation c ON c.id = m.conversation
    WHERE m.account = ?1 AND m.conversation > ?2 ORDER BY m.conversation LIMIT ?3";
const INTENT: &str = "SELECT committer, payload, decided FROM intent WHERE conversation = ?1 AND epoch = ?2";
const PUT_INTENT: &str = "INSERT INTO intent (conversation, epoch, decided, finished, committer, state, payload)
    VALUES (?1, ?2, ?3, 0, ?4, x'', ?5)";
const FINISH: &str = "UPDATE intent SET finished = 1 WHERE conversation = ?1 AND epoch = ?2";
const UNFINISHED: &str = "SELECT conversation, epoch FROM intent WHERE finished = 0 AND decided < ?1
    ORDER BY decided LIMIT ?2";
const FORGET: &str = "DELETE FROM intent WHERE rowid IN (
    SELECT rowid FROM intent WHERE finished = 1 AND decided < ?1 ORDER BY decided LIMIT ?2)";

/// How long the commit that ended an epoch is kept.
const INTENT_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

fn epoch(epoch: MlsEpoch) -> i64 {
    i64::try_from(epoch.0).unwrap_or(i64::MAX)
}

/// Sorted by account, then device; 32 bytes each.
fn roster_as_bytes(roster: &[DeviceAddress]) -> Vec<u8> {
    let sorted: BTreeSet<_> = roster.iter().collect();
    sorted.into_iter().flat_map(address_as_bytes).collect()
}

fn address_as_bytes(address: &DeviceAddress) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(address.account.as_bytes());
    bytes[16..].copy_from_slice(address.device.as_bytes());
    bytes
}

fn address(bytes: &[u8]) -> rusqlite::Result<DeviceAddress> {
    let (account, device) = bytes.split_at(bytes.len().min(16));
    let account = AccountId::try_from(account).map_err(damaged)?;
    Ok(DeviceAddress { account, device: DeviceId::try_from(device).map_err(damaged)? })
}

fn accounts(roster: &[DeviceAddress]) -> BTreeSet<AccountId> {
    roster.iter().map(|address| address.account).collect()
}

fn digest(new: &NewConversation) -> [u8; 32] {
    let roster = roster_as_bytes(&new.roster);
    let mut hash = Sha256::new();
    hash.update(new.epoch.0.to_be_bytes());
    hash.update((roster.len() as u64).to_be_bytes());
    hash.update(roster);
    hash.update(&new.state);
    hash.finalize().into()
}

fn create(conn: &Connection, new: &NewConversation) -> rusqlite::Result<CreateOutcome> {
    let (id, created) = (new.conversation.as_bytes(), digest(new));
    let known = conn.prepare_cached(CREATED)?.query_row([id], |row| row.get::<_, [u8; 32]>(0)).optional()?;
    match known {
        Some(known) if known == created => return Ok(CreateOutcome::Created),
        Some(_) => return Ok(CreateOutcome::Taken),
        None => {}
    }
    conn.prepare_cached(PUT_CONVERSATION)?.execute(params![id, epoch(new.epoch), &new.state[..], created])?;
    conn.prepare_cached(PUT_ROSTER)?.execute(params![id, epoch(new.epoch), roster_as_bytes(&new.roster)])?;
    for account in accounts(&new.roster) {
        conn.prepare_cached(PUT_MEMBER)?.execute([account.as_bytes(), id])?;
    }
    Ok(CreateOutcome::Created)
}

fn head(conn: &Connection, id: ConversationId) -> rusqlite::Result<Option<ConversationHead>> {
    let read = |row: &Row<'_>| {
        let state = Bytes::from(row.get::<_, Vec<u8>>(2)?);
        Ok(ConversationHead { epoch: MlsEpoch(number(row.get(0)?)?), open: row.get(1)?, state })
    };
    conn.prepare_cached(HEAD)?.query_row([id.as_bytes()], read).optional()
}

fn devices(conn: &Connection, id: ConversationId, at: MlsEpoch) -> rusqlite::Result<Option<Vec<DeviceAddress>>> {
    let row = params![id.as_bytes(), epoch(at)];
    let found = conn.prepare_cached(ROSTER)?.query_row(row, |row| row.get::<_, Vec<u8>>(0)).optional()?;
    found.map(|bytes| bytes.chunks(32).map(address).collect()).transpose()
}

/// Every epoch below the newest is open: a commit is never decided while the newest one is closed.
fn roster_at(conn: &Connection, id: ConversationId, at: MlsEpoch) -> rusqlite::Result<Option<EpochRoster>> {
    let read = |row: &Row<'_>| Ok((MlsEpoch(number(row.get(0)?)?), row.get::<_, bool>(1)?));
    let newest = conn.prepare_cached(NEWEST)?.query_row([id.as_bytes()], read).optional()?;
    let Some((current, open)) = newest else {
        return Ok(None);
    };
    let devices = devices(conn, id, at)?;
    let roster = devices.map(|devices| RosterRecord { devices, open: at < current || open });
    Ok(Some(EpochRoster { current, roster }))
}

fn commit(conn: &Connection, new: &CommitIntent) -> rusqlite::Result<CommitOutcome> {
    let Some(head) = head(conn, new.conversation)? else {
        return Ok(CommitOutcome::Unknown);
    };
    if let Some(known) = intent(conn, new.conversation, new.from)? {
        return Ok(if known.is(new) { CommitOutcome::Won } else { CommitOutcome::Lost { current: head.epoch } });
    }
    if head.epoch != new.from || !head.open {
        return Ok(CommitOutcome::Lost { current: head.epoch });
    }
    let (id, made) = (new.conversation.as_bytes(), new.from.next());
    let before = accounts(&devices(conn, new.conversation, new.from)?.unwrap_or_default());
    conn.prepare_cached(PUT_INTENT)?.execute(params![
        id,
        epoch(new.from),
        millis(new.decided_at),
        address_as_bytes(&new.committer),
        &new.payload[..],
    ])?;
    conn.prepare_cached(PUT_ROSTER)?.execute(params![id, epoch(made), roster_as_bytes(&new.roster)])?;
    conn.prepare_cached(MOVE_HEAD)?.execute(params![id, epoch(made), &new.state[..]])?;
    let after = accounts(&new.roster);
    for account in before.difference(&after) {
        conn.prepare_cached(DELETE_MEMBER)?.execute([account.as_bytes(), id])?;
    }
    for account in after.difference(&before) {
        conn.prepare_cached(PUT_MEMBER)?.execute([account.as_bytes(), id])?;
    }
    Ok(CommitOutcome::Won)
}

fn intent(conn: &Connection, id: ConversationId, from: MlsEpoch) -> rusqlite::Result<Option<DecidedCommit>> {
    let read = |row: &Row<'_>| {
        Ok(DecidedCommit {
            conversation: id,
            from,
            roster: Vec::new(),
            committer: address(&row.get::<_, [u8; 32]>(0)?)?,
            payload: Bytes::from(row.get::<_, Vec<u8>>(1)?),
            decided_at: UnixMillis(number(row.get(2)?)?),
        })
    };
    let found = conn.prepare_cached(INTENT)?.query_row(params![id.as_bytes(), epoch(from)], read).optional()?;
    let Some(mut intent) = found else {
        return Ok(None);
    };
    intent.roster = devices(conn, id, from.next())?.unwrap_or_default();
    Ok(Some(intent))
}

fn finish(conn: &Connection, id: ConversationId, from: MlsEpoch) -> rusqlite::Result<()> {
    if conn.prepare_cached(FINISH)?.execute(params![id.as_bytes(), epoch(from)])? > 0 {
        conn.prepare_cached(OPEN)?.execute(params![id.as_bytes(), epoch(from.next())])?;
    }
    Ok(())
}

fn epoch_of(row: &Row<'_>) -> rusqlite::Result<(ConversationId, MlsEpoch)> {
    Ok((ConversationId::from_bytes(row.get(0)?), MlsEpoch(number(row.get(1)?)?)))
}

/// Deletes finished commits older than 30 days, at most `limit`; answers how many.
pub(crate) fn forget_commits(conn: &Connection, now: UnixMillis, limit: u32) -> rusqlite::Result<usize> {
    conn.prepare_cached(FORGET)?.execute(params![millis(now.before(INTENT_KEPT)), limit])
}

/// [`Conversations`] on SQLite.
pub(crate) struct EmbeddedConversations {
    pub(crate) store: Store,
}

#[async_trait]
impl Conversations for EmbeddedConversations {
    async fn create(&self, new: NewConversation) -> Result<CreateOutcome, StoreError> {
        let ask = Ask::growth("create a conversation", new.state.len() + new.roster.len() * 32);
        self.store.write(ask, move |conn| create(conn, &new)).await
    }

    async fn head(&self, id: ConversationId) -> Result<Option<ConversationHead>, StoreError> {
        self.store.read("read a conversation", move |conn| head(conn, id)).await
    }

    async fn roster(&self, id: ConversationId, epoch: MlsEpoch) -> Result<Option<RosterRecord>, StoreError> {
        Ok(self.roster_at(id, epoch).await?.and_then(|found| found.roster))
    }

    async fn roster_at(&self, id: ConversationId, epoch: MlsEpoch) -> Result<Option<EpochRoster>, StoreError> {
        let read = move |conn: &Connection| {
            let snapshot = conn.unchecked_transaction()?;
            let found = roster_at(&snapshot, id, epoch)?;
            snapshot.finish().map(|()| found)
        };
        self.store.read("read a roster", read).await
    }

    async fn commit(&self, new: CommitIntent) -> Result<CommitOutcome, StoreError> {
        let ask = Ask::growth("decide a commit", new.state.len() + new.payload.len());
        self.store.write(ask, move |conn| commit(conn, &new)).await
    }

    async fn intent(&self, id: ConversationId, from: MlsEpoch) -> Result<Option<DecidedCommit>, StoreError> {
        let read = move |conn: &Connection| {
            let snapshot = conn.unchecked_transaction()?;
            let found = intent(&snapshot, id, from)?;
            snapshot.finish().map(|()| found)
        };
        self.store.read("read a commit", read).await
    }

    async fn finish(&self, id: ConversationId, from: MlsEpoch) -> Result<(), StoreError> {
        self.store.write(Ask::freeing("open an epoch", 0), move |conn| finish(conn, id, from)).await
    }

    async fn unfinished(&self, before: UnixMillis, limit: u32) -> Result<Vec<(ConversationId, MlsEpoch)>, StoreError> {
        let read = move |conn: &Connection| {
            let mut statement = conn.prepare_cached(UNFINISHED)?;
            statement.query_map(params![millis(before), limit], epoch_of)?.collect()
        };
        self.store.read("find unfinished commits", read).await
    }

    async fn of_account(
        &self,
        account: AccountId,
        after: Option<ConversationId>,
        limit: u32,
    ) -> Result<Vec<(ConversationId, MlsEpoch)>, StoreError> {
        let read = move |conn: &Connection| {
            // An empty blob stands before every id.
            let after = after.map_or(Vec::new(), |id| id.as_bytes().to_vec());
            let mut statement = conn.prepare_cached(OF_ACCOUNT)?;
            statement.query_map(params![account.as_bytes(), after, limit], epoch_of)?.collect()
        };
        self.store.read("list conversations", read).await
    }
}
