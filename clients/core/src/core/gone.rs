// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far one's own messages had come with devices that are not in their conversation any more: they left, or it is over.
//! The history goes on to show what was told. Nothing else looks at it, so nothing waits for anybody who is gone.

use std::collections::BTreeMap;

use bytes::Bytes;
use pli_domain::limits::MEMBERS_MAX;
use pli_domain::{AccountId, DeviceAddress, DeviceId};

use super::conversation::Conversation;
use super::mark::Mark;

/// Devices that are remembered of one conversation. Those with the lowest watermarks are forgotten.
const GONE_MAX: usize = MEMBERS_MAX;
/// Times that a device was in the conversation; the first are forgotten.
pub(super) const STAYS_MAX: usize = 4;
/// Ranges of lost messages that are kept for each; what lies at or below the last one that is not is not told of any more.
const LOST_KEPT: usize = 16;

/// The device and how far it had come when it went; one for each time that it was in. Numbers are never reused.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GoneRecord {
    #[prost(bytes = "bytes", tag = "1")]
    account: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    device: Bytes,
    #[prost(uint64, tag = "3")]
    delivered: u64,
    #[prost(uint64, tag = "4")]
    read: u64,
    /// First and last of each range.
    #[prost(uint64, repeated, tag = "5")]
    lost: Vec<u64>,
    #[prost(uint64, tag = "6")]
    base: u64,
}

impl GoneRecord {
    pub(super) fn all(gone: &BTreeMap<DeviceAddress, Vec<Mark>>) -> Vec<Self> {
        gone.iter().flat_map(|(address, stays)| stays.iter().map(move |mark| Self::of(address, mark))).collect()
    }

    pub(super) fn read_all(records: &[Self]) -> Option<BTreeMap<DeviceAddress, Vec<Mark>>> {
        let mut gone: BTreeMap<DeviceAddress, Vec<Mark>> = BTreeMap::new();
        for record in records {
            let (address, mark) = record.read()?;
            gone.entry(address).or_default().push(mark);
        }
        Some(gone)
    }

    fn of(address: &DeviceAddress, mark: &Mark) -> Self {
        Self {
            account: Bytes::copy_from_slice(address.account.as_bytes()),
            device: Bytes::copy_from_slice(address.device.as_bytes()),
            delivered: mark.delivered,
            read: mark.read,
            lost: mark.lost.iter().flat_map(|(first, last)| [*first, *last]).collect(),
            base: mark.base,
        }
    }

    fn read(&self) -> Option<(DeviceAddress, Mark)> {
        let account = AccountId::try_from(self.account.as_ref()).ok()?;
        let device = DeviceId::try_from(self.device.as_ref()).ok()?;
        let lost = self.lost.chunks_exact(2).map(|range| (range[0], range[1])).collect();
        let (delivered, read, base) = (self.delivered, self.read, self.base);
        Some((DeviceAddress { account, device }, Mark { delivered, read, lost, base, ..Mark::default() }))
    }
}

impl Conversation {
    /// Remembers what this device told, beside what it told when it was in before; nothing where it was not addressed by any
    /// number below `untried`.
    fn remember(&mut self, address: DeviceAddress, mark: Mark, untried: u64) {
        let Mark { delivered, read, mut lost, mut base, .. } = mark;
        if delivered == 0 && (base == 0 || base >= untried) {
            return;
        }
        if let Some((_, last)) = lost.drain(..lost.len().saturating_sub(LOST_KEPT)).next_back() {
            base = base.max(last.saturating_add(1));
        }
        let stays = self.gone.entry(address).or_default();
        stays.push(Mark { delivered, read, lost, base, ..Mark::default() });
        stays.drain(..stays.len().saturating_sub(STAYS_MAX));
        if self.gone.len() > GONE_MAX {
            let highest = |stays: &Vec<Mark>| stays.iter().map(|mark| mark.delivered).max();
            let lowest = self.gone.iter().min_by_key(|(_, stays)| highest(stays)).map(|(address, _)| *address);
            lowest.and_then(|lowest| self.gone.remove(&lowest));
        }
    }

