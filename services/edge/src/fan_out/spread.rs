// SPDX-License-Identifier: MIT OR Apache-2.0
//! One message on its way from the fan-out worker to the shards of its roster.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use pli_api::common::{Error, PayloadRef};
use pli_api::delivery::ReceiptPart;
use pli_api::edge::{send_result, settled};
use pli_api::log::{Content, Envelope, Item, envelope::BodyOrRef};
use pli_api::{ErrorCode, ids, items_by_shard, log};
use pli_domain::{Class, ConversationId, DeviceAddress, DeviceId, MlsEpoch, PayloadId, Position, ShardId, UnixMillis};
use pli_ports::{Payloads, Retry};
use prost::Message as _;
use sha2::{Digest, Sha256};

use super::Lane;
use super::room::{Held, Room};
use crate::append::{Job, Round};
use crate::edge::Shared;
use crate::metrics::Metrics;
use crate::receipts;
use crate::session::inbox::Inbox;
use crate::ticket::{Sent, Ticket};

/// Payloads of one lane that are stored at a time.
const PUTS_AT_ONCE: usize = 32;
/// How long a payload outlives the message that points at it: a device that has just been given it still fetches it.
const PAYLOAD_KEPT: Duration = Duration::from_secs(3_600);

/// A message whose roster cannot be had is given up after so long: the conversation is gone, or was restored to a time
/// before it.
const UNKNOWN_FOR: Duration = Duration::from_secs(3_600);

/// A message to many shards.
pub(super) struct Spread {
    envelope: Envelope,
    sender: DeviceAddress,
    conversation: ConversationId,
    /// What earlier tries have appended; the next one leaves those shards out.
    parts: Vec<ReceiptPart>,
    /// Counts the body until the envelope points at it.
    _held: Option<Held>,
}

/// What became of a message that was to be appended.
pub(super) enum Appended {
    /// It is in the log of every shard.
    Everywhere(Box<Settling>),
    /// There is nobody to spread it to.
    ToNobody,
    /// Its time came first.
    Expired,
    /// Nobody knows to whom it goes, any more.
    Unknown,
}

/// It has to be tried again.
#[derive(Default)]
struct Again {
    /// What was asked to be waited.
    after: Option<Duration>,
    /// Nothing says that it will help.
    is_final: bool,
}

/// A message that is in every log.
pub(super) struct Settling {
    spread: Spread,
    verdicts: Verdicts,
}

/// Where the ticket of one try tells how it ended; it is forgotten with it.
struct Verdicts {
    ticket: Arc<Ticket>,
    inbox: Arc<Inbox>,
    /// Told with the verdict already.
    settled: Option<settled::Outcome>,
}

impl Drop for Verdicts {
    fn drop(&mut self) {
        self.inbox.close();
    }
}

impl Spread {
    /// None where the envelope is none of an edge.
    pub(super) fn new(envelope: Envelope, room: &Room) -> Option<Self> {
        let sender = DeviceAddress::try_from(envelope.sender.as_ref()?).ok()?;
        let conversation = ids::from("conversation", &envelope.conversation).ok()?;
        let held = match &envelope.body_or_ref {
            Some(BodyOrRef::Body(body)) => Some(room.hold(body.len())),
            _ => None,
        };
        Some(Self { envelope, sender, conversation, parts: Vec::new(), _held: held })
    }

    pub(super) fn lane(&self) -> Lane {
        self.conversation
    }

    /// Hands it to the appender, which keeps the order of what it is handed of a lane.
    fn hand_over(&self, shared: &Shared, items: BTreeMap<ShardId, Item>, round: &Arc<Round>) -> Verdicts {
        let inbox = Arc::default();
        let sent = Sent {
            send_id: self.envelope.send_id.clone(),
            accepted_at: UnixMillis(self.envelope.accepted_at_ms),
            shards: items.len(),
            span: None,
        };
        let ticket = Ticket::new(sent, &inbox, shared.fan_out_room.parts());
        // One order domain for the whole conversation, whoever sent it.
        let lane = (
            DeviceId::fan_out(shared.shards.shard_of_conversation(self.conversation)),
            self.conversation,
            Class::Message,
        );
        for (shard, item) in items {
            shared.appender.push(shard, Job { lane, item, ticket: ticket.clone(), round: Some(round.clone()) });
        }
        Verdicts { ticket, inbox, settled: None }
    }

