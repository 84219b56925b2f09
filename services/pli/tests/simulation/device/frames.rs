// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a device does with what the edge sends.

use bytes::Bytes;
use pli_api::edge::{Deliver, Gap, Ready, ServerFrame, server_frame::Frame};
use pli_api::log::Envelope;
use pli_client_core::inbox::{Delivery, InLane, Shown};
use pli_domain::{ConversationId, DeviceId, Position, SendId, UnixMillis};
use pli_testkit::history::Event;
use prost::Message;
use tokio::time::Instant;

use super::Device;
use crate::simulation::oracle::points;

/// What an envelope of the simulation says.
struct Opened {
    lane: InLane,
    send_id: SendId,
    lane_no: u64,
    body: Bytes,
}

fn open(bytes: &Bytes) -> Option<Opened> {
    let envelope = Envelope::decode(bytes.clone()).ok()?;
    let class = envelope.class().into();
    let sender = DeviceId::try_from(envelope.sender.as_ref()?.device.as_ref()).ok()?;
    let conversation = ConversationId::try_from(envelope.conversation.as_ref()).ok()?;
    let pli_api::log::envelope::BodyOrRef::Body(body) = envelope.body_or_ref? else { return None };
    Some(Opened {
        lane: InLane { sender, conversation, class },
        send_id: SendId::try_from(envelope.send_id.as_ref()).ok()?,
        lane_no: u64::from_be_bytes(body.get(..8)?.try_into().ok()?),
        body,
    })
}

impl Device {
    pub(super) fn on_frame(&mut self, bytes: Bytes) {
        let Ok(frame) = ServerFrame::decode(bytes) else {
            return self.world.judge(Err(format!("{} cannot decode a frame", self.name())));
        };
        if let (false, Some(Frame::Deliver(_) | Frame::Gap(_) | Frame::CaughtUp(_))) = (self.ready, &frame.frame) {
            self.world.judge(Err(format!("{} is sent something before Ready", self.name())));
        }
        match frame.frame {
            Some(Frame::Ready(ready)) => self.on_ready(&ready),
            Some(Frame::SendResults(results)) => {
                let now = self.world.now();
                for result in &results.results {
                    let event = self.outbox.on_result(result, now, &mut self.rng);
                    self.commit();
                    event.into_iter().for_each(|event| self.on_outbox(event));
                }
            }
            Some(Frame::Settled(batch)) => {
                let now = self.world.now();
                for settled in &batch.settled {
                    let events = self.outbox.on_settled(settled, now, &mut self.rng);
                    self.commit();
                    events.into_iter().for_each(|event| self.on_outbox(event));
                }
            }
            Some(Frame::Deliver(deliver)) => self.on_deliver(deliver),
            Some(Frame::Gap(gap)) => self.on_gap(&gap),
            Some(Frame::GoAway(_)) => self.disconnect("the edge goes away"),
            Some(Frame::Close(close)) => self.disconnect(&format!("closed: {close:?}")),
            _ => {}
        }
    }

    fn on_ready(&mut self, ready: &Ready) {
        let from = Position::from_u64(ready.from).unwrap_or(Position::MAX);
        let ignored = ready.position_ignored;
        self.world.say(format_args!("{} is ready above {from}, position ignored: {ignored}", self.name()));
        let log = self.world.log(self.world.shards.shard_of(self.address.account));
        let verdict = self.world.oracle().ready(self.address.device, from, (&log, self.world.now()));
        // A lie is echoed where the owner was not heard yet; what is sent then tells whether it was believed.
        if self.honest {
            self.world.judge(verdict);
        }
        let window = ready.limits.as_ref().map_or(1, |limits| limits.send_window as usize);
        self.outbox.connected(self.world.now(), UnixMillis(ready.now_ms), window);
        self.inbox.connected();
        if ignored {
            self.world.oracle().device(self.address.device).lie = None;
            self.inbox.follow(from);
            self.commit();
        }
        self.ready = true;
    }

    fn on_deliver(&mut self, deliver: Deliver) {
        let Ok(position) = Position::from_u64(deliver.position) else { return };
        if points(&deliver.envelope) {
            // A client asks for it until it has it; this one connects again, until its edge has put it back.
            return self.disconnect("a body could not be had yet");
        }
        let Some(opened) = open(&deliver.envelope) else {
            return self.world.judge(Err(format!("{} cannot open the envelope at {position}", self.name())));
        };
        let (own, name, now) = (self.address.device, (opened.lane.sender, opened.send_id), self.world.now());
        self.world.say(format_args!("{own} gets {} at {position}", opened.send_id));
        let log = self.world.log(self.world.shards.shard_of(self.address.account));
        let verdict = self.world.oracle().delivered(own, (position, name), &log, now);
        self.world.judge(verdict);
        let Opened { lane, send_id, lane_no, body } = opened;
        let delivery = Delivery { position, lane, send_id, lane_no, lane_base: 1, floor: 1, unsent_from: 0, body };
        let shown = self.inbox.deliver(delivery, now);
        self.world.oracle().committed(own, position, Some(name));
        self.show(shown);
        self.committed(position);
    }

    fn on_gap(&mut self, gap: &Gap) {
        let position = |n| Position::from_u64(n).unwrap_or(Position::MAX);
        let (from, to) = (position(gap.from), position(gap.to));
        let own = self.address.device;
        self.world.say(format_args!("{own} is told a gap from {from} to {to}"));
        self.world.rare.gap_told.one();
        let log = self.world.log(self.world.shards.shard_of(self.address.account));
        let verdict = self.world.oracle().gap(own, (from, to), &log);
        self.world.judge(verdict);
        self.world.record(Event::Gap { device: self.name(), session: String::new(), from: gap.from, to: gap.to });
        self.inbox.gap(to);
        self.world.oracle().committed(own, to, None);
        self.commit();
        self.committed(to);
    }

    fn committed(&mut self, position: Position) {
        self.world.record(Event::Committed { device: self.name(), position: position.get() });
        if self.ack_at.is_none() {
            self.ack_at = Some(Instant::now() + self.some(self.plan.ack_delay));
        }
    }

    /// Commits what the inbox shows, then shows it.
    pub(super) fn show(&mut self, shown: Vec<Shown>) {
        self.commit();
        for event in shown {
            let device = self.name();
            let text = |lane: InLane| format!("{}/{}/{:?}", lane.sender, lane.conversation, lane.class);
            let event = match event {
                Shown::Message { lane, lane_no, send_id, late, .. } => {
                    let (sender, send_id) = (lane.sender.to_string(), send_id.to_string());
                    Event::Shown { device, sender, send_id, lane: text(lane), lane_no, late }
                }
                Shown::Hole { lane, from, to } => Event::Hole { device, lane: text(lane), from, to },
            };
            self.world.say(format_args!("{event:?}"));
            self.world.record(event);
        }
    }
}
