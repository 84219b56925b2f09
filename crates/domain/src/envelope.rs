// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the server knows of a sealed message.

use crate::{AccountId, DeviceId};

/// MLS's epoch number of a conversation (RFC 9420 section 8).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MlsEpoch(pub u64);

impl MlsEpoch {
    /// The epoch after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A device with the account it belongs to: enough to find its shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeviceAddress {
    /// Its account; decides the shard.
    pub account: AccountId,
    /// The device.
    pub device: DeviceId,
}

/// What kind of traffic an envelope is. Steers push and limits, never the order of a queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Worth something only now (call signalling).
    Live,
    /// Wakes the device at once.
    Urgent,
    /// An ordinary message.
    Message,
    /// A delivery or read tick.
    Tick,
}
