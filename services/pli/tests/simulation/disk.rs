// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a device has committed: the records of outbox and inbox, applied change set by change set.

use std::collections::BTreeMap;

use pli_client_core::inbox::{InLane, Inbox, InboxChange, InboxConfig};
use pli_client_core::outbox::{OutLane, Outbox, OutboxChange, OutboxConfig};
use pli_domain::{DeviceId, Position, SendId, UnixMillis};

/// Survives a crash of the device.
#[derive(Debug)]
pub struct Disk {
    messages: BTreeMap<u64, Vec<u8>>,
    out_lanes: BTreeMap<OutLane, u64>,
    committed: Position,
    seen: BTreeMap<(DeviceId, SendId), UnixMillis>,
    expected: BTreeMap<InLane, u64>,
    held: BTreeMap<(InLane, u64), Vec<u8>>,
}

impl Disk {
    /// An empty disk.
    pub fn new() -> Self {
        Self {
            messages: BTreeMap::new(),
            out_lanes: BTreeMap::new(),
            committed: Position::ZERO,
            seen: BTreeMap::new(),
            expected: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// One transaction.
    pub fn commit(&mut self, outbox: Vec<OutboxChange>, inbox: Vec<InboxChange>) {
        for change in outbox {
            match change {
                OutboxChange::Message(at, Some(bytes)) => drop(self.messages.insert(at, bytes)),
                OutboxChange::Message(at, None) => drop(self.messages.remove(&at)),
                OutboxChange::Lane(lane, next) => drop(self.out_lanes.insert(lane, next)),
            }
        }
        for change in inbox {
            match change {
                InboxChange::Committed(position) => self.committed = position,
                InboxChange::Seen(sender, id, Some(at)) => drop(self.seen.insert((sender, id), at)),
                InboxChange::Seen(sender, id, None) => drop(self.seen.remove(&(sender, id))),
                InboxChange::Expected(lane, Some(next)) => drop(self.expected.insert(lane, next)),
                InboxChange::Expected(lane, None) => drop(self.expected.remove(&lane)),
                InboxChange::Held(lane, no, Some(bytes)) => drop(self.held.insert((lane, no), bytes)),
                InboxChange::Held(lane, no, None) => drop(self.held.remove(&(lane, no))),
            }
        }
    }

    /// The outbox as it was committed last.
    pub fn outbox(&self, config: OutboxConfig) -> Outbox {
        let messages = self.messages.iter().map(|(at, bytes)| (*at, bytes.clone()));
        let lanes = self.out_lanes.iter().map(|(lane, next)| (*lane, *next));
        Outbox::load(config, messages, lanes).expect("the outbox wrote these records")
    }

    /// The inbox as it was committed last.
    pub fn inbox(&self, config: InboxConfig) -> Inbox {
        let seen = self.seen.iter().map(|((sender, id), at)| InboxChange::Seen(*sender, *id, Some(*at)));
        let expected = self.expected.iter().map(|(lane, next)| InboxChange::Expected(*lane, Some(*next)));
        let held = self.held.iter().map(|((lane, no), bytes)| InboxChange::Held(*lane, *no, Some(bytes.clone())));
        let committed = std::iter::once(InboxChange::Committed(self.committed));
        Inbox::load(config, committed.chain(seen).chain(expected).chain(held)).expect("the inbox wrote these records")
    }
}
