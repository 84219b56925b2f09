// SPDX-License-Identifier: MIT OR Apache-2.0
//! 128-bit ids, each a type of its own so that one cannot be passed where another is meant.

use std::fmt;
use std::str::FromStr;

use crate::ShardId;

/// Bytes or text that are not a 128-bit id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is 16 bytes, written as 32 hexadecimal digits")]
pub struct InvalidId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The id with exactly these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self { Self(bytes) }
            /// The 16 bytes of the id.
            pub const fn as_bytes(&self) -> &[u8; 16] { &self.0 }
        }
        impl TryFrom<&[u8]> for $name {
            type Error = InvalidId;
            fn try_from(bytes: &[u8]) -> Result<Self, InvalidId> {
                bytes.try_into().map(Self).map_err(|_| InvalidId)
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let mut bytes = [0; 16];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidId)?;
                Ok(Self(bytes))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&hex::encode(self.0)) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), hex::encode(&self.0[..4]))
            }
        }
    };
}

id!(
    /// A person's account: 128 random bits, for ever.
    AccountId
);
id!(
    /// One device of an account: 128 random bits, never reused.
    DeviceId
);
id!(
    /// Chosen by the sending device; (sender device, send id) names a content for ever and makes a resend harmless.
    SendId
);
id!(
    /// An MLS group; also the MLS group id.
    ConversationId
);
id!(
    /// Names one appended log entry (a micro-batch); random, chosen by whoever appends.
    EntryId
);
id!(
    /// One connection of one device to one edge.
    SessionId
);
id!(
    /// One running edge process; a restart is a new edge.
    EdgeId
);
id!(
    /// One running delivery worker; a restart is a new owner.
    OwnerId
);
id!(
    /// A body too large for an envelope, kept once and fetched in pages.
    PayloadId
);
id!(
    /// A place where two devices that do not know each other exchange a few sealed blobs: drawn at random by the new
    /// device, never reused.
    RendezvousId
);
id!(
    /// Names a sealed upload in parts; drawn at random by the device that begins it, never reused.
    UploadId
);

/// First bytes of ids that no client may have.
const RESERVED: [u8; 14] = *b"pli.reserved\0\0";

impl DeviceId {
    /// Under which the messages wait that the fan-out worker of `shard` expands: a device queue like every other, of no
    /// account.
    pub fn fan_out(shard: ShardId) -> Self {
        let mut bytes = [0; 16];
        bytes[..14].copy_from_slice(&RESERVED);
        bytes[14..].copy_from_slice(&shard.get().to_be_bytes());
        Self::from_bytes(bytes)
    }

    /// Whether it is the server's own; a client that names such a device as its own is refused.
    pub fn is_reserved(&self) -> bool {
        self.as_bytes().starts_with(&RESERVED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_other_lengths_are_refused() {
        let id = DeviceId::from_bytes([0xAB; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("abab".parse::<DeviceId>(), Err(InvalidId));
        assert_eq!(DeviceId::try_from(&[0u8; 15][..]), Err(InvalidId));
    }

    #[test]
    fn each_fan_out_queue_has_an_id_of_its_own_that_is_reserved() {
        let (a, b) = (DeviceId::fan_out(ShardId::new(1)), DeviceId::fan_out(ShardId::new(256)));
        assert_ne!(a, b);
        assert!(a.is_reserved() && b.is_reserved() && !DeviceId::from_bytes([7; 16]).is_reserved());
    }

    #[test]
    fn debug_shows_only_a_prefix() {
        assert_eq!(format!("{:?}", AccountId::from_bytes([1; 16])), "AccountId(01010101)");
    }
}
