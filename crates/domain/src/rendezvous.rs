// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a rendezvous lets whom do. Engines keep the state and make each change one decision; the rules are these, once.

use std::fmt;

use crate::limits::RENDEZVOUS_BLOBS_MAX;
use crate::{DeviceAddress, UnixMillis};

/// SHA-256 of a side's secret of 32 random bytes. The secret itself is never stored: who steals this cannot come in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash with exactly these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The 32 bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

/// One end of a rendezvous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The new device, which has no account yet and has opened the rendezvous.
    Opener,
    /// The device of an account that has read the opener's code.
    Approver,
}

impl Side {
    /// The one across.
    pub const fn other(self) -> Self {
        match self {
            Self::Opener => Self::Approver,
            Self::Approver => Self::Opener,
        }
    }
}

/// Who asks, and what it shows for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// Whoever knows the opener's secret.
    Opener(SecretHash),
    /// A device that knows the approver's secret.
    Approver(SecretHash, DeviceAddress),
}

/// What is stored of a rendezvous besides its blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rendezvous {
    /// Of the opener's secret.
    pub opener: SecretHash,
    /// Of the approver's secret, which the opener's code carries.
    pub approver: SecretHash,
    /// From here on there is nothing any more.
    pub expires_at: UnixMillis,
    /// The one device that is the approver.
    pub joined: Option<DeviceAddress>,
    /// How many blobs the opener has put.
    pub opener_blobs: u8,
    /// How many blobs the approver has put.
    pub approver_blobs: u8,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// There is none, it is over, or the secret is another one: nobody learns which.
    #[error("no rendezvous of this id is open to this secret; begin again on the new device and scan its new code")]
    Gone,
    /// Another device is the approver.
    #[error("another device has joined this rendezvous")]
    Taken,
    /// The device has not joined.
    #[error("rendezvous: this device has not joined it; join it first")]
    NotJoined,
}

/// Where a blob belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is the side's next one.
    Next,
    /// There is one under this number: the same bytes are a retry, others are refused.
    Before,
}

/// Why a blob has no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// A side counts its blobs from 1, without holes.
    #[error("number: it does not follow; the next blob of this side is {next}")]
    Order {
        /// The number that follows.
        next: u8,
    },
    /// All blobs are there.
    #[error(
        "number: all {RENDEZVOUS_BLOBS_MAX} blobs of the rendezvous, of both sides together, are there; begin another one"
    )]
    Full,
}

impl Rendezvous {
    /// A new one, with nobody joined and nothing put.
    pub const fn new(opener: SecretHash, approver: SecretHash, expires_at: UnixMillis) -> Self {
        Self { opener, approver, expires_at, joined: None, opener_blobs: 0, approver_blobs: 0 }
    }

    /// Whether `device`, which shows `secret`, may become the approver, or is it already.
    pub fn may_join(&self, secret: SecretHash, device: DeviceAddress, now: UnixMillis) -> Result<(), NotAdmitted> {
        match self.joined {
            _ if now >= self.expires_at || secret != self.approver => Err(NotAdmitted::Gone),
            Some(joined) if joined != device => Err(NotAdmitted::Taken),
            _ => Ok(()),
        }
    }

    /// The side of `party`.
    pub fn admit(&self, party: &Party, now: UnixMillis) -> Result<Side, NotAdmitted> {
        match *party {
            Party::Opener(secret) if now < self.expires_at && secret == self.opener => Ok(Side::Opener),
            Party::Opener(_) => Err(NotAdmitted::Gone),
            Party::Approver(secret, device) => {
                self.may_join(secret, device, now)?;
                self.joined.map(|_| Side::Approver).ok_or(NotAdmitted::NotJoined)
            }
        }
    }

    /// How many blobs a side has put.
    pub const fn blobs(&self, side: Side) -> u8 {
        match side {
            Side::Opener => self.opener_blobs,
            Side::Approver => self.approver_blobs,
        }
    }

    /// Where `side`'s blob `number` belongs.
    pub fn place(&self, side: Side, number: u8) -> Result<Place, NoPlace> {
        let before = self.blobs(side);
        let next = before.saturating_add(1);
        if (1..=before).contains(&number) {
            Ok(Place::Before)
        } else if self.opener_blobs.saturating_add(self.approver_blobs) >= RENDEZVOUS_BLOBS_MAX {
            Err(NoPlace::Full)
        } else if number == next {
            Ok(Place::Next)
        } else {
            Err(NoPlace::Order { next })
        }
    }

    /// The same with one more blob of `side`.
    #[must_use]
    pub const fn with_blob(mut self, side: Side) -> Self {
        match side {
            Side::Opener => self.opener_blobs = self.opener_blobs.saturating_add(1),
            Side::Approver => self.approver_blobs = self.approver_blobs.saturating_add(1),
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AccountId, DeviceId};

    const END: UnixMillis = UnixMillis(60_000);
    const BEFORE: UnixMillis = UnixMillis(59_999);

    fn secret(byte: u8) -> SecretHash {
        SecretHash::from_bytes([byte; 32])
    }

    fn device(byte: u8) -> DeviceAddress {
        DeviceAddress { account: AccountId::from_bytes([byte; 16]), device: DeviceId::from_bytes([byte; 16]) }
    }

    #[test]
    fn a_wrong_secret_and_a_late_one_are_not_told_apart() {
        let mut open = Rendezvous::new(secret(1), secret(2), END);
        let gone = Err(NotAdmitted::Gone);
        assert_eq!(open.admit(&Party::Opener(secret(1)), BEFORE), Ok(Side::Opener));
        for (party, now) in [
            (Party::Opener(secret(2)), BEFORE),
            (Party::Opener(secret(1)), END),
            (Party::Approver(secret(1), device(1)), BEFORE),
            (Party::Approver(secret(2), device(1)), END),
        ] {
            assert_eq!(open.admit(&party, now), gone, "{party:?} at {now:?}");
        }
        assert_eq!(open.admit(&Party::Approver(secret(2), device(1)), BEFORE), Err(NotAdmitted::NotJoined));
        open.joined = Some(device(1));
        assert_eq!(open.admit(&Party::Approver(secret(2), device(1)), BEFORE), Ok(Side::Approver));
        assert_eq!(open.admit(&Party::Approver(secret(2), device(2)), BEFORE), Err(NotAdmitted::Taken));
        assert_eq!(open.admit(&Party::Approver(secret(3), device(2)), BEFORE), gone);
    }

    #[test]
    fn blobs_of_a_side_follow_each_other_up_to_the_bound_of_both() {
        let mut open = Rendezvous::new(secret(1), secret(2), END);
        assert_eq!(open.place(Side::Opener, 0), Err(NoPlace::Order { next: 1 }));
        assert_eq!(open.place(Side::Opener, 2), Err(NoPlace::Order { next: 1 }));
        for (side, number) in (1..=4).flat_map(|number| [(Side::Opener, number), (Side::Approver, number)]) {
            assert_eq!(open.place(side, number), Ok(Place::Next));
            open = open.with_blob(side);
            assert_eq!(open.place(side, number), Ok(Place::Before));
        }
        assert_eq!(open.place(Side::Opener, 5), Err(NoPlace::Full));
        assert_eq!(open.place(Side::Approver, 1), Ok(Place::Before));
    }

    #[test]
    fn a_hash_is_not_printed() {
        assert_eq!(format!("{:?}", secret(7)), "SecretHash");
    }
}
