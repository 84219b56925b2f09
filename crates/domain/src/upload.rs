// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an upload is made of and what its life lets whom do. Engines keep the state; the rules are these, once.

use std::fmt;

use crate::limits::{MEDIA_PART_BYTES, MEDIA_UPLOAD_BYTES_MAX};
use crate::{AccountId, UnixMillis, UploadId};

/// SHA-256 of a sealed part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartHash([u8; 32]);

impl PartHash {
    /// The hash with exactly these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The 32 bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PartHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "PartHash({a:02x}{b:02x}{c:02x}{d:02x})")
    }
}

/// Names an upload: ids of two accounts never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadKey {
    /// Whose it is.
    pub account: AccountId,
    /// Drawn at random by the device that began it.
    pub id: UploadId,
}

/// How far the life of an upload has come; it never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UploadStage {
    /// Takes parts.
    Open,
    /// Whole: every part is there, and may be read.
    Finished,
    /// Its parts are gone; the id stays taken until the upload would have expired.
    Deleted,
}

/// What is stored of an upload besides its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload {
    /// Length of all parts together, from 1 to [`MEDIA_UPLOAD_BYTES_MAX`].
    pub bytes: u64,
    /// From here on there is nothing any more.
    pub expires_at: UnixMillis,
    /// How far it is.
    pub stage: UploadStage,
}

/// There is no such upload: it never was, is over, was deleted, or is another account's. Nobody learns which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this account has no such upload; it lasts 7 days at most: begin a new one")]
pub struct NoUpload;

/// A part that the upload does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the upload has parts 1 to {parts}; number is none of them")]
pub struct NoSuchPart {
    /// How many it has.
    pub parts: u32,
}

impl Upload {
    /// A new one of so many bytes; none where no upload may have so many.
    pub fn new(bytes: u64, expires_at: UnixMillis) -> Option<Self> {
        (1..=MEDIA_UPLOAD_BYTES_MAX).contains(&bytes).then_some(Self { bytes, expires_at, stage: UploadStage::Open })
    }

    /// Refuses what is over or deleted.
    pub fn live(self, now: UnixMillis) -> Result<Self, NoUpload> {
        if now < self.expires_at && self.stage != UploadStage::Deleted { Ok(self) } else { Err(NoUpload) }
    }

    /// How many parts it has: all of [`MEDIA_PART_BYTES`] but the last.
    pub fn parts(&self) -> u32 {
        u32::try_from(self.bytes.div_ceil(MEDIA_PART_BYTES)).unwrap_or(u32::MAX)
    }

    /// Length of part `number`, counted from 1.
    pub fn part_bytes(&self, number: u32) -> Result<u64, NoSuchPart> {
        let parts = self.parts();
        if !(1..=parts).contains(&number) {
            return Err(NoSuchPart { parts });
        }
        let before = u64::from(number - 1) * MEDIA_PART_BYTES;
        Ok(self.bytes.saturating_sub(before).min(MEDIA_PART_BYTES))
    }

    /// What it counts for its account's quota.
    pub fn counted(&self, now: UnixMillis) -> u64 {
        self.live(now).map_or(0, |live| live.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: UnixMillis = UnixMillis(1_000);

    #[test]
    fn every_part_but_the_last_is_full() {
        let part = MEDIA_PART_BYTES;
        for (bytes, parts, last) in [(1, 1, 1), (part, 1, part), (part + 1, 2, 1), (3 * part - 1, 3, part - 1)] {
            let upload = Upload::new(bytes, END).expect("a length");
            assert_eq!(upload.parts(), parts, "{bytes} bytes");
            assert_eq!(upload.part_bytes(parts), Ok(last), "{bytes} bytes");
            assert_eq!((1..=parts).filter_map(|n| upload.part_bytes(n).ok()).sum::<u64>(), bytes);
            for none in [0, parts + 1, u32::MAX] {
                assert_eq!(upload.part_bytes(none), Err(NoSuchPart { parts }));
            }
        }
        assert!([0, MEDIA_UPLOAD_BYTES_MAX + 1, u64::MAX].iter().all(|bytes| Upload::new(*bytes, END).is_none()));
    }

    #[test]
    fn what_is_over_or_deleted_is_nothing_and_counts_nothing() {
        let open = Upload::new(7, END).expect("a length");
        assert_eq!(open.live(UnixMillis(999)), Ok(open));
        assert_eq!(open.counted(UnixMillis(999)), 7);
        assert_eq!(open.live(END), Err(NoUpload));
        assert_eq!(open.counted(END), 0);
        let deleted = Upload { stage: UploadStage::Deleted, ..open };
        assert_eq!(deleted.live(UnixMillis(0)), Err(NoUpload));
        assert_eq!(deleted.counted(UnixMillis(0)), 0);
    }
}