    fn class(&self) -> Class {
        log::Class::try_from(self.envelope.class).unwrap_or_default().into()
    }

    /// The body goes where everybody finds it; from here on the envelope points at it. Where it is refused for good the
    /// body stays in the envelope: it costs a copy a shard, and nothing is lost.
    async fn put_payload(&mut self, payloads: &dyn Payloads, metrics: &Metrics) -> Result<(), Again> {
        let Some(BodyOrRef::Body(body)) = &self.envelope.body_or_ref else { return Ok(()) };
        let sha256: [u8; 32] = Sha256::digest(body).into();
        let id = payload_id(self.conversation, &sha256);
        match payloads.put(id, body.clone(), self.expires_at().after(PAYLOAD_KEPT)).await {
            Ok(()) => {}
            Err(error) if error.retry == Retry::Never => {
                let cause = &error as &dyn std::error::Error;
                tracing::error!(error = cause, "the payload of a message to many shards is refused; it goes without");
                return Ok(());
            }
            Err(error) => {
                let cause = &error as &dyn std::error::Error;
                tracing::debug!(error = cause, "the payload of a message to many shards is not stored yet");
                return Err(Again::default());
            }
        }
        metrics.fan_out_payload_bytes.add(body.len() as u64, &[]);
        let reference = PayloadRef {
            id: Bytes::copy_from_slice(id.as_bytes()),
            size: body.len() as u64,
            sha256: Bytes::copy_from_slice(&sha256),
        };
        self.envelope.body_or_ref = Some(BodyOrRef::BodyRef(reference));
        self._held = None;
        Ok(())
    }

    /// What is still to be appended; nothing where there is nobody to spread it to.
    async fn items(&self, shared: &Shared) -> Result<BTreeMap<ShardId, Item>, Again> {
        let epoch = MlsEpoch(self.envelope.epoch);
        let roster =
            shared.rosters.for_accepted(self.conversation, epoch).await.map_err(|error| again_after(&error))?;
        // A commit comes back to its committer.
        let to_all = self.envelope.content() == Content::Commit;
        let others = roster.devices.iter().copied().filter(|to| to_all || to.device != self.sender.device);
        let envelope = self.envelope.encode_to_vec().into();
        let mut items = items_by_shard(&shared.shards, others, self.class(), self.expires_at(), &envelope);
        for part in &self.parts {
            items.retain(|shard, _| u32::from(shard.get()) != part.shard);
        }
        Ok(items)
    }

    fn expires_at(&self) -> UnixMillis {
        UnixMillis(self.envelope.expires_at_ms)
    }

    /// Whether it is time to give up what nothing helps.
    fn is_given_up(&self, why: &Again, now: UnixMillis) -> bool {
        why.is_final && now.since(UnixMillis(self.envelope.accepted_at_ms)) >= UNKNOWN_FOR
    }
}

impl Settling {
    /// Waits until everything is settled; gives the message back if something is lost or too old to tell.
    pub(super) async fn lost(mut self) -> Option<Box<Spread>> {
        (!self.verdicts.settled().await).then(|| Box::new(self.spread))
    }
}

/// How one try of a batch ended.
pub(super) struct Tried {
    pub(super) done: Vec<(Position, Appended)>,
    /// Those that failed, in their order.
    pub(super) left: Vec<(Position, Spread)>,
    /// What was asked to be waited before the next try.
    pub(super) after: Option<Duration>,
}

/// Tries once to append messages of one lane in their order.
pub(super) async fn append(shared: &Arc<Shared>, payloads: &dyn Payloads, mut batch: Vec<(Position, Spread)>) -> Tried {
    let mut puts: Vec<BoxFuture<'_, Result<(), Again>>> = Vec::with_capacity(batch.len());
    for (_, spread) in &mut batch {
        puts.push(Box::pin(spread.put_payload(payloads, &shared.metrics)));
    }
    let put: Vec<Result<(), Again>> = stream::iter(puts).buffered(PUTS_AT_ONCE).collect().await;
    let mut tried = Tried { done: Vec::new(), left: Vec::new(), after: None };
    let under_way = hand_over(shared, batch.into_iter().zip(put), &mut tried.done).await;
    for (position, mut spread, verdicts) in under_way {
        let appended = match verdicts {
            Ok(mut verdicts) => match verdicts.appended().await {
                Ok(receipt) => Ok(verdicts.with(&mut spread, &receipt, shared)),
                Err(error) => {
                    spread.parts.append(&mut verdicts.ticket.take_parts());
                    Err(again_after(&error).after)
                }
            },
            Err(after) => Err(after),
        };
        match appended {
            Ok(verdicts) => tried.done.push((position, Appended::Everywhere(Box::new(Settling { spread, verdicts })))),
            Err(after) => {
                tried.after = tried.after.max(after);
                tried.left.push((position, spread));
            }
        }
    }
    tried
}

