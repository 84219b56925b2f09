// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the bus to sessions.

use std::sync::Arc;

use bytes::Bytes;
use pli_api::delivery::{Doorbell, EdgeSignal, edge_signal::Signal};
use pli_domain::{DeviceId, Position, SessionId, ShardId};
use prost::Message;

use crate::bodies::{Bodies, Pointing};
use crate::edge::Shared;
use crate::feed::Bell;
use crate::session::inbox::{End, Inbox};

impl Shared {
    /// One encoded `EdgeSignal`. What cannot be decoded is counted and dropped: nothing on the bus is relied upon.
    pub(crate) fn route(self: &Arc<Self>, payload: Bytes) {
        let Some((shard, signal)) = self.decoded(payload) else { return self.malformed() };
        match signal {
            Signal::Doorbell(bell) => self.ring(shard, bell),
            Signal::Doorbells(bells) => bells.doorbells.into_iter().for_each(|bell| self.ring(shard, bell)),
            Signal::Notice(notice) => self.receipts.notice(shard, &notice),
            Signal::Displace(displace) => {
                let end = if displace.removed { End::Removed } else { End::Displaced };
                self.tell(&displace.session, |mail| mail.end = Some(end));
            }
            Signal::DeviceRemoved(removed) => {
                let Ok(device) = DeviceId::try_from(removed.device.as_ref()) else { return self.malformed() };
                self.removed(device);
            }
            Signal::RepeatAnnouncements(_) => {
                for inbox in self.registry.all(Some(shard)) {
                    inbox.leave(|mail| mail.announce = true);
                }
            }
            Signal::FloorRaised(raised) => {
                let Ok(floor) = Position::from_u64(raised.floor) else { return self.malformed() };
                self.tell(&raised.session, |mail| mail.floor = mail.floor.max(Some(floor)));
            }
        }
    }

    /// First the mark, then the session: one that enters meanwhile finds the mark.
    fn removed(&self, device: DeviceId) {
        self.keys.mark_removed(device);
        if let Some(inbox) = self.registry.device(device) {
            inbox.leave(|mail| mail.end = Some(End::Removed));
        }
    }

    /// The bus may have lost messages: every session looks again, spread over a while.
    pub(crate) fn interrupted(&self) {
        for inbox in self.registry.all(None) {
            inbox.leave(|mail| mail.recheck = true);
        }
    }

    fn malformed(&self) {
        self.metrics.signals_malformed.add(1, &[]);
    }

    fn decoded(&self, payload: Bytes) -> Option<(ShardId, Signal)> {
        let signal = EdgeSignal::decode(payload).ok()?;
        let number = u16::try_from(signal.shard).ok().filter(|n| *n < self.shards.count())?;
        Some((ShardId::new(number), signal.signal?))
    }

    fn ring(self: &Arc<Self>, shard: ShardId, bell: Doorbell) {
        let parsed = (Position::from_u64(bell.position), SessionId::try_from(bell.session.as_ref()));
        let (Ok(position), Ok(session)) = parsed else { return self.malformed() };
        let Some(inbox) = self.registry.session(session) else { return };
        self.receipts.saw(shard, position);
        self.metrics.notes.bell(shard, position, session);
        let previous = bell.prev.and_then(|prev| Position::from_u64(prev).ok());
        let body = match Bodies::pointing(&bell.envelope) {
            Some(pointing) => match self.bodies.at_hand(&pointing) {
                Some(whole) => Some(whole),
                None => return self.ring_with_body(inbox, (previous, position), pointing),
            },
            None => (!bell.envelope.is_empty()).then_some(bell.envelope),
        };
        inbox.ring(Bell { previous, position, body });
    }

    /// Rings when the body was fetched; at once and without it, so that the session reads, where too many are being fetched.
    /// Doorbells that overtake it name it as their predecessor: the session reads then, too.
    fn ring_with_body(
        self: &Arc<Self>,
        inbox: Arc<Inbox>,
        (previous, position): (Option<Position>, Position),
        pointing: Pointing,
    ) {
        let Ok(place) = self.body_fetches.clone().try_acquire_owned() else {
            return inbox.ring(Bell { previous, position, body: None });
        };
        let shared = self.clone();
        tokio::spawn(async move {
            let body = Some(shared.bodies.whole(pointing).await);
            inbox.ring(Bell { previous, position, body });
            drop(place);
        });
    }

    fn tell(&self, session: &Bytes, what: impl FnOnce(&mut crate::session::inbox::Mail)) {
        if let Ok(session) = SessionId::try_from(session.as_ref())
            && let Some(inbox) = self.registry.session(session)
        {
            inbox.leave(what);
        }
    }
}
