// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sending side of a session: what a send must satisfy, who gets it, and receipts presented again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use pli_api::common::Error;
use pli_api::edge::{Pending, Send, SendResult, Settled, Stored, send_result, settled};
use pli_api::log::{Content, Envelope, Item, envelope::BodyOrRef};
use pli_api::{ErrorCode, fan_out_item, ids, items_by_shard, log, refusal};
use pli_domain::limits::{ENVELOPE_BODY_BYTES_MAX, EXPIRY_MAX};
use pli_domain::{Class, ConversationId, DeviceAddress, MlsEpoch, SendId, ShardId, UnixMillis};
use pli_runtime::trail::{HopKind, Span, SpanKind, TraceContext, within};
use prost::Message;

use crate::append::Job;
use crate::edge::Shared;
use crate::limits::{SessionLimits, limited};
use crate::receipts;
use crate::roster::Roster;
use crate::session::inbox::Inbox;
use crate::ticket::{Sent, Ticket};

/// Receipts in one `Pending` frame.
pub(crate) const PENDING_MAX: usize = 256;

/// One sender on one session.
pub(crate) struct Sender {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) limits: Arc<SessionLimits>,
    pub(crate) device: DeviceAddress,
}

/// A send that was checked as far as it can be without asking anybody.
struct Checked {
    send_id: SendId,
    conversation: ConversationId,
    epoch: MlsEpoch,
    class: Class,
    expires_at: UnixMillis,
    accepted_at: UnixMillis,
    body: Bytes,
}

impl Sender {
    /// Admits sends in order and hands them to the appender; answers those that are refused. After one was refused for
    /// a while, what follows in its lane is refused as well: accepted, it would overtake.
    pub(crate) async fn admit(self, sends: Vec<Send>) -> Vec<SendResult> {
        let mut refused = Vec::new();
        let mut held: BTreeMap<(Bytes, i32), Error> = BTreeMap::new();
        for send in sends {
            let (send_id, lane) = (send.send_id.clone(), (send.conversation.clone(), send.class));
            let error = match held.get(&lane) {
                Some(error) => error.clone(),
                None => match self.admit_one(send).await {
                    Ok(()) => continue,
                    Err(error) => error,
                },
            };
            if error.code().is_temporary() {
                held.insert(lane, error.clone());
            }
            self.shared.metrics.send_refused(&send_id, &error);
            refused.push(SendResult { send_id, result: Some(send_result::Result::Refused(error)) });
        }
        refused
    }

    /// The whole of it is one span, where it is traced, which ends with the verdict.
    async fn admit_one(&self, send: Send) -> Result<(), Error> {
        let mut span = self.shared.metrics.notes.begin("send", SpanKind::Producer);
        let admitted = self.admit_under(send, &mut span).await;
        self.shared.metrics.notes.end(span, admitted.as_ref().err());
        admitted
    }

    /// Takes the span with it once the appends decide.
    async fn admit_under(&self, send: Send, span: &mut Option<Span>) -> Result<(), Error> {
        let checked = check(send, self.shared.ports.clock.now())?;
        self.limits.send(checked.body.len())?;
        self.check_room()?;
        let rosters = &self.shared.rosters;
        let context = span.as_ref().map(Span::context);
        let roster = rosters.for_send(checked.conversation, checked.epoch, self.device);
        let roster = within(context, roster).await?;
        self.limits.deliveries(roster.devices.len())?;
        let envelope: Bytes = envelope(&checked, self.device, context).encode_to_vec().into();
        let items = self.items(&checked, &roster, &envelope)?;
        let send_id = Bytes::copy_from_slice(checked.send_id.as_bytes());
        self.shared.metrics.notes.of_send(HopKind::Admitted, &send_id);
        let sent = Sent { send_id, accepted_at: checked.accepted_at, shards: items.len(), span: span.take() };
        let ticket = Ticket::new(sent, &self.inbox, self.shared.receipts.count());
        if items.is_empty() {
            ticket.nobody(&self.shared.metrics);
        }
        let lane = (self.device.device, checked.conversation, checked.class);
        for (shard, item) in items {
            self.shared.appender.push(shard, Job { lane, item, ticket: ticket.clone(), round: None });
        }
        Ok(())
    }

    /// One for each shard of the recipients; only one, for the fan-out worker of the conversation, where those are many.
    fn items(&self, send: &Checked, roster: &Roster, envelope: &Bytes) -> Result<BTreeMap<ShardId, Item>, Error> {
        let shards = &self.shared.shards;
        if roster.fan_out {
            let (shard, item) = fan_out_item(shards, send.conversation, send.class, send.expires_at, envelope.clone());
            if let Some(left) = self.shared.receipts.fan_out_full(shard) {
                let text = "too many messages of large groups wait to be spread";
                return Err(
                    refusal(ErrorCode::NoSpace, text).retry_after(u32::try_from(left.as_millis()).unwrap_or(u32::MAX))
                );
            }
            return Ok([(shard, item)].into());
        }
        let others = roster.devices.iter().copied().filter(|to| to.device != self.device.device);
        Ok(items_by_shard(shards, others, send.class, send.expires_at, envelope))
    }

