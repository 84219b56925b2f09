// SPDX-License-Identifier: MIT OR Apache-2.0
//! Conversations: rosters, epochs and the commit that ended each.
//!
//! What a commit would make is written first, under a random attempt that nothing names yet. The decision is one
//! compare-and-set of a few bytes: the row of the epoch it ends takes the attempt as its `next`, if that epoch is open
//! and has none. So an epoch exists once its predecessor names it, and is open once it has a row of its own.

mod commit;
mod members;
mod sweep;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::{AccountId, ConversationId, DeviceAddress, MlsEpoch, UnixMillis};
use pli_ports::{
    CommitIntent, CommitOutcome, ConversationHead, Conversations, CreateOutcome, DecidedCommit, EpochRoster,
    NewConversation, RosterRecord, StoreError,
};

use crate::codec::{address, epoch, mls_epoch, roster, time};
use crate::statements::Statement;
use crate::store::{Op, Store};

/// A head whose state goes while it is read is read again, this often.
const READS_MAX: u32 = 8;

/// [`Conversations`] on CQL.
pub(crate) struct CqlConversations {
    pub(crate) store: Arc<Store>,
}

/// epoch, opened, next, first, first_attempt
type EpochRow = (Option<i64>, Option<bool>, Option<Vec<u8>>, Option<i64>, Option<Vec<u8>>);
/// roster, committer, payload, decided_at
type IntentRow = (Option<Vec<u8>>, Option<Vec<u8>>, Option<Bytes>, Option<i64>);

/// One epoch of a conversation.
struct Epoch {
    epoch: MlsEpoch,
    open: bool,
    /// Whose contents it has.
    attempt: Vec<u8>,
}

/// Some rows of a conversation, newest or oldest first.
struct Rows(Vec<EpochRow>);

impl Rows {
    fn row(&self, at: i64) -> Option<&EpochRow> {
        self.0.iter().find(|row| row.0 == Some(at))
    }

    /// The attempt that made epoch `at`: named by the row before it, or by the creation.
    fn attempt(&self, at: i64) -> Option<&Vec<u8>> {
        let before = at.checked_sub(1).and_then(|before| self.row(before)?.2.as_ref());
        before.or_else(|| self.0.iter().find(|row| row.3 == Some(at))?.4.as_ref())
    }

    fn epoch(&self, op: Op, at: i64) -> Result<Option<Epoch>, StoreError> {
        let Some(attempt) = self.attempt(at).cloned() else { return Ok(None) };
        let open = self.row(at).is_some_and(|row| row.1 == Some(true));
        Ok(Some(Epoch { epoch: mls_epoch(at).map_err(op.damaged())?, open, attempt }))
    }

    /// The newest epoch, if these are the newest rows.
    fn newest(&self, op: Op) -> Result<Option<Epoch>, StoreError> {
        let Some((at, next)) = self.0.iter().filter_map(|row| Some((row.0?, row.2.is_some()))).max() else {
            return Ok(None);
        };
        self.epoch(op, at + i64::from(next))
    }
}

fn accounts(roster: &[DeviceAddress]) -> BTreeSet<AccountId> {
    roster.iter().map(|address| address.account).collect()
}

impl CqlConversations {
    async fn newest(&self, op: Op, id: ConversationId) -> Result<Option<Epoch>, StoreError> {
        let key = (&id.as_bytes()[..],);
        Rows(self.store.rows(op, Statement::ReadHead, key).await?).newest(op)
    }

    /// One epoch, read by `how`.
    async fn epoch(
        &self,
        op: Op,
        how: Statement,
        (id, at): (ConversationId, MlsEpoch),
    ) -> Result<Option<Epoch>, StoreError> {
        let at = epoch(at);
        let key = (&id.as_bytes()[..], at.saturating_sub(1), at);
        Rows(self.store.rows(op, how, key).await?).epoch(op, at)
    }

