// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual shards: all devices of an account share one.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::{AccountId, ConversationId};

/// One virtual shard, below [`ShardMap::count`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(u16);

impl ShardId {
    /// The shard with this number.
    pub const fn new(value: u16) -> Self {
        Self(value)
    }
    /// The number itself.
    pub const fn get(self) -> u16 {
        self.0
    }
}
impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}", self.0)
    }
}

/// A shard count that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("shards = {0} is not a power of two from 1 to 32768")]
pub struct InvalidShardMap(u32);

/// Maps accounts to shards: SipHash-2-4 (Aumasson, Bernstein 2012) of the account id under a key that is
/// fixed, with the count, when a cluster is created. The key keeps a client that chooses its own account id
/// from aiming at one shard.
#[derive(Clone, Copy)]
pub struct ShardMap {
    count: u16,
    key: [u8; 16],
}

impl fmt::Debug for ShardMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShardMap({} shards)", self.count)
    }
}

impl ShardMap {
    /// Errors unless `count` is a power of two from 1 to 32,768.
    pub fn new(count: u32, key: [u8; 16]) -> Result<Self, InvalidShardMap> {
        match u16::try_from(count) {
            Ok(small) if count.is_power_of_two() => Ok(Self { count: small, key }),
            _ => Err(InvalidShardMap(count)),
        }
    }
    /// How many shards there are.
    pub const fn count(&self) -> u16 {
        self.count
    }
    /// Every shard, in order.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.count).map(ShardId)
    }
    /// The shard of this account and of all its devices.
    pub fn shard_of(&self, account: AccountId) -> ShardId {
        self.shard(account.as_bytes())
    }
    /// The shard whose fan-out worker expands the messages of this conversation.
    pub fn shard_of_conversation(&self, conversation: ConversationId) -> ShardId {
        self.shard(conversation.as_bytes())
    }

    fn shard(&self, id: &[u8]) -> ShardId {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(id);
        // `count` is a power of two of at most 15 bits, so the mask keeps the value in range.
        ShardId((hasher.finish() & u64::from(self.count - 1)) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SipHash-2-4 of 00..0f under the key 00..0f is 0x3f2a_cc7f_57c2_9bdb (the reference implementation's answer).
    #[test]
    fn the_mapping_is_pinned() {
        let count_up = || std::array::from_fn(|n| n as u8);
        for (count, shard) in [(1 << 15, 7_131), (16, 11)] {
            let map = ShardMap::new(count, count_up()).expect("a power of two");
            assert_eq!(map.shard_of(AccountId::from_bytes(count_up())).get(), shard);
        }
    }

    #[test]
    fn the_mapping_spreads() {
        let map = ShardMap::new(16, [7; 16]).expect("a power of two");
        let mut seen = [0u32; 16];
        for n in 0..1_600u32 {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            seen[map.shard_of(AccountId::from_bytes(id)).get() as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (50..200).contains(&n)), "uneven: {seen:?}");
    }

    #[test]
    fn a_count_that_is_no_power_of_two_is_refused() {
        for count in [0, 3, 1 << 16] {
            assert!(ShardMap::new(count, [0; 16]).is_err(), "{count}");
        }
    }
}
