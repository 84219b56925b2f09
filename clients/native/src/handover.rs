// SPDX-License-Identifier: MIT OR Apache-2.0
//! Handing the history over to another device of the account: [`pli_client_core::archive`] over an upload.
//!
//! Who hands over seals the archive into a file of its profile first, and uploads that: killed at any moment, the same
//! call goes on with the same bytes. Who takes in keeps the parts that it has in a file, opens them when all are there,
//! and takes in what it does not have; all of that may be done twice. Calls of one client wait for each other.

mod calls;
mod files;
mod give;
mod record;
mod take;
mod turn;

pub use give::HandedOver;
pub use take::TakenIn;

pub(crate) use record::new as shared;
pub(crate) use turn::Turns;

#[cfg(feature = "fuzzing")]
pub(crate) use record::read_again;

use std::path::PathBuf;

use pli_api::common;
use pli_client_core::archive::ArchiveError;

use crate::{RequestError, StorageError};

/// How far an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Parts that are there.
    pub done: u32,
    /// Parts that it has.
    pub parts: u32,
}

/// Why a history was not handed over, or not taken in.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// It was removed, or never was one.
    #[error("the account has no such device")]
    NotListed,
    /// They have not linked each other, or an earlier version did.
    #[error(
        "these two devices share no key for a history: an earlier version linked them, or another device did; remove \
         the device and link it again"
    )]
    NoSecret,
    /// Nothing waits.
    #[error("no history waits for this device; hand it over on the first one")]
    Nothing,
    /// It is still uploaded.
    #[error("the history is not whole: {} of {} parts are there; let the first device go on", .0.done, .0.parts)]
    Unfinished(Progress),
    /// The server refused.
    #[error("{}", .0.message)]
    Refused(Box<common::Error>),
    /// No answer for a while.
    #[error("the server does not answer; the same command goes on where this one stopped")]
    Unreachable,
    /// What came is not what was sealed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The profile's database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A file of the profile failed.
    #[error("{path} cannot be used: {source}; make room, or let this user write there")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The client has ended; [`crate::Client::end`] says why.
    #[error("the client has ended")]
    Ended,
}

impl From<RequestError> for HandoverError {
    fn from(_: RequestError) -> Self {
        // Only looks are asked for, and they are never refused.
        Self::Ended
    }
}
