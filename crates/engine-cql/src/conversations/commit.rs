// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creating conversations, deciding commits, opening epochs.

use std::time::Duration;

use pli_domain::limits::PAYLOAD_BYTES_MAX;
use pli_domain::{ConversationId, MlsEpoch};
use pli_ports::{CommitIntent, CommitOutcome, CreateOutcome, NewConversation, StoreError};
use sha2::{Digest, Sha256};

use super::{CqlConversations, Epoch, accounts};
use crate::codec::{address_bytes, epoch, millis, roster_bytes};
use crate::locks::Turn;
use crate::statements::Statement;
use crate::store::Op;

const COMMIT: Op = Op("decide a commit");
/// How long a commit's own columns live. Kept for 30 days; what is not finished after 60 has nothing left to fan out,
/// since envelopes live for 30.
pub(super) const INTENT_TTL: Duration = Duration::from_secs(60 * 24 * 3600);

/// created, first_attempt
type CreatedRow = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Names what a conversation was created with, so that a late retry is known for one.
fn digest(new: &NewConversation, roster: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(new.epoch.0.to_be_bytes());
    hash.update((roster.len() as u64).to_be_bytes());
    hash.update(roster);
    hash.update(&new.state);
    hash.finalize().to_vec()
}

fn fits(op: Op, what: &str, bytes: usize) -> Result<(), StoreError> {
    if bytes <= PAYLOAD_BYTES_MAX {
        return Ok(());
    }
    Err(StoreError::never(op.0, format!("{what} has {bytes} bytes; at most {PAYLOAD_BYTES_MAX}")))
}

fn ttl() -> i32 {
    i32::try_from(INTENT_TTL.as_secs()).unwrap_or(i32::MAX)
}

impl CqlConversations {
    pub(super) async fn create_conversation(&self, new: &NewConversation) -> Result<CreateOutcome, StoreError> {
        const OP: Op = Op("create a conversation");
        fits(OP, "the group's public state", new.state.len())?;
        let _turn = self.store.locks.turn(Turn::Conversation, new.conversation.as_bytes()).await;
        let (id, at, roster) = (&new.conversation.as_bytes()[..], epoch(new.epoch), roster_bytes(&new.roster));
        let created = digest(new, &roster);
        if let Some(known) = self.created(OP, new.conversation).await? {
            return Ok(if known.0 == created { CreateOutcome::Created } else { CreateOutcome::Taken });
        }
        let attempt: [u8; 16] = rand::random();
        let contents = (id, at, &attempt[..], roster, &new.state[..]);
        self.store.write(OP, Statement::PutEpoch, contents).await?;
        self.put_members(OP, new.conversation, new.epoch, accounts(&new.roster)).await?;
        let decision = (&created[..], at, &attempt[..], id, id, at);
        if self.store.decide(OP, Statement::CreateConversation, decision).await? {
            return Ok(CreateOutcome::Created);
        }
        let known = self.created(OP, new.conversation).await?;
        if known.as_ref().is_none_or(|(_, winner)| winner != &attempt) {
            self.store.write(OP, Statement::ForgetEpoch, (id, at, &attempt[..])).await?;
        }
        Ok(if known.is_some_and(|(known, _)| known == created) { CreateOutcome::Created } else { CreateOutcome::Taken })
    }

    async fn created(&self, op: Op, id: ConversationId) -> Result<Option<(Vec<u8>, Vec<u8>)>, StoreError> {
        let key = (&id.as_bytes()[..],);
        let row: Option<CreatedRow> = self.store.first(op, Statement::ReadCreatedDecided, key).await?;
        Ok(row.and_then(|(created, attempt)| Some((created?, attempt?))))
    }

