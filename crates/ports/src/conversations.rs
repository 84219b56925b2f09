// SPDX-License-Identifier: MIT OR Apache-2.0
//! Conversations: one commit per MLS epoch, the roster of each epoch, and the intent that finishes a commit after a
//! crash.

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::{ConversationId, DeviceAddress, MlsEpoch, UnixMillis};

use crate::StoreError;

/// A conversation to create, at the epoch its creator made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewConversation {
    /// Its id.
    pub conversation: ConversationId,
    /// Its first epoch.
    pub epoch: MlsEpoch,
    /// Who is in it.
    pub roster: Vec<DeviceAddress>,
    /// The service's encoded public group state at this epoch; opaque here.
    pub state: Bytes,
    /// When.
    pub created_at: UnixMillis,
}

/// Whether a conversation was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateOutcome {
    /// It is there, by this call or an identical earlier one.
    Created,
    /// The id belongs to another conversation.
    Taken,
}

/// The newest epoch of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationHead {
    /// Its epoch.
    pub epoch: MlsEpoch,
    /// False until the fan-out of the commit that made the epoch is in every log.
    pub open: bool,
    /// The service's encoded public group state at this epoch.
    pub state: Bytes,
}

/// The devices of one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterRecord {
    /// Sorted by account, then device.
    pub devices: Vec<DeviceAddress>,
    /// False until the epoch is open.
    pub open: bool,
}

/// What an edge needs of a conversation to judge a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochRoster {
    /// The newest epoch.
    pub current: MlsEpoch,
    /// Who was in the conversation at the epoch asked for, or none.
    pub roster: Option<RosterRecord>,
}

/// A commit with everything that is needed to finish it: the durable intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitIntent {
    /// In which conversation.
    pub conversation: ConversationId,
    /// The epoch it ends; it makes the next one.
    pub from: MlsEpoch,
    /// The roster of the epoch it makes.
    pub roster: Vec<DeviceAddress>,
    /// The public group state after it.
    pub state: Bytes,
    /// Who commits.
    pub committer: DeviceAddress,
    /// Everything that the service fans out (commit, welcomes), encoded by the service; opaque here.
    pub payload: Bytes,
    /// When it was decided.
    pub decided_at: UnixMillis,
}

/// A commit that was decided: what finishing and telling it need. The group state that it made is the head's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecidedCommit {
    /// In which conversation.
    pub conversation: ConversationId,
    /// The epoch it ended; it made the next one.
    pub from: MlsEpoch,
    /// The roster of the epoch it made.
    pub roster: Vec<DeviceAddress>,
    /// Who committed.
    pub committer: DeviceAddress,
    /// What [`CommitIntent::payload`] was.
    pub payload: Bytes,
    /// When it was decided.
    pub decided_at: UnixMillis,
}

impl DecidedCommit {
    /// Whether this commit is what the intent asks for.
    pub fn is(&self, intent: &CommitIntent) -> bool {
        (self.committer, &self.payload) == (intent.committer, &intent.payload)
    }
}

impl From<CommitIntent> for DecidedCommit {
    fn from(intent: CommitIntent) -> Self {
        let CommitIntent { conversation, from, roster, committer, payload, decided_at, state: _ } = intent;
        Self { conversation, from, roster, committer, payload, decided_at }
    }
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitOutcome {
    /// This intent is the commit of its epoch, by this call or an identical earlier one (same committer and payload).
    Won,
    /// Another commit ended the epoch first, or the epoch lies in the past or future.
    Lost {
        /// The newest epoch.
        current: MlsEpoch,
    },
    /// There is no such conversation.
    Unknown,
}

/// The conversation store. All writes are durable on `Ok`.
#[async_trait]
pub trait Conversations: Send + Sync + 'static {
    /// Creates a conversation; its first epoch is open at once. Idempotent for the same roster and state.
    async fn create(&self, conversation: NewConversation) -> Result<CreateOutcome, StoreError>;

    /// The newest epoch, or none for an unknown conversation.
    async fn head(&self, conversation: ConversationId) -> Result<Option<ConversationHead>, StoreError>;

    /// Who was in the conversation at `epoch`, or none. The devices of an epoch never change; `open` becomes true
    /// once and stays.
    async fn roster(&self, conversation: ConversationId, epoch: MlsEpoch) -> Result<Option<RosterRecord>, StoreError>;

    /// [`Conversations::roster`] with the number of the newest epoch, as of one moment; none for an unknown
    /// conversation. Edges ask for it at every miss of their caches, so an engine reads no group state for it, which may
    /// be hundreds of kilobytes. What stands here is for engines whose heads are cheap.
    async fn roster_at(
        &self,
        conversation: ConversationId,
        epoch: MlsEpoch,
    ) -> Result<Option<EpochRoster>, StoreError> {
        let Some(head) = self.head(conversation).await? else { return Ok(None) };
        // The head first: an epoch at or below it has its roster.
        let roster = self.roster(conversation, epoch).await?;
        Ok(Some(EpochRoster { current: head.epoch, roster: roster.filter(|_| epoch <= head.epoch) }))
    }

    /// Decides the commit of epoch `intent.from` by compare-and-set and stores the intent with it, in one step. The
    /// new epoch is closed until [`Conversations::finish`]. It never decides while the newest epoch is closed: finish
    /// that one first (it answers [`CommitOutcome::Lost`]).
    async fn commit(&self, intent: CommitIntent) -> Result<CommitOutcome, StoreError>;

    /// The commit that ended `from`, or none. Kept for 30 days.
    async fn intent(&self, conversation: ConversationId, from: MlsEpoch) -> Result<Option<DecidedCommit>, StoreError>;

    /// Opens the epoch that the commit of `from` made: its fan-out is in every log. Idempotent.
    async fn finish(&self, conversation: ConversationId, from: MlsEpoch) -> Result<(), StoreError>;

    /// Commits decided before `before` whose epoch is still closed, at most `limit`.
    async fn unfinished(&self, before: UnixMillis, limit: u32) -> Result<Vec<(ConversationId, MlsEpoch)>, StoreError>;

    /// Conversations whose newest roster names this account, with their newest epoch; at most `limit`, after `after`.
    async fn of_account(
        &self,
        account: pli_domain::AccountId,
        after: Option<ConversationId>,
        limit: u32,
    ) -> Result<Vec<(ConversationId, MlsEpoch)>, StoreError>;
}
