// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is in a conversation at an epoch. An open epoch's roster never changes, so it is kept without expiry, within a
//! byte budget; which epoch is the newest is believed for seconds only, and not for a message of the oldest epoch that is
//! taken: another commit since, and receivers might have no key for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moka::sync::Cache;
use pli_api::common::Error;
use pli_api::conversations::conversations_client::ConversationsClient;
use pli_api::conversations::{GetRosterRequest, GetRosterResponse};
use pli_api::{Channel, ErrorCode, error_of_status, refusal};
use pli_domain::limits::EPOCHS_BEHIND_MAX;
use pli_domain::{ConversationId, DeviceAddress, MlsEpoch};
use tokio::time::Instant;

/// The devices of one epoch.
#[derive(Clone)]
pub(crate) struct Roster {
    pub(crate) devices: Arc<[DeviceAddress]>,
    /// What is for all of them goes through the fan-out worker: the conversations service decides, by one bound for the
    /// whole cluster.
    pub(crate) fan_out: bool,
}

/// Bytes that one cached roster costs besides its devices.
const ROSTER_OVERHEAD: usize = 160;
/// Newest epochs believed at a time: 128 bytes each.
const CURRENT_MAX: u64 = 100_000;

#[derive(Clone, Copy)]
struct Current {
    epoch: MlsEpoch,
    at: Instant,
}

/// Rosters by conversation and epoch.
pub(crate) struct Rosters {
    conversations: Channel,
    open: Cache<(ConversationId, MlsEpoch), Roster>,
    current: Cache<ConversationId, Current>,
    believed: Duration,
    deadline: Duration,
}

impl Rosters {
    pub(crate) fn new(conversations: Channel, bytes: u64, believed: Duration, deadline: Duration) -> Self {
        let weigh = |_: &(ConversationId, MlsEpoch), roster: &Roster| {
            u32::try_from(size_of_val::<[DeviceAddress]>(&roster.devices) + ROSTER_OVERHEAD).unwrap_or(u32::MAX)
        };
        let open = Cache::builder().max_capacity(bytes).weigher(weigh).build();
        Self { conversations, open, current: Cache::new(CURRENT_MAX), believed, deadline }
    }

    /// The roster to which `sender` may send at `epoch`, or the refusal.
    pub(crate) async fn for_send(
        &self,
        conversation: ConversationId,
        epoch: MlsEpoch,
        sender: DeviceAddress,
    ) -> Result<Roster, Error> {
        let (roster, current) = self.at(conversation, epoch).await?;
        if epoch.0 > current.0 || epoch.0 + EPOCHS_BEHIND_MAX < current.0 {
            return Err(wrong_epoch(current));
        }
        let Some(roster) = roster else { return Err(wrong_epoch(current)) };
        if !roster.devices.contains(&sender) {
            return Err(not_a_member());
        }
        if epoch != current
            && let Some(newest) = self.open_or_none(conversation, current).await?
        {
            // Removed since: it was in, so it may know where the conversation stands.
            if !newest.devices.contains(&sender) {
                let mut error = not_a_member();
                error.current_epoch = current.0;
                return Err(error);
            }
        }
        Ok(roster)
    }

    /// The roster of an epoch in which a message was accepted, however old that is by now.
    pub(crate) async fn for_accepted(&self, conversation: ConversationId, epoch: MlsEpoch) -> Result<Roster, Error> {
        if let Some(roster) = self.open.get(&(conversation, epoch)) {
            return Ok(roster);
        }
        let answer = self.ask(conversation, epoch, true).await?;
        self.keep_open(conversation, epoch, &answer)
    }

    async fn at(&self, conversation: ConversationId, epoch: MlsEpoch) -> Result<(Option<Roster>, MlsEpoch), Error> {
        if let Some(current) = self.believed(conversation)
            && epoch <= current
            && current.0 < epoch.0 + EPOCHS_BEHIND_MAX
            && let Some(roster) = self.open.get(&(conversation, epoch))
        {
            return Ok((Some(roster), current));
        }
        self.fetch(conversation, epoch).await
    }

    /// The roster of the newest epoch; none while that is not open.
    async fn open_or_none(&self, conversation: ConversationId, epoch: MlsEpoch) -> Result<Option<Roster>, Error> {
        match self.at(conversation, epoch).await {
            Ok((roster, _)) => Ok(roster),
            Err(error) if error.code() == ErrorCode::EpochNotOpen => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn believed(&self, conversation: ConversationId) -> Option<MlsEpoch> {
        let current = self.current.get(&conversation)?;
        (current.at.elapsed() < self.believed).then_some(current.epoch)
    }

    async fn fetch(&self, conversation: ConversationId, epoch: MlsEpoch) -> Result<(Option<Roster>, MlsEpoch), Error> {
        let at = Instant::now();
        let answer = self.ask(conversation, epoch, false).await?;
        let current = MlsEpoch(answer.current_epoch);
        self.current.insert(conversation, Current { epoch: current, at });
        if epoch > current || epoch.0 + EPOCHS_BEHIND_MAX < current.0 {
            return Ok((None, current));
        }
        Ok((Some(self.keep_open(conversation, epoch, &answer)?), current))
    }

    async fn ask(
        &self,
        conversation: ConversationId,
        epoch: MlsEpoch,
        accepted_before: bool,
    ) -> Result<GetRosterResponse, Error> {
        let conversation = Bytes::copy_from_slice(conversation.as_bytes());
        let request = GetRosterRequest { conversation, epoch: epoch.0, accepted_before };
        let mut client = ConversationsClient::new(self.conversations.clone());
        let answer = tokio::time::timeout(self.deadline, client.get_roster(request)).await;
        let answer = answer
            .map_err(|_| refusal(ErrorCode::Temporary, "the conversations service took too long").retry_after(500))?;
        Ok(answer.map_err(|status| error_of_status(&status))?.into_inner())
    }

    fn keep_open(
        &self,
        conversation: ConversationId,
        epoch: MlsEpoch,
        answer: &GetRosterResponse,
    ) -> Result<Roster, Error> {
        if !answer.open {
            let error = refusal(ErrorCode::EpochNotOpen, "the epoch's commit is still on its way");
            return Err(error.retry_after(answer.retry_after_ms.max(1)));
        }
        let devices: Result<Vec<_>, _> = answer.devices.iter().map(DeviceAddress::try_from).collect();
        let devices = devices.map_err(|_| refusal(ErrorCode::Internal, "a roster cannot be read"))?.into();
        let roster = Roster { devices, fan_out: answer.fan_out };
        // Open, so immutable: only such a roster may be kept without expiry.
        self.open.insert((conversation, epoch), roster.clone());
        Ok(roster)
    }
}

fn not_a_member() -> Error {
    refusal(ErrorCode::UnknownConversation, "no such conversation, or this device is not in it")
}

fn wrong_epoch(current: MlsEpoch) -> Error {
    let mut error = refusal(ErrorCode::WrongEpoch, format!("send in epoch {} or the two before it", current.0));
    error.current_epoch = current.0;
    error
}