    fn check_room(&self) -> Result<(), Error> {
        if self.inbox.open_receipts() >= self.shared.config.session.open_receipts_max {
            return Err(limited("session_open_receipts", std::time::Duration::from_secs(1)));
        }
        if !self.shared.receipts.has_room() {
            return Err(refusal(ErrorCode::NoSpace, "too many messages wait to be settled").retry_after(1_000));
        }
        Ok(())
    }

    fn check_room_to_present(&self) -> Result<(), Error> {
        self.check_room()?;
        if !self.shared.receipts.has_room_to_present() {
            return Err(refusal(ErrorCode::NoSpace, "too many receipts are presented").retry_after(1_000));
        }
        Ok(())
    }

    /// Receipts that the client presents again; answers those that end at once.
    pub(crate) fn present(&self, pending: Pending) -> Vec<Settled> {
        let mut shards = BTreeSet::new();
        let mut ended = Vec::new();
        for receipt in pending.receipts {
            let outcome = match receipts::parse(&receipt, &self.shared.shards) {
                None => Some(self.bad_receipt()),
                // Of a message to nobody else, in a group of one.
                Some(parts) if parts.is_empty() => Some(settled::Outcome::Stored(Stored {})),
                Some(parts) => match self.check_room_to_present() {
                    Err(error) => Some(settled::Outcome::Refused(error)),
                    Ok(()) => {
                        let count = self.shared.receipts.count();
                        let ticket =
                            Ticket::presented(Bytes::copy_from_slice(&receipt), parts.len(), &self.inbox, count);
                        for part in &parts {
                            self.shared.receipts.present(part, &ticket);
                            shards.insert(part.shard);
                        }
                        None
                    }
                },
            };
            ended.extend(outcome.map(|outcome| Settled { receipt, outcome: Some(outcome) }));
        }
        for shard in shards {
            self.shared.receipts.ask(shard);
        }
        ended
    }

    fn bad_receipt(&self) -> settled::Outcome {
        self.shared.metrics.receipts_bad.add(1, &[]);
        settled::Outcome::Refused(refusal(ErrorCode::BadReceipt, "not a receipt of this server"))
    }
}

/// Sizes, ids, class and life of a send.
fn check(send: Send, now: UnixMillis) -> Result<Checked, Error> {
    let field = |error: pli_api::FieldError| refusal(ErrorCode::BadRequest, error.to_string());
    let send_id: SendId = ids::from("send_id", &send.send_id).map_err(field)?;
    let conversation: ConversationId = ids::from("conversation", &send.conversation).map_err(field)?;
    let class = log::Class::try_from(send.class).ok().filter(|class| *class != log::Class::Unspecified);
    let class =
        class.ok_or_else(|| refusal(ErrorCode::BadRequest, "class must be one of LIVE, URGENT, MESSAGE, TICK"))?;
    if send.body.is_empty() {
        return Err(refusal(ErrorCode::EnvelopeEmpty, "body is empty"));
    }
    if send.body.len() > ENVELOPE_BODY_BYTES_MAX {
        return Err(refusal(
            ErrorCode::EnvelopeTooLarge,
            format!("body has more than {ENVELOPE_BODY_BYTES_MAX} bytes"),
        ));
    }
    let expires_at = UnixMillis(send.expires_at_ms);
    if expires_at <= now {
        return Err(refusal(ErrorCode::EnvelopeExpired, "expires_at_ms lies in the past of the server's clock"));
    }
    if expires_at > now.after(EXPIRY_MAX) {
        return Err(refusal(
            ErrorCode::ExpiryTooFar,
            "expires_at_ms lies more than 30 days ahead of the server's clock",
        ));
    }
    let (epoch, body) = (MlsEpoch(send.epoch), send.body);
    Ok(Checked { send_id, conversation, epoch, class: class.into(), expires_at, accepted_at: now, body })
}

/// Encoded once; log, queue and session carry the same bytes.
fn envelope(send: &Checked, sender: DeviceAddress, context: Option<TraceContext>) -> Envelope {
    Envelope {
        sender: Some(sender.into()),
        send_id: Bytes::copy_from_slice(send.send_id.as_bytes()),
        conversation: Bytes::copy_from_slice(send.conversation.as_bytes()),
        epoch: send.epoch.0,
        class: log::Class::from(send.class).into(),
        content: Content::Application.into(),
        accepted_at_ms: send.accepted_at.0,
        expires_at_ms: send.expires_at.0,
        body_or_ref: Some(BodyOrRef::Body(send.body.clone())),
        traceparent: context.map(|context| context.to_string().into()).unwrap_or_default(),
    }
}