    pub(super) async fn decide_commit(&self, intent: &CommitIntent) -> Result<CommitOutcome, StoreError> {
        fits(COMMIT, "the group's public state", intent.state.len())?;
        fits(COMMIT, "the commit's payload", intent.payload.len())?;
        let id = intent.conversation;
        let _turn = self.store.locks.turn(Turn::Conversation, id.as_bytes()).await;
        let Some(head) = self.newest(COMMIT, id).await? else { return Ok(CommitOutcome::Unknown) };
        if head.epoch > intent.from {
            let made = (id, MlsEpoch(intent.from.0.saturating_add(1)));
            let made = self.epoch(COMMIT, Statement::ReadEpochs, made).await?;
            return self.compared(intent, made, head.epoch).await;
        }
        if head.epoch != intent.from || !head.open {
            return Ok(CommitOutcome::Lost { current: head.epoch });
        }
        let before = accounts(&self.roster_of(COMMIT, id, &head).await?);
        let after = accounts(&intent.roster);
        let made = Epoch { epoch: intent.from.next(), open: false, attempt: rand::random::<[u8; 16]>().to_vec() };
        let noted_at = self.put_intent(intent, &made).await?;
        self.put_members(COMMIT, id, made.epoch, after.difference(&before).copied()).await?;
        let decision = (&made.attempt[..], &id.as_bytes()[..], epoch(intent.from));
        let applied = self.store.decide(COMMIT, Statement::DecideCommit, decision).await?;
        if !applied {
            let decided = self.epoch(COMMIT, Statement::ReadEpochsDecided, (id, made.epoch)).await?;
            if decided.as_ref().is_none_or(|decided| decided.attempt != made.attempt) {
                self.forget_attempt(COMMIT, id, &made, noted_at).await?;
                let current = self.newest(COMMIT, id).await?.map_or(intent.from, |newest| newest.epoch);
                return self.compared(intent, decided, current).await;
            }
        }
        self.drop_members(COMMIT, id, made.epoch, before.difference(&after).copied()).await?;
        Ok(CommitOutcome::Won)
    }

    /// Whether the commit that made `made` is this one.
    async fn compared(
        &self,
        intent: &CommitIntent,
        made: Option<Epoch>,
        current: MlsEpoch,
    ) -> Result<CommitOutcome, StoreError> {
        let decided = match made {
            Some(made) => self.intent_of(COMMIT, intent.conversation, &made).await?,
            None => None,
        };
        let same = decided.is_some_and(|decided| decided.is(intent));
        Ok(if same { CommitOutcome::Won } else { CommitOutcome::Lost { current } })
    }

    /// Writes what the commit would make, and a note by which a sweep finds it; answers the note's time.
    async fn put_intent(&self, intent: &CommitIntent, made: &Epoch) -> Result<i64, StoreError> {
        let (id, at, attempt) = (&intent.conversation.as_bytes()[..], epoch(made.epoch), &made.attempt[..]);
        let (noted_at, decided_at) = (millis(self.store.now()), millis(intent.decided_at));
        self.put_note(COMMIT, intent.conversation, made, (noted_at, decided_at)).await?;
        let contents = (id, at, attempt, roster_bytes(&intent.roster), &intent.state[..]);
        let committer = address_bytes(&intent.committer);
        let own = (ttl(), &committer[..], &intent.payload[..], decided_at, noted_at, id, at, attempt);
        futures::try_join!(
            self.store.write(COMMIT, Statement::PutEpoch, contents),
            self.store.write(COMMIT, Statement::PutIntent, own),
        )?;
        Ok(noted_at)
    }

    async fn forget_attempt(&self, op: Op, id: ConversationId, made: &Epoch, noted_at: i64) -> Result<(), StoreError> {
        let key = (&id.as_bytes()[..], epoch(made.epoch), &made.attempt[..]);
        self.store.write(op, Statement::ForgetEpoch, key).await?;
        self.forget_note(op, id, made, noted_at).await
    }

    /// Opens the epoch that the commit of `from` made, if there is one; then what only its predecessor needed goes.
    pub(super) async fn open_epoch(&self, id: ConversationId, from: MlsEpoch) -> Result<(), StoreError> {
        const OP: Op = Op("open an epoch");
        let made = (id, MlsEpoch(from.0.saturating_add(1)));
        let Some(made) = self.epoch(OP, Statement::ReadEpochs, made).await? else { return Ok(()) };
        let (key, at) = (&id.as_bytes()[..], epoch(made.epoch));
        if !made.open {
            self.store.write(OP, Statement::OpenEpoch, (key, at)).await?;
        }
        let noted: Option<(Option<i64>,)> =
            self.store.first(OP, Statement::ReadNotedAt, (key, at, &made.attempt[..])).await?;
        if let Some((Some(noted_at),)) = noted {
            self.forget_note(OP, id, &made, noted_at).await?;
        }
        if let Some(before) = self.epoch(OP, Statement::ReadEpochs, (id, from)).await? {
            let superseded = (key, epoch(from), &before.attempt[..]);
            self.store.write(OP, Statement::ForgetState, superseded).await?;
        }
        Ok(())
    }
}
