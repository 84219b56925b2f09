// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finishing a decided commit: bring it to everybody, then open the epoch that it made.

use std::collections::BTreeSet;
use std::time::Duration;

use pli_api::conversations::Object;
use pli_api::log::Content;
use pli_domain::mutant::{Mutant, broken};
use pli_domain::{ConversationId, DeviceAddress, MlsEpoch};
use pli_ports::{AppendError, DecidedCommit, NewEntry};

use crate::derive::{self, Part};
use crate::error::FinishError;
use crate::fanout::Letter;
use crate::record::{CommitRecord, CorruptRecord};
use crate::service::Inner;

/// Who finishes a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The call that decided it.
    Committer,
    /// Its committer, who asks again.
    Retry,
    /// Somebody who wants the next epoch, or asks about this one.
    Other,
    /// The sweep.
    Sweep,
}

impl By {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Committer => "committer",
            Self::Retry => "retry",
            Self::Other => "other",
            Self::Sweep => "sweep",
        }
    }
}

/// Planted faults only: time between a decision and its fan-out, for a crash or a message to fall into.
async fn widen_the_gap() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

impl Inner {
    /// Finishes the commit that ended `from`. Any number of callers may do so at once or one after the other: all
    /// write the same entries under the same ids, and the epoch opens once.
    pub(crate) async fn finish(&self, conversation: ConversationId, from: MlsEpoch, by: By) -> Result<(), FinishError> {
        let finished = self.bring_and_open(conversation, from, by).await;
        self.metrics.finish(by, finished.is_ok());
        finished
    }

    async fn bring_and_open(&self, conversation: ConversationId, from: MlsEpoch, by: By) -> Result<(), FinishError> {
        if broken(Mutant::FanoutForgotten) {
            if by != By::Committer {
                let source = AppendError::Full { retry_after_ms: 1_000 };
                return Err(FinishError::Append { retry_after_ms: 1_000, source });
            }
            widen_the_gap().await;
        }
        let conversations = &self.ports.conversations;
        let missing = CorruptRecord::Missing { what: "commit intent" };
        let intent = conversations.intent(conversation, from).await?.ok_or(missing)?;
        let old = conversations.roster(conversation, from).await?.ok_or(CorruptRecord::Missing { what: "roster" })?;
        let entries = self.commit_entries(&intent, &old.devices)?;
        if broken(Mutant::EpochOpenEarly) {
            conversations.finish(conversation, from).await?;
            widen_the_gap().await;
        }
        self.append(entries).await?;
        conversations.finish(conversation, from).await?;
        Ok(())
    }

    /// The commit to everybody who was in the group, its committer and those it removes too; the welcome to those it
    /// adds. A device that is removed and added by one commit gets the commit first.
    fn commit_entries(&self, intent: &DecidedCommit, old: &[DeviceAddress]) -> Result<Vec<NewEntry>, CorruptRecord> {
        let record = CommitRecord::read(&intent.payload)?;
        let letter = |part, body: Object| Letter {
            sender: intent.committer,
            send_id: derive::fanout_send(intent.conversation, intent.from, part),
            conversation: intent.conversation,
            epoch: if part == Part::Commit { intent.from } else { intent.from.next() },
            content: if part == Part::Commit { Content::Commit } else { Content::Welcome },
            body,
            accepted_at: intent.decided_at,
        };
        let id = |part| move |shard| derive::fanout_entry(intent.conversation, intent.from, part, shard);

        let commit = letter(Part::Commit, record.commit.unwrap_or_default());
        // To the committer too: where it stands in its queue tells that device what still waits before it.
        let added = record.added.iter().map(DeviceAddress::try_from);
        let added: BTreeSet<_> = added.collect::<Result<_, _>>().map_err(CorruptRecord::encoding("commit"))?;
        // Messages before and after it must take the same way. To a device that was in already the welcome goes directly,
        // and would overtake it.
        let spread = self.is_spread(old) && self.is_spread(&intent.roster) && !old.iter().any(|d| added.contains(d));
        let mut entries = match spread {
            true => vec![self.entry_to_spread(&commit, id(Part::Commit))],
            false => self.entries(&commit, old.iter().copied(), id(Part::Commit)),
        };
        if let Some(welcome) = record.welcome {
            entries.extend(self.entries(&letter(Part::Welcome, welcome), added, id(Part::Welcome)));
        }
        Ok(entries)
    }
}