    /// These devices are not in it any more: nobody waits for what they tell. `untried` is the first number that
    /// nobody has.
    pub(super) fn forget_gone<'a>(&mut self, gone: impl Iterator<Item = &'a DeviceAddress>, untried: u64) {
        for address in gone {
            if let Some(mark) = self.theirs.remove(&address.device) {
                self.remember(*address, mark, untried);
            }
            self.believed.remove(&address.device);
            self.answered.remove(&address.device);
        }
    }

    /// What is shown of everybody who was in it, once it is over for this device.
    pub(super) fn gone_with<'a>(
        mut self,
        members: impl Iterator<Item = &'a DeviceAddress>,
        untried: u64,
    ) -> BTreeMap<DeviceAddress, Vec<Mark>> {
        self.forget_gone(members, untried);
        self.gone
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn address(n: u16) -> DeviceAddress {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&n.to_be_bytes());
        DeviceAddress { account: AccountId::from_bytes(id), device: DeviceId::from_bytes(id) }
    }

    fn told(delivered: u64) -> Mark {
        Mark { delivered, read: delivered / 2, lost: vec![(1, 1), (3, 4)], base: 1, ..Mark::default() }
    }

    #[test]
    fn no_more_are_remembered_than_can_be_in_it_and_the_lowest_are_forgotten() {
        let mut conversation = Conversation::default();
        for n in 0..300 {
            conversation.theirs.insert(address(n).device, told(u64::from(n) + 1));
            conversation.forget_gone([address(n)].iter(), u64::MAX);
        }
        assert_eq!(conversation.gone.len(), GONE_MAX);
        assert!(conversation.gone.values().all(|stays| stays[0].delivered > 50));
        assert!(conversation.theirs.is_empty());
    }

    #[test]
    fn each_time_that_a_device_was_in_is_told_apart() {
        let mut conversation = Conversation::default();
        let many = (1..=20).map(|n| (2 * n, 2 * n)).collect();
        let later = Mark { delivered: 90, base: 8, lost: many, ..Mark::default() };
        for mark in [told(5), later, Mark::default()] {
            conversation.theirs.insert(address(1).device, mark);
            conversation.forget_gone([address(1)].iter(), u64::MAX);
        }
        let stays = &conversation.gone[&address(1)];
        assert_eq!(stays[0], told(5));
        // What is not told as lost any more is not told as delivered either.
        assert_eq!((stays[1].base, stays[1].lost.len(), stays[1].lost[0]), (9, LOST_KEPT, (10, 10)));
        assert_eq!(stays.len(), 2);
        for (next, remembered) in [(95, 2), (96, 3)] {
            conversation.theirs.insert(address(1).device, Mark { base: 95, ..Mark::default() });
            conversation.forget_gone([address(1)].iter(), next);
            assert_eq!(conversation.gone[&address(1)].len(), remembered, "nothing was sent while it was in: {next}");
        }
        for n in 0..9 {
            conversation.theirs.insert(address(1).device, told(100 + n));
            conversation.forget_gone([address(1)].iter(), u64::MAX);
        }
        assert_eq!(conversation.gone[&address(1)].len(), STAYS_MAX);
    }

    #[test]
    fn what_is_remembered_keeps_its_bytes() {
        const STORED: &str = concat!(
            "0a1000010000000000000000000000000000",
            "121000010000000000000000000000000000",
            "180520022a04010103043001",
        );
        let record = GoneRecord::of(&address(1), &told(5));
        assert_eq!(hex::encode(record.encode_to_vec()), STORED);
        let read = GoneRecord::decode(hex::decode(STORED).expect("hexadecimal").as_slice()).expect("read");
        assert_eq!(read.read(), Some((address(1), told(5))));
    }
}
