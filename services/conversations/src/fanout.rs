// SPDX-License-Identifier: MIT OR Apache-2.0
//! Into the shard logs: one envelope to many devices.

use std::time::Duration;

use bytes::Bytes;
use pli_api::common::DeviceAddress as WireAddress;
use pli_api::conversations::{Object, object};
use pli_api::log::envelope::BodyOrRef;
use pli_api::log::{Content, Entry, Envelope};
use pli_api::{fan_out_item, items_by_shard, spread_over};
use pli_domain::limits::EXPIRY_MAX;
use pli_domain::{Class, ConversationId, DeviceAddress, EntryId, MlsEpoch, SendId, ShardId, UnixMillis};
use pli_ports::{AppendError, NewEntry, Retry};
use prost::Message;

use crate::error::FinishError;
use crate::service::Inner;

/// Tries of an append within one call; after it the caller or the sweep tries again.
const TRIES: u32 = 3;
/// Wait before the second try; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// What a caller is told to wait where the log says nothing else.
const RETRY_AFTER_MS: u32 = 500;

/// What is said, by whom.
pub(crate) struct Letter {
    pub sender: DeviceAddress,
    pub send_id: SendId,
    pub conversation: ConversationId,
    pub epoch: MlsEpoch,
    pub content: Content,
    pub body: Object,
    /// Also decides when it expires, so that finishing again writes the same bytes.
    pub accepted_at: UnixMillis,
}

impl Letter {
    fn expires_at(&self) -> UnixMillis {
        self.accepted_at.after(EXPIRY_MAX)
    }

    fn envelope(&self) -> Bytes {
        let body_or_ref = self.body.object.clone().map(|object| match object {
            object::Object::Inline(bytes) => BodyOrRef::Body(bytes),
            object::Object::Ref(reference) => BodyOrRef::BodyRef(reference),
        });
        let envelope = Envelope {
            sender: Some(WireAddress::from(self.sender)),
            send_id: Bytes::copy_from_slice(self.send_id.as_bytes()),
            conversation: Bytes::copy_from_slice(self.conversation.as_bytes()),
            epoch: self.epoch.0,
            class: pli_api::log::Class::from(Class::Message).into(),
            content: self.content.into(),
            accepted_at_ms: self.accepted_at.0,
            expires_at_ms: self.expires_at().0,
            body_or_ref,
            // It would have to be the same in every try to finish a commit.
            traceparent: Bytes::new(),
        };
        envelope.encode_to_vec().into()
    }
}

impl Inner {
    /// One entry per shard that the recipients touch, with the id that `entry_id` gives it. An envelope of at most 48
    /// KiB and 2,500 device ids stay within an entry's 256 KiB.
    pub(crate) fn entries(
        &self,
        letter: &Letter,
        recipients: impl IntoIterator<Item = DeviceAddress>,
        entry_id: impl Fn(ShardId) -> EntryId,
    ) -> Vec<NewEntry> {
        let items = items_by_shard(&self.shards, recipients, Class::Message, letter.expires_at(), &letter.envelope());
        let entry = |(shard, item)| {
            let entry = Entry { items: vec![item], origin: Bytes::new() };
            NewEntry { shard, id: entry_id(shard), bytes: entry.encode_to_vec().into() }
        };
        items.into_iter().map(entry).collect()
    }

    /// The entry of what is for everybody in the roster of its epoch, for the fan-out worker.
    pub(crate) fn entry_to_spread(&self, letter: &Letter, entry_id: impl Fn(ShardId) -> EntryId) -> NewEntry {
        let (shard, item) =
            fan_out_item(&self.shards, letter.conversation, Class::Message, letter.expires_at(), letter.envelope());
        let entry = Entry { items: vec![item], origin: Bytes::new() };
        NewEntry { shard, id: entry_id(shard), bytes: entry.encode_to_vec().into() }
    }

    /// Whether what is for these devices goes through the fan-out worker.
    pub(crate) fn is_spread(&self, roster: &[DeviceAddress]) -> bool {
        spread_over(&self.shards, roster.iter().copied(), self.config.fan_out_above_shards)
    }

    /// Appends all of them, trying again those that failed, under the same ids.
    pub(crate) async fn append(&self, mut entries: Vec<NewEntry>) -> Result<(), FinishError> {
        let (mut wait, mut attempt) = (FIRST_WAIT, 1);
        loop {
            let results = self.ports.log.append(entries.clone()).await;
            let (mut failed, mut last) = (Vec::new(), None);
            for (entry, result) in entries.into_iter().zip(results) {
                if let Err(error) = result {
                    tracing::warn!(shard = %entry.shard, error = &error as &dyn std::error::Error, "fan-out failed");
                    failed.push(entry);
                    last = Some(error);
                }
            }
            let Some(source) = last else { return Ok(()) };
            if attempt == TRIES || is_final(&source) {
                return Err(FinishError::Append { retry_after_ms: retry_after(&source), source });
            }
            entries = failed;
            attempt += 1;
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }
}

fn is_final(error: &AppendError) -> bool {
    matches!(error, AppendError::Store(error) if error.retry == Retry::Never)
}

fn retry_after(error: &AppendError) -> u32 {
    match error {
        AppendError::Full { retry_after_ms } => (*retry_after_ms).max(1),
        AppendError::Store(_) => RETRY_AFTER_MS,
    }
}
