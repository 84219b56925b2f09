// SPDX-License-Identifier: MIT OR Apache-2.0
//! One message on its way from the fan-out worker to the shards of its roster.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use pli_api::common::{Error, PayloadRef};
use pli_api::edge::{send_result, settled};
use pli_api::log::{Content, Envelope, Item, envelope::BodyOrRef};
use pli_api::{ErrorCode, ids, items_by_shard, log};
use pli_domain::{Class, ConversationId, DeviceAddress, DeviceId, MlsEpoch, PayloadId, Position, ShardId, UnixMillis};
use pli_ports::{Payloads, Retry};
use prost::Message as _;
use sha2::{Digest, Sha256};

use super::Lane;
use crate::append::Job;
use crate::edge::Shared;
use crate::retry::Backoff;
use crate::session::inbox::Inbox;
use crate::ticket::{Sent, Ticket};

/// Longest wait between two tries; a message is tried until it expires.
const TRY_AGAIN_MAX: Duration = Duration::from_secs(10);
/// Payloads of one lane that are stored at a time.
const PUTS_AT_ONCE: usize = 32;
/// How long a payload outlives the message that points at it: a device that has just been given it still fetches it.
const PAYLOAD_KEPT: Duration = Duration::from_secs(3_600);

/// A message to many shards.
pub(super) struct Spread {
    envelope: Envelope,
    sender: DeviceAddress,
    conversation: ConversationId,
}

/// What became of a message that was to be appended.
pub(super) enum Appended {
    /// It is in the log of every shard.
    Everywhere(Box<Settling>),
    /// It expired, or there is nobody to spread it to.
    Nowhere,
}

/// It has to be tried again, after what was asked to be waited.
#[derive(Default)]
struct Again {
    after: Option<Duration>,
}

/// A message that is in every log.
pub(super) struct Settling {
    spread: Spread,
    verdicts: Verdicts,
}

/// Where the tickets of one try tell how it ended; they are forgotten with it.
#[derive(Default)]
struct Verdicts {
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
    pub(super) fn new(envelope: Envelope) -> Option<Self> {
        let sender = DeviceAddress::try_from(envelope.sender.as_ref()?).ok()?;
        let conversation = ids::from("conversation", &envelope.conversation).ok()?;
        Some(Self { envelope, sender, conversation })
    }

    pub(super) fn lane(&self) -> Lane {
        self.conversation
    }

    /// Hands it to the appender, which keeps the order of what it is handed of a lane.
    fn hand_over(&self, shared: &Shared, items: BTreeMap<ShardId, Item>) -> Verdicts {
        let verdicts = Verdicts::default();
        let sent = Sent {
            send_id: self.envelope.send_id.clone(),
            accepted_at: UnixMillis(self.envelope.accepted_at_ms),
            shards: items.len(),
            span: None,
        };
        let ticket = Ticket::new(sent, &verdicts.inbox, shared.receipts.count());
        // One order domain for the whole conversation, whoever sent it.
        let lane = (
            DeviceId::fan_out(shared.shards.shard_of_conversation(self.conversation)),
            self.conversation,
            Class::Message,
        );
        for (shard, item) in items {
            shared.appender.push(shard, Job { lane, item, ticket: ticket.clone() });
        }
        verdicts
    }

    fn class(&self) -> Class {
        log::Class::try_from(self.envelope.class).unwrap_or_default().into()
    }

    /// The body goes where everybody finds it; from here on the envelope points at it.
    async fn put_payload(&mut self, payloads: &dyn Payloads) -> Result<(), Again> {
        let Some(BodyOrRef::Body(body)) = &self.envelope.body_or_ref else { return Ok(()) };
        let sha256: [u8; 32] = Sha256::digest(body).into();
        let id = payload_id(self.conversation, &sha256);
        let put = payloads.put(id, body.clone(), self.expires_at().after(PAYLOAD_KEPT)).await;
        put.map_err(|error| {
            let cause = &error as &dyn std::error::Error;
            match error.retry {
                Retry::Never => tracing::error!(error = cause, "the payload of a message to many shards is refused"),
                _ => tracing::debug!(error = cause, "the payload of a message to many shards is not stored yet"),
            }
            Again::default()
        })?;
        let reference = PayloadRef {
            id: Bytes::copy_from_slice(id.as_bytes()),
            size: body.len() as u64,
            sha256: Bytes::copy_from_slice(&sha256),
        };
        self.envelope.body_or_ref = Some(BodyOrRef::BodyRef(reference));
        Ok(())
    }