    async fn roster_of(&self, op: Op, id: ConversationId, of: &Epoch) -> Result<Vec<DeviceAddress>, StoreError> {
        let key = (&id.as_bytes()[..], epoch(of.epoch), &of.attempt[..]);
        let found: Option<(Option<Vec<u8>>,)> = self.store.first(op, Statement::ReadRoster, key).await?;
        let bytes = found.and_then(|(roster,)| roster).unwrap_or_default();
        roster(&bytes).map_err(op.damaged())
    }

    /// The commit that made an epoch, while it is kept.
    async fn intent_of(&self, op: Op, id: ConversationId, made: &Epoch) -> Result<Option<DecidedCommit>, StoreError> {
        let key = (&id.as_bytes()[..], epoch(made.epoch), &made.attempt[..]);
        let row: Option<IntentRow> = self.store.first(op, Statement::ReadIntent, key).await?;
        let Some((Some(devices), Some(committer), Some(payload), Some(decided_at))) = row else {
            return Ok(None);
        };
        Ok(Some(DecidedCommit {
            conversation: id,
            from: MlsEpoch(made.epoch.0.saturating_sub(1)),
            roster: roster(&devices).map_err(op.damaged())?,
            committer: address(&committer).map_err(op.damaged())?,
            payload,
            decided_at: time(decided_at),
        }))
    }
}

#[async_trait]
impl Conversations for CqlConversations {
    async fn create(&self, conversation: NewConversation) -> Result<CreateOutcome, StoreError> {
        self.create_conversation(&conversation).await
    }

    async fn head(&self, id: ConversationId) -> Result<Option<ConversationHead>, StoreError> {
        const OP: Op = Op("read a conversation");
        for _ in 0..READS_MAX {
            let Some(newest) = self.newest(OP, id).await? else { return Ok(None) };
            let key = (&id.as_bytes()[..], epoch(newest.epoch), &newest.attempt[..]);
            let found: Option<(Option<Bytes>,)> = self.store.first(OP, Statement::ReadState, key).await?;
            if let Some((Some(state),)) = found {
                return Ok(Some(ConversationHead { epoch: newest.epoch, open: newest.open, state }));
            }
        }
        Err(StoreError::later(OP.0, "the conversation moves on while it is read"))
    }

    async fn roster(&self, id: ConversationId, at: MlsEpoch) -> Result<Option<RosterRecord>, StoreError> {
        const OP: Op = Op("read a roster");
        let Some(found) = self.epoch(OP, Statement::ReadEpochs, (id, at)).await? else { return Ok(None) };
        let devices = self.roster_of(OP, id, &found).await?;
        Ok(Some(RosterRecord { devices, open: found.open }))
    }

    async fn roster_at(&self, id: ConversationId, at: MlsEpoch) -> Result<Option<EpochRoster>, StoreError> {
        const OP: Op = Op("read a roster");
        // The newest epoch first: one at or below it has its roster.
        let Some(newest) = self.newest(OP, id).await? else { return Ok(None) };
        let roster = if at <= newest.epoch { self.roster(id, at).await? } else { None };
        Ok(Some(EpochRoster { current: newest.epoch, roster }))
    }

    async fn commit(&self, intent: CommitIntent) -> Result<CommitOutcome, StoreError> {
        self.decide_commit(&intent).await
    }

    async fn intent(&self, id: ConversationId, from: MlsEpoch) -> Result<Option<DecidedCommit>, StoreError> {
        const OP: Op = Op("read a commit");
        let made = self.epoch(OP, Statement::ReadEpochs, (id, MlsEpoch(from.0.saturating_add(1)))).await?;
        match made {
            Some(made) => self.intent_of(OP, id, &made).await,
            None => Ok(None),
        }
    }

    async fn finish(&self, id: ConversationId, from: MlsEpoch) -> Result<(), StoreError> {
        self.open_epoch(id, from).await
    }

    async fn unfinished(&self, before: UnixMillis, limit: u32) -> Result<Vec<(ConversationId, MlsEpoch)>, StoreError> {
        self.list_unfinished(before, limit).await
    }

    async fn of_account(
        &self,
        account: AccountId,
        after: Option<ConversationId>,
        limit: u32,
    ) -> Result<Vec<(ConversationId, MlsEpoch)>, StoreError> {
        self.list_of_account(account, after, limit as usize).await
    }
}
