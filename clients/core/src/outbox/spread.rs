// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far apart what is sealed may stand from the order in which a server takes it.
//!
//! Each sealed body takes the next key of this device's ratchet in the group (RFC 9420 section 9), and a receiver that has
//! opened a later one keeps only so many of those it skipped. Two things let an earlier body come later: messages that are
//! refused for a while wait up to a minute before they go again, while ticks of the same group go on, and a server may be
//! slow to take what it was sent.

use std::collections::BTreeMap;

use pli_domain::ConversationId;

use super::{OutMessage, Outbox, Seal, Sealed};

/// A sealed body and how many of its conversation were sealed up to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InOrder {
    /// None where it is to be sealed again when it leaves again; what is on the wire is there all the same.
    sealed: Option<Sealed>,
    nth: u64,
}

impl InOrder {
    /// It does not leave again as it is.
    pub(super) fn spend(&mut self) {
        self.sealed = None;
    }
}

/// The first sealed of what is on the wire, of each conversation.
pub(super) type OnWire = BTreeMap<ConversationId, u64>;

impl Outbox {
    /// At most a window of messages.
    pub(super) fn on_wire(&self) -> OnWire {
        let mut wire = OnWire::new();
        for message in self.in_flight.iter().filter_map(|at| self.messages.get(at)) {
            if let Some(InOrder { nth, .. }) = &message.sealed {
                note(&mut wire, message.lane.conversation, *nth);
            }
        }
        wire
    }

    /// The body under which a message leaves: as it was sealed while its key is certainly kept, else sealed now, unless
    /// something on the wire would fall too far behind by it. While nothing is taken nothing is sealed again, so an outage
    /// uses up no keys.
    pub(super) fn in_order(&mut self, at: u64, wire: &mut OnWire, seal: &mut impl FnMut(&OutMessage) -> Seal) -> Seal {
        let Some(message) = self.messages.get_mut(&at) else { return Seal::Wait };
        let (conversation, most) = (message.lane.conversation, self.config.spread_max);
        let nth = self.seals.entry(conversation).or_default();
        if let Some(InOrder { sealed: Some(sealed), nth: kept }) = &message.sealed
            && *nth - kept < most
        {
            note(wire, conversation, *kept);
            return Seal::Sealed(sealed.clone());
        }
        if wire.get(&conversation).is_some_and(|first| *nth + 1 - first >= most) {
            return Seal::Wait;
        }
        let seal = seal(message);
        if let Seal::Sealed(sealed) = &seal {
            *nth += 1;
            message.sealed = Some(InOrder { sealed: Some(sealed.clone()), nth: *nth });
            note(wire, conversation, *nth);
        }
        seal
    }
}

fn note(wire: &mut OnWire, conversation: ConversationId, nth: u64) {
    wire.entry(conversation).and_modify(|first| *first = nth.min(*first)).or_insert(nth);
}
