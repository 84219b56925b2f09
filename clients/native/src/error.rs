// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a client does not open, does not do what it is told, or ends.

use pli_api::common;
use pli_client_core::CommandError;
use pli_domain::InvalidHandle;

use crate::profile::ProfileName;
use crate::{Fingerprint, ProfileError, StorageError};

/// Why a client could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The profile's folder.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A companion device that is of no account yet.
    #[error("{0} is not linked yet: link it, and approve it on the account's first device")]
    NotLinked(ProfileName),
    /// The handle is not one that somebody may claim anew, and there is no profile of it.
    #[error(transparent)]
    Handle(#[from] InvalidHandle),
    /// The profile trusts another certificate than the one that was named.
    #[error(
        "the profile {folder} trusts the certificate {pinned}, not {given}: the server was set up anew, or somebody \
         stands in between, or what was given is wrong; if it was set up anew, move the profile folder away"
    )]
    OtherServer {
        /// The profile.
        folder: String,
        /// Pinned at first use.
        pinned: Fingerprint,
        /// Named now.
        given: Fingerprint,
    },
    /// The folder was renamed: it holds the profile of somebody else.
    #[error("the profile {folder} is that of @{held}, not of @{asked}; name the folder {rightly} again")]
    OtherHandle {
        /// The profile.
        folder: String,
        /// Whose it is.
        held: ProfileName,
        /// What its folder is called.
        rightly: String,
        /// Who was asked for.
        asked: ProfileName,
    },
    /// The stored state cannot be read back.
    #[error("the profile {folder} cannot be read back: {source}; restore it from a backup, or move it away")]
    Damaged {
        /// The profile.
        folder: String,
        /// What the core says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why a request to a client has no result.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The core does not take the command; nothing changed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The client has ended; [`crate::Client::end`] says why.
    #[error("the client has ended")]
    Ended,
}

/// Why a client ended by itself.
#[derive(Debug, Clone, thiserror::Error)]
pub enum End {
    /// It was closed.
    #[error("the client was closed")]
    Closed,
    /// The server asks to stop, for example because another process displaced this one.
    #[error("the server ended the session: {0}")]
    Stopped(String, common::ErrorCode),
    /// What was decided could not be made durable, so going on could repeat or lose it.
    #[error("{0}")]
    Storage(std::sync::Arc<StorageError>),
    /// The server's certificate is not the pinned one.
    #[error("{0}")]
    WrongServer(String),
    /// The pin could not be stored.
    #[error("{0}")]
    Profile(std::sync::Arc<ProfileError>),
}
