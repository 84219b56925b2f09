// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding commits that nobody finished: notes in a few partitions, written before a commit is decided and deleted
//! once its epoch is open. A note says when this engine wrote it, so that each partition is in order of time and a
//! register can say below which time nothing is left: a sweep then does not cross what was deleted.

use std::time::Duration;

use pli_domain::{ConversationId, MlsEpoch, UnixMillis};
use pli_ports::StoreError;
use scylla::response::PagingState;

use super::commit::INTENT_TTL;
use super::{CqlConversations, Epoch};
use crate::codec::{epoch, id, millis, mls_epoch, time};
use crate::statements::Statement;
use crate::store::{Op, Part};

const OP: Op = Op("find unfinished commits");
/// Partitions of notes. Fixed by what is stored.
const BUCKETS: i32 = 32;
/// Notes of one part of an answer.
const PART_NOTES: usize = 256;
/// A note may appear this long after the time it names: a call's deadline and the difference between two clocks.
const NOTE_LATE_MAX: Duration = Duration::from_secs(300);

/// noted_at, conversation_id, epoch, attempt, decided_at; a partition without notes has none of them.
type NoteRow = (Option<i64>, Option<Vec<u8>>, Option<i64>, Option<Vec<u8>>, Option<i64>);

/// A note: `made` is the epoch that the commit makes if it is decided.
struct Note {
    noted_at: i64,
    conversation: ConversationId,
    made: Epoch,
    decided_at: UnixMillis,
}

fn note(row: NoteRow) -> Result<Option<Note>, StoreError> {
    let (Some(noted_at), Some(conversation), Some(at), Some(attempt), Some(decided_at)) = row else {
        return Ok(None);
    };
    let conversation = id("conversation", &conversation).map_err(OP.damaged())?;
    let made = Epoch { epoch: mls_epoch(at).map_err(OP.damaged())?, open: false, attempt };
    Ok(Some(Note { noted_at, conversation, made, decided_at: time(decided_at) }))
}

fn bucket(conversation: ConversationId) -> i32 {
    i32::from(conversation.as_bytes()[15]) % BUCKETS
}

/// What became of a noted commit.
enum Fate {
    /// Its epoch is closed.
    Closed,
    /// It is open, or another commit was decided, or none will be.
    Over,
    /// It may still be decided.
    Pending,
}

impl CqlConversations {
    pub(super) async fn put_note(
        &self,
        op: Op,
        conversation: ConversationId,
        made: &Epoch,
        (noted_at, decided_at): (i64, i64),
    ) -> Result<(), StoreError> {
        let ttl = i32::try_from(INTENT_TTL.as_secs()).unwrap_or(i32::MAX);
        let (key, at) = (&conversation.as_bytes()[..], epoch(made.epoch));
        let row = (bucket(conversation), noted_at, key, at, &made.attempt[..], decided_at, ttl);
        self.store.write(op, Statement::PutNote, row).await
    }

    pub(super) async fn forget_note(
        &self,
        op: Op,
        conversation: ConversationId,
        made: &Epoch,
        noted_at: i64,
    ) -> Result<(), StoreError> {
        let (key, at) = (&conversation.as_bytes()[..], epoch(made.epoch));
        let row = (bucket(conversation), noted_at, key, at, &made.attempt[..]);
        self.store.write(op, Statement::ForgetNote, row).await
    }

    pub(super) async fn list_unfinished(
        &self,
        before: UnixMillis,
        limit: u32,
    ) -> Result<Vec<(ConversationId, MlsEpoch)>, StoreError> {
        let mut listed = Vec::new();
        for bucket in 0..BUCKETS {
            if listed.len() >= limit as usize {
                break;
            }
            self.sweep(bucket, before, limit as usize, &mut listed).await?;
        }
        Ok(listed)
    }

    /// Goes through one partition. Bounded by what the limit leaves and what is not finished.
    async fn sweep(
        &self,
        bucket: i32,
        before: UnixMillis,
        limit: usize,
        listed: &mut Vec<(ConversationId, MlsEpoch)>,
    ) -> Result<(), StoreError> {
        let below: Option<(i32, Option<i64>)> = self.store.first(OP, Statement::ReadBelow, (bucket,)).await?;
        let Some((_, below)) = below else { return Ok(()) };
        let below = below.unwrap_or(0);
        let mut left: Option<i64> = None;
        let mut from = PagingState::start();
        loop {
            let part: Part<NoteRow> =
                self.store.part(OP, Statement::ReadNotes, (bucket, below), (PART_NOTES, from)).await?;
            for row in part.rows {
                let Some(note) = note(row)? else { continue };
                match self.fate(&note).await? {
                    Fate::Over => {
                        self.forget_note(OP, note.conversation, &note.made, note.noted_at).await?;
                        continue;
                    }
                    Fate::Closed if note.decided_at < before => {
                        listed.push((note.conversation, MlsEpoch(note.made.epoch.0.saturating_sub(1))));
                    }
                    Fate::Closed | Fate::Pending => {}
                }
                left = left.or(Some(note.noted_at));
                if listed.len() >= limit {
                    return Ok(());
                }
            }
            match part.rest {
                Some(rest) => from = rest,
                None => return self.raise_below(bucket, below, left).await,
            }
        }
    }

    async fn fate(&self, note: &Note) -> Result<Fate, StoreError> {
        let at = (note.conversation, note.made.epoch);
        Ok(match self.epoch(OP, Statement::ReadEpochs, at).await? {
            Some(found) if found.attempt != note.made.attempt || found.open => Fate::Over,
            Some(_) => Fate::Closed,
            None if self.is_late(note.noted_at) => Fate::Over,
            None => Fate::Pending,
        })
    }

    fn is_late(&self, noted_at: i64) -> bool {
        self.store.now().since(time(noted_at)) > NOTE_LATE_MAX
    }

    /// Nothing is left below the first note that stays, nor below what can still appear.
    async fn raise_below(&self, bucket: i32, below: i64, left: Option<i64>) -> Result<(), StoreError> {
        let late = millis(UnixMillis(self.store.now().0.saturating_sub(NOTE_LATE_MAX.as_millis() as u64)));
        let raised = left.map_or(late, |left| left.min(late));
        // Once a minute is often enough.
        if raised < below.saturating_add(60_000) {
            return Ok(());
        }
        self.store.write(OP, Statement::RaiseBelow, (raised, raised, bucket)).await
    }
}