/// Hands over all of them up to the first one of which it is not known where it goes: behind it nothing is tried, it would
/// overtake. Behind one that a shard does not take nothing is appended to that shard.
async fn hand_over(
    shared: &Shared,
    tried: impl Iterator<Item = ((Position, Spread), Result<(), Again>)> + Send,
    done: &mut Vec<(Position, Appended)>,
) -> Vec<(Position, Spread, Result<Verdicts, Option<Duration>>)> {
    let (now, round) = (shared.ports.clock.now(), Arc::new(Round::default()));
    let (mut under_way, mut stopped) = (Vec::new(), false);
    for ((position, spread), put) in tried {
        if spread.expires_at() <= now {
            done.push((position, Appended::Expired));
            continue;
        }
        let items = match put {
            Ok(()) if !stopped => spread.items(shared).await,
            Ok(()) => Err(Again::default()),
            Err(again) => Err(again),
        };
        match items {
            Ok(items) if items.is_empty() => done.push((position, Appended::ToNobody)),
            Ok(items) => {
                let verdicts = spread.hand_over(shared, items, &round);
                under_way.push((position, spread, Ok(verdicts)));
            }
            Err(again) if spread.is_given_up(&again, now) => {
                tracing::error!(position = position.get(), "nobody knows to whom a message to many shards goes");
                done.push((position, Appended::Unknown));
            }
            Err(again) => {
                stopped = true;
                under_way.push((position, spread, Err(again.after)));
            }
        }
    }
    under_way
}

impl Verdicts {
    /// How the appends ended; the receipt where all of them did what they should.
    async fn appended(&mut self) -> Result<Bytes, Error> {
        loop {
            let mail = poll_fn(|cx| self.inbox.poll_take(cx)).await;
            self.settled = mail.settled.into_iter().find_map(|settled| settled.outcome);
            match mail.results.into_iter().find_map(|result| result.result) {
                Some(send_result::Result::Accepted(accepted)) => return Ok(accepted.receipt),
                Some(send_result::Result::Refused(error)) => return Err(error),
                None => {}
            }
        }
    }

    /// Verdicts over what earlier tries have appended, too.
    fn with(self, spread: &mut Spread, receipt: &Bytes, shared: &Shared) -> Self {
        if spread.parts.is_empty() {
            return self;
        }
        let whole = receipts::joined(receipt, std::mem::take(&mut spread.parts));
        let parts = receipts::parse(&whole, &shared.shards).unwrap_or_default();
        let inbox = Arc::default();
        let ticket = Ticket::presented(whole, parts.len(), &inbox, shared.fan_out_room.parts());
        for part in &parts {
            shared.receipts.present(part, &ticket);
        }
        Self { ticket, inbox, settled: None }
    }

    /// Whether everything that was appended is settled; false when something of it is lost or too old to tell.
    async fn settled(&mut self) -> bool {
        while self.settled.is_none() {
            let mail = poll_fn(|cx| self.inbox.poll_take(cx)).await;
            self.settled = mail.settled.into_iter().find_map(|settled| settled.outcome);
        }
        matches!(self.settled, Some(settled::Outcome::Stored(_)))
    }
}

/// Who can name it has its bytes already, or was told by the server: first 16 bytes of SHA-256 over a label, the
/// conversation and the hash of the body.
fn payload_id(conversation: ConversationId, sha256: &[u8; 32]) -> PayloadId {
    let hash = Sha256::new().chain_update(b"pli-fan-out-1").chain_update(conversation.as_bytes()).chain_update(sha256);
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    PayloadId::from_bytes(id)
}

fn again_after(error: &Error) -> Again {
    if !error.code().is_temporary() {
        tracing::warn!(code = error.code().as_str_name(), text = error.message, "a message to many shards waits");
    }
    let after = (error.retry_after_ms > 0).then(|| Duration::from_millis(error.retry_after_ms.into()));
    Again { after, is_final: matches!(error.code(), ErrorCode::UnknownConversation | ErrorCode::WrongEpoch) }
}
