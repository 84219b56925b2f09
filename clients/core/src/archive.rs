// SPDX-License-Identifier: MIT OR Apache-2.0
//! The archive of a history: what one device of an account has shown, sealed for another one, in parts.
//!
//! Both devices have a secret from when they were linked, which nobody else has and which never travelled. From it follow
//! the ids of uploads, so that nothing has to be said about where an archive is, and with a random salt the key of one
//! archive. Parts are sealed as in STREAM (Hoang, Reyhanitabar, Rogaway, Vizár: "Online Authenticated-Encryption and its
//! Nonce-Reuse Misuse-Resistance", CRYPTO 2015): the nonce counts them and marks the last one, so that an archive that is
//! cut, lengthened or re-ordered does not open; account, device, number of the archive and of its parts are additional
//! data, so that another account's, another device's or an earlier one does not either.
//!
//! Pure: seals and opens bytes. What is uploaded and stored is the driver's matter.

mod contents;
mod seal;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use contents::{Archive, ArchiveRow};
pub use seal::{ArchiveName, HistorySecret, PART_BYTES, SALT_BYTES, open, parts_of, seal};

use pli_domain::limits::MEDIA_UPLOAD_BYTES_MAX;

/// Most parts of an archive: what an upload may have.
pub const PARTS_MAX: u32 = (MEDIA_UPLOAD_BYTES_MAX / PART_BYTES as u64) as u32;
/// Places in the history below this one are for what an archive brings; a companion device's own begin here.
pub const ORDERS_END: u64 = 1 << 32;

/// Why an archive is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// It is no whole number of parts, or has none or too many.
    #[error(
        "the archive has {0} bytes, which are not 1 to {PARTS_MAX} whole parts: it was cut; hand the history over again"
    )]
    Length(usize),
    /// A part is not what the other device sealed in this place.
    #[error(
        "part {0} of the archive does not open: it was cut, changed or re-ordered, or is of another account or device; \
         hand the history over again"
    )]
    Part(u32),
    /// It opens and says something else than an archive does.
    #[error("the archive opens, and its contents cannot be read; hand it over again with the same version of pli")]
    Contents,
}