    async fn items(&self, shared: &Shared) -> Result<BTreeMap<ShardId, Item>, Again> {
        let epoch = MlsEpoch(self.envelope.epoch);
        let roster =
            shared.rosters.for_accepted(self.conversation, epoch).await.map_err(|error| again_after(&error))?;
        // A commit comes back to its committer.
        let to_all = self.envelope.content() == Content::Commit;
        let others = roster.iter().copied().filter(|to| to_all || to.device != self.sender.device);
        let envelope = self.envelope.encode_to_vec().into();
        Ok(items_by_shard(&shared.shards, others, self.class(), self.expires_at(), &envelope))
    }

    fn expires_at(&self) -> UnixMillis {
        UnixMillis(self.envelope.expires_at_ms)
    }
}

impl Settling {
    /// Waits until everything is settled; gives the message back if something is lost or too old to tell.
    pub(super) async fn lost(mut self) -> Option<Spread> {
        (!self.verdicts.settled().await).then_some(self.spread)
    }
}

/// Appends messages of one lane in their order, and tries again those that failed until each is in every log or has
/// expired. What comes after them waits.
pub(super) async fn append(
    shared: &Arc<Shared>,
    payloads: &dyn Payloads,
    batch: Vec<(Position, Spread)>,
) -> Vec<(Position, Appended)> {
    let (mut left, mut done) = (VecDeque::from(batch), Vec::new());
    let mut backoff = Backoff::new(Duration::from_millis(50), TRY_AGAIN_MAX);
    loop {
        let failed = round(shared, payloads, &mut left, &mut done).await;
        if left.is_empty() {
            return done;
        }
        shared.metrics.fan_out_retries.add(left.len() as u64, &[]);
        tokio::time::sleep(backoff.next(&shared.dice, failed.after)).await;
    }
}

/// One try of each message; those that failed stay, in their order.
async fn round(
    shared: &Arc<Shared>,
    payloads: &dyn Payloads,
    left: &mut VecDeque<(Position, Spread)>,
    done: &mut Vec<(Position, Appended)>,
) -> Again {
    let now = shared.ports.clock.now();
    let mut puts: Vec<BoxFuture<'_, Result<(), Again>>> = Vec::with_capacity(left.len());
    for (_, spread) in left.iter_mut() {
        puts.push(Box::pin(spread.put_payload(payloads)));
    }
    let put: Vec<Result<(), Again>> = stream::iter(puts).buffered(PUTS_AT_ONCE).collect().await;
    let (mut again, mut under_way, mut refused) = (Again::default(), Vec::new(), false);
    for ((position, spread), put) in std::mem::take(left).into_iter().zip(put) {
        if spread.expires_at() <= now {
            done.push((position, Appended::Nowhere));
            continue;
        }
        // Behind one that failed nothing is tried: it would overtake.
        let items = match put {
            Ok(()) if !refused => spread.items(shared).await,
            Ok(()) => Err(Again::default()),
            Err(error) => Err(error),
        };
        let verdicts = match items {
            Ok(items) if items.is_empty() => {
                done.push((position, Appended::Nowhere));
                continue;
            }
            Ok(items) => Ok(spread.hand_over(shared, items)),
            Err(error) => Err(error),
        };
        refused |= verdicts.is_err();
        under_way.push((position, spread, verdicts));
    }
    for (position, spread, verdicts) in under_way {
        let appended = match verdicts {
            Ok(mut verdicts) => verdicts.appended().await.map(|()| verdicts).map_err(|error| again_after(&error)),
            Err(error) => Err(error),
        };
        match appended {
            Ok(verdicts) => done.push((position, Appended::Everywhere(Box::new(Settling { spread, verdicts })))),
            Err(error) => {
                again.after = again.after.max(error.after);
                left.push_back((position, spread));
            }
        }
    }
    again
}

impl Verdicts {
    /// How the appends ended.
    async fn appended(&mut self) -> Result<(), Error> {
        loop {
            let mail = poll_fn(|cx| self.inbox.poll_take(cx)).await;
            self.settled = mail.settled.into_iter().find_map(|settled| settled.outcome);
            match mail.results.into_iter().find_map(|result| result.result) {
                Some(send_result::Result::Accepted(_)) => return Ok(()),
                Some(send_result::Result::Refused(error)) => return Err(error),
                None => {}
            }
        }
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
    if !matches!(error.code(), ErrorCode::Temporary | ErrorCode::NoSpace | ErrorCode::EpochNotOpen) {
        tracing::warn!(code = error.code().as_str_name(), text = error.message, "a message to many shards waits");
    }
    Again { after: (error.retry_after_ms > 0).then(|| Duration::from_millis(error.retry_after_ms.into())) }
}
