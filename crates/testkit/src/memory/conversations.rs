// SPDX-License-Identifier: MIT OR Apache-2.0
//! Conversations.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::{AccountId, ConversationId, DeviceAddress, MlsEpoch, UnixMillis};
use pli_ports::{
    CommitIntent, CommitOutcome, ConversationHead, Conversations, CreateOutcome, DecidedCommit, EpochRoster,
    NewConversation, RosterRecord, StoreError,
};

use super::{Inner, tables};

/// The model of [`Conversations`].
#[derive(Clone)]
pub struct MemoryConversations {
    world: Arc<Inner>,
}

#[derive(Default)]
pub(super) struct State {
    conversations: BTreeMap<ConversationId, Conversation>,
}

struct Conversation {
    created: NewConversation,
    epoch: MlsEpoch,
    open: bool,
    state: Bytes,
    rosters: BTreeMap<MlsEpoch, Vec<DeviceAddress>>,
    intents: BTreeMap<MlsEpoch, DecidedCommit>,
}

impl Conversation {
    fn new(created: NewConversation) -> Self {
        Self {
            epoch: created.epoch,
            open: true,
            state: created.state.clone(),
            rosters: BTreeMap::from([(created.epoch, created.roster.clone())]),
            intents: BTreeMap::new(),
            created,
        }
    }

    fn commit(&mut self, intent: CommitIntent) -> CommitOutcome {
        if self.intents.get(&intent.from).is_some_and(|decided| decided.is(&intent)) {
            return CommitOutcome::Won;
        }
        if intent.from != self.epoch || !self.open {
            return CommitOutcome::Lost { current: self.epoch };
        }
        self.epoch = intent.from.next();
        self.open = false;
        self.state = intent.state.clone();
        self.rosters.insert(self.epoch, intent.roster.clone());
        self.intents.insert(intent.from, intent.into());
        CommitOutcome::Won
    }

    fn roster(&self, epoch: MlsEpoch) -> Option<RosterRecord> {
        let devices = self.rosters.get(&epoch)?.clone();
        Some(RosterRecord { devices, open: self.open || epoch < self.epoch })
    }

    /// The commit that made the newest epoch, while that is closed.
    fn unfinished(&self) -> Option<&DecidedCommit> {
        self.intents.values().next_back().filter(|_| !self.open)
    }

    fn has(&self, account: AccountId) -> bool {
        self.rosters.get(&self.epoch).is_some_and(|roster| roster.iter().any(|device| device.account == account))
    }
}

impl State {
    fn create(&mut self, mut new: NewConversation) -> CreateOutcome {
        new.roster.sort();
        match self.conversations.get(&new.conversation) {
            None => {
                self.conversations.insert(new.conversation, Conversation::new(new));
                CreateOutcome::Created
            }
            Some(found) => {
                let created = &found.created;
                let same = (created.epoch, &created.roster, &created.state) == (new.epoch, &new.roster, &new.state);
                if same { CreateOutcome::Created } else { CreateOutcome::Taken }
            }
        }
    }

    fn commit(&mut self, mut intent: CommitIntent) -> CommitOutcome {
        intent.roster.sort();
        match self.conversations.get_mut(&intent.conversation) {
            Some(conversation) => conversation.commit(intent),
            None => CommitOutcome::Unknown,
        }
    }

    fn finish(&mut self, conversation: ConversationId, from: MlsEpoch) {
        if let Some(found) = self.conversations.get_mut(&conversation) {
            found.open |= found.epoch == from.next();
        }
    }

    fn unfinished(&self, before: UnixMillis, limit: u32) -> Vec<(ConversationId, MlsEpoch)> {
        let intents = self.conversations.values().filter_map(Conversation::unfinished);
        let old = intents.filter(|intent| intent.decided_at < before);
        old.map(|intent| (intent.conversation, intent.from)).take(limit as usize).collect()
    }

    fn of_account(
        &self,
        account: AccountId,
        after: Option<ConversationId>,
        limit: u32,
    ) -> Vec<(ConversationId, MlsEpoch)> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.conversations.range((after, Bound::Unbounded));
        let named = rest.filter(|(_, conversation)| conversation.has(account));
        named.map(|(id, conversation)| (*id, conversation.epoch)).take(limit as usize).collect()
    }
}

impl MemoryConversations {
    pub(super) fn new(world: Arc<Inner>) -> Self {
        Self { world }
    }

    async fn find<T>(
        &self,
        operation: &'static str,
        conversation: ConversationId,
        find: impl FnOnce(&Conversation) -> Option<T> + Send,
    ) -> Result<Option<T>, StoreError> {
        let found = |state: &tables::State| find(state.conversations.conversations.get(&conversation)?);
        tables::read(&self.world, operation, found).await
    }
}

#[async_trait]
impl Conversations for MemoryConversations {
    async fn create(&self, conversation: NewConversation) -> Result<CreateOutcome, StoreError> {
        tables::write(&self.world, "create conversation", |state| state.conversations.create(conversation)).await
    }

    async fn head(&self, conversation: ConversationId) -> Result<Option<ConversationHead>, StoreError> {
        let head = |found: &Conversation| {
            Some(ConversationHead { epoch: found.epoch, open: found.open, state: found.state.clone() })
        };
        self.find("conversation head", conversation, head).await
    }

    async fn roster(&self, conversation: ConversationId, epoch: MlsEpoch) -> Result<Option<RosterRecord>, StoreError> {
        self.find("roster", conversation, |found| found.roster(epoch)).await
    }

    async fn roster_at(
        &self,
        conversation: ConversationId,
        epoch: MlsEpoch,
    ) -> Result<Option<EpochRoster>, StoreError> {
        let found = |found: &Conversation| Some(EpochRoster { current: found.epoch, roster: found.roster(epoch) });
        self.find("roster at", conversation, found).await
    }

    async fn commit(&self, intent: CommitIntent) -> Result<CommitOutcome, StoreError> {
        tables::write(&self.world, "commit", |state| state.conversations.commit(intent)).await
    }

    async fn intent(&self, conversation: ConversationId, from: MlsEpoch) -> Result<Option<DecidedCommit>, StoreError> {
        self.find("intent", conversation, |found| found.intents.get(&from).cloned()).await
    }

    async fn finish(&self, conversation: ConversationId, from: MlsEpoch) -> Result<(), StoreError> {
        tables::write(&self.world, "finish", |state| state.conversations.finish(conversation, from)).await
    }

    async fn unfinished(&self, before: UnixMillis, limit: u32) -> Result<Vec<(ConversationId, MlsEpoch)>, StoreError> {
        tables::read(&self.world, "unfinished", |state| state.conversations.unfinished(before, limit)).await
    }

    async fn of_account(
        &self,
        account: AccountId,
        after: Option<ConversationId>,
        limit: u32,
    ) -> Result<Vec<(ConversationId, MlsEpoch)>, StoreError> {
        let list = |state: &tables::State| state.conversations.of_account(account, after, limit);
        tables::read(&self.world, "conversations of account", list).await
    }
}
