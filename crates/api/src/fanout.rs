// SPDX-License-Identifier: MIT OR Apache-2.0
//! From one envelope and its recipients to one log item per shard.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pli_domain::{Class, ConversationId, DeviceAddress, DeviceId, ShardId, ShardMap, UnixMillis};

use crate::log::Item;

/// One item per shard that the recipients touch, in order of shard; devices in the order given. The envelope's bytes
/// are shared, not copied.
pub fn items_by_shard(
    shards: &ShardMap,
    recipients: impl IntoIterator<Item = DeviceAddress>,
    class: Class,
    expires_at: UnixMillis,
    envelope: &Bytes,
) -> BTreeMap<ShardId, Item> {
    let mut items: BTreeMap<ShardId, Item> = BTreeMap::new();
    for recipient in recipients {
        let item = items.entry(shards.shard_of(recipient.account)).or_insert_with(|| Item {
            devices: Vec::new(),
            expires_at_ms: expires_at.0,
            class: crate::log::Class::from(class).into(),
            envelope: envelope.clone(),
        });
        item.devices.push(device_bytes(recipient.device));
    }
    items
}

/// Whether they are of more than `above` shards: then [`fan_out_item`] takes the place of an item a shard.
pub fn spread_over(shards: &ShardMap, recipients: impl IntoIterator<Item = DeviceAddress>, above: usize) -> bool {
    let mut seen = BTreeSet::new();
    recipients.into_iter().map(|to| shards.shard_of(to.account)).any(|shard| seen.insert(shard) && seen.len() > above)
}

/// The one item of an envelope that the fan-out worker of its conversation spreads.
pub fn fan_out_item(
    shards: &ShardMap,
    conversation: ConversationId,
    class: Class,
    expires_at: UnixMillis,
    envelope: Bytes,
) -> (ShardId, Item) {
    let shard = shards.shard_of_conversation(conversation);
    let devices = vec![device_bytes(DeviceId::fan_out(shard))];
    let class = crate::log::Class::from(class).into();
    (shard, Item { devices, expires_at_ms: expires_at.0, class, envelope })
}

/// A device id as a `bytes` field.
pub fn device_bytes(device: DeviceId) -> Bytes {
    Bytes::copy_from_slice(device.as_bytes())
}

#[cfg(test)]
mod tests {
    use pli_domain::AccountId;

    use super::*;

    #[test]
    fn every_recipient_stands_in_exactly_one_item() {
        let shards = ShardMap::new(4, [0; 16]).expect("a power of two");
        let to =
            |n: u8| DeviceAddress { account: AccountId::from_bytes([n; 16]), device: DeviceId::from_bytes([n; 16]) };
        let items = items_by_shard(&shards, (0..50).map(to), Class::Tick, UnixMillis(9), &Bytes::from_static(b"x"));
        assert_eq!(items.values().map(|i| i.devices.len()).sum::<usize>(), 50);
        for (shard, item) in items {
            assert!(item.devices.iter().all(|d| shards.shard_of(AccountId::from_bytes([d[0]; 16])) == shard));
            assert_eq!((item.expires_at_ms, item.class()), (9, crate::log::Class::Tick));
        }
    }

    #[test]
    fn what_is_spread_over_more_shards_than_asked_stands_once_for_the_worker() {
        let shards = ShardMap::new(16, [0; 16]).expect("a power of two");
        let to =
            |n: u8| DeviceAddress { account: AccountId::from_bytes([n; 16]), device: DeviceId::from_bytes([n; 16]) };
        let of = |n: u8| (0..n).map(|n| shards.shard_of(to(n).account)).collect::<BTreeSet<_>>().len();
        for n in 0..50 {
            assert_eq!(spread_over(&shards, (0..n).map(to), 8), of(n) > 8, "{n}");
        }
        let conversation = ConversationId::from_bytes([7; 16]);
        let (shard, item) = fan_out_item(&shards, conversation, Class::Tick, UnixMillis(9), Bytes::from_static(b"x"));
        assert_eq!(item.devices, [device_bytes(DeviceId::fan_out(shard))]);
        assert_eq!((item.expires_at_ms, item.class()), (9, crate::log::Class::Tick));
    }
}
