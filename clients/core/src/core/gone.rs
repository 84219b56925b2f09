// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far one's own messages had come with devices that are not in their conversation any more: they left, or it is over.
//! The history goes on to show what was told. Nothing else looks at it, so nothing waits for anybody who is gone.

use std::collections::BTreeMap;

use bytes::Bytes;
use pli_domain::limits::MEMBERS_MAX;
use pli_domain::{AccountId, DeviceAddress, DeviceId};

use super::conversation::Conversation;
use super::mark::Mark;

/// Devices that are remembered of one conversation: as many as can be in it. Those with the lowest watermarks are
/// forgotten.
const GONE_MAX: usize = MEMBERS_MAX;
/// Ranges of lost messages that are kept for each; the lowest are forgotten.
const LOST_KEPT: usize = 16;

/// The device and how far it had come. Numbers are never reused.
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
    pub(super) fn of((address, mark): (&DeviceAddress, &Mark)) -> Self {
        Self {
            account: Bytes::copy_from_slice(address.account.as_bytes()),
            device: Bytes::copy_from_slice(address.device.as_bytes()),
            delivered: mark.delivered,
            read: mark.read,
            lost: mark.lost.iter().flat_map(|(first, last)| [*first, *last]).collect(),
            base: mark.base,
        }
    }

    pub(super) fn read(&self) -> Option<(DeviceAddress, Mark)> {
        let account = AccountId::try_from(self.account.as_ref()).ok()?;
        let device = DeviceId::try_from(self.device.as_ref()).ok()?;
        let lost = self.lost.chunks_exact(2).map(|range| (range[0], range[1])).collect();
        let (delivered, read, base) = (self.delivered, self.read, self.base);
        Some((DeviceAddress { account, device }, Mark { delivered, read, lost, base, ..Mark::default() }))
    }
}

impl Conversation {
    /// Remembers what this device told, beside what it told before it was gone the last time.
    fn remember(&mut self, address: DeviceAddress, mark: Mark) {
        let Mark { delivered, read, mut lost, base, .. } = mark;
        if delivered == 0 {
            return;
        }
        let before = self.gone.remove(&address);
        let before = before.unwrap_or_else(|| Mark { base, ..Mark::default() });
        lost.extend(before.lost);
        lost.sort_unstable();
        lost.drain(..lost.len().saturating_sub(LOST_KEPT));
        let (delivered, read) = (delivered.max(before.delivered), read.max(before.read));
        self.gone.insert(address, Mark { delivered, read, lost, base: before.base.min(base), ..Mark::default() });
        if self.gone.len() > GONE_MAX {
            let lowest = self.gone.iter().min_by_key(|(_, mark)| mark.delivered).map(|(address, _)| *address);
            lowest.and_then(|lowest| self.gone.remove(&lowest));
        }
    }

    /// These devices are not in it any more: nobody waits for what they tell.
    pub(super) fn forget_gone<'a>(&mut self, gone: impl Iterator<Item = &'a DeviceAddress>) {
        for address in gone {
            if let Some(mark) = self.theirs.remove(&address.device) {
                self.remember(*address, mark);
            }
            self.believed.remove(&address.device);
            self.answered.remove(&address.device);
        }
    }

    /// What is shown of everybody who was in it, once it is over for this device.
    pub(super) fn gone_with<'a>(
        mut self,
        members: impl Iterator<Item = &'a DeviceAddress>,
    ) -> BTreeMap<DeviceAddress, Mark> {
        self.forget_gone(members);
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
            conversation.forget_gone([address(n)].iter());
        }
        assert_eq!(conversation.gone.len(), GONE_MAX);
        assert!(conversation.gone.values().all(|mark| mark.delivered > 50));
        assert!(conversation.theirs.is_empty());
    }

    #[test]
    fn who_is_gone_again_keeps_what_was_told_before() {
        let mut conversation = Conversation::default();
        for mark in [told(5), Mark { delivered: 9, base: 8, ..Mark::default() }, Mark::default()] {
            conversation.theirs.insert(address(1).device, mark);
            conversation.forget_gone([address(1)].iter());
        }
        let mark = &conversation.gone[&address(1)];
        assert_eq!((mark.delivered, mark.read, mark.base), (9, 2, 1));
        assert_eq!(mark.lost, [(1, 1), (3, 4)]);
    }

    #[test]
    fn what_is_remembered_keeps_its_bytes() {
        const STORED: &str = concat!(
            "0a1000010000000000000000000000000000",
            "121000010000000000000000000000000000",
            "180520022a04010103043001",
        );
        let record = GoneRecord::of((&address(1), &told(5)));
        assert_eq!(hex::encode(record.encode_to_vec()), STORED);
        let read = GoneRecord::decode(hex::decode(STORED).expect("hexadecimal").as_slice()).expect("read");
        assert_eq!(read.read(), Some((address(1), told(5))));
    }
}
