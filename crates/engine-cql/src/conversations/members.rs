// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which conversations an account is in: an index that names at least those, checked when it is read.
//!
//! Entries are written before a commit is decided and dropped after it, with the epoch as timestamp. A later epoch's
//! entry outlives an earlier one's deletion whatever the order in which they arrive; at one epoch the deletion wins,
//! and only the winner of an epoch deletes.

use futures::{StreamExt, TryStreamExt};
use pli_domain::{AccountId, ConversationId, MlsEpoch};
use pli_ports::StoreError;

use super::CqlConversations;
use crate::codec::{epoch, id};
use crate::statements::Statement;
use crate::store::Op;

/// Conversations checked at once.
const CHECKS_IN_FLIGHT: usize = 16;

impl CqlConversations {
    pub(super) async fn put_members(
        &self,
        op: Op,
        conversation: ConversationId,
        at: MlsEpoch,
        added: impl IntoIterator<Item = AccountId>,
    ) -> Result<(), StoreError> {
        let writes = added.into_iter().map(|account| async move {
            let row = (&account.as_bytes()[..], &conversation.as_bytes()[..], epoch(at));
            self.store.write(op, Statement::PutMember, row).await
        });
        let writes: Vec<_> = writes.collect();
        futures::stream::iter(writes).buffer_unordered(self.store.in_flight).try_collect().await
    }

    pub(super) async fn drop_members(
        &self,
        op: Op,
        conversation: ConversationId,
        at: MlsEpoch,
        removed: impl IntoIterator<Item = AccountId>,
    ) -> Result<(), StoreError> {
        let writes = removed.into_iter().map(|account| async move {
            let row = (epoch(at), &account.as_bytes()[..], &conversation.as_bytes()[..]);
            self.store.write(op, Statement::DropMember, row).await
        });
        let writes: Vec<_> = writes.collect();
        futures::stream::iter(writes).buffer_unordered(self.store.in_flight).try_collect().await
    }

    pub(super) async fn list_of_account(
        &self,
        account: AccountId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<(ConversationId, MlsEpoch)>, StoreError> {
        const OP: Op = Op("list conversations");
        let mut listed = Vec::new();
        // Empty bytes stand before every id.
        let mut after = after.map_or(Vec::new(), |id| id.as_bytes().to_vec());
        while listed.len() < limit {
            let wanted = limit - listed.len();
            let ask = (&account.as_bytes()[..], &after[..], i32::try_from(wanted).unwrap_or(i32::MAX));
            let found: Vec<(Vec<u8>,)> = self.store.rows(OP, Statement::ReadMembers, ask).await?;
            let ids = found.iter().map(|(bytes,)| id::<ConversationId>("conversation", bytes));
            let ids = ids.collect::<Result<Vec<_>, _>>().map_err(OP.damaged())?;
            let checks: Vec<_> = ids.into_iter().map(|id| self.membership(OP, id, account)).collect();
            let checks = futures::stream::iter(checks).buffered(CHECKS_IN_FLIGHT);
            listed.extend(checks.try_collect::<Vec<_>>().await?.into_iter().flatten());
            match found.into_iter().next_back() {
                Some((last,)) => after = last,
                None => break,
            }
        }
        Ok(listed)
    }

    /// The conversation with its newest epoch, if that has a device of the account.
    async fn membership(
        &self,
        op: Op,
        id: ConversationId,
        account: AccountId,
    ) -> Result<Option<(ConversationId, MlsEpoch)>, StoreError> {
        let Some(newest) = self.newest(op, id).await? else { return Ok(None) };
        let roster = self.roster_of(op, id, &newest).await?;
        Ok(roster.iter().any(|address| address.account == account).then_some((id, newest.epoch)))
    }
}
