// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each operation may refuse. `status.rs` gives each its code on the wire.

use pli_api::FieldError;
use pli_api::common::Error as WireError;
use pli_domain::NotAdmitted;
use pli_domain::limits::{RENDEZVOUS_BLOB_BYTES_MAX, RENDEZVOUS_BLOBS_MAX};
use pli_ports::{GetBlobError, JoinRendezvousError, OpenRendezvousError, PutBlobError};
use pli_runtime::limits::Limited;

/// A field that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidField {
    #[error(transparent)]
    Id(#[from] FieldError),
    #[error("{0} must have 32 bytes")]
    Secret(&'static str),
    #[error("opener_secret_sha256 and approver_secret_sha256 are the same; draw a secret for each side")]
    SameSecret,
    #[error("side must be SIDE_OPENER or SIDE_APPROVER")]
    Side,
    #[error("number: {0} given; use 1 to {RENDEZVOUS_BLOBS_MAX}")]
    Number(u32),
    #[error("blob: {0} bytes; put 1 to {RENDEZVOUS_BLOB_BYTES_MAX}")]
    Blob(usize),
}

/// Why a rendezvous was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Field(#[from] InvalidField),
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error(transparent)]
    Open(#[from] OpenRendezvousError),
}

/// Why a device is not the approver.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    #[error("{}", .0.message)]
    Caller(Box<WireError>),
    #[error(transparent)]
    Field(#[from] InvalidField),
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error(transparent)]
    Join(#[from] JoinRendezvousError),
}

/// Why a blob was not put.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    #[error("{}", .0.message)]
    Caller(Box<WireError>),
    #[error(transparent)]
    Field(#[from] InvalidField),
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error(transparent)]
    Put(#[from] PutBlobError),
}

/// Why nobody waits for a blob.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WaitError {
    #[error("{}", .0.message)]
    Caller(Box<WireError>),
    #[error(transparent)]
    Field(#[from] InvalidField),
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error(transparent)]
    Get(#[from] GetBlobError),
}

/// What a call shows is not what it takes to be a side.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unnamed {
    #[error("{}", .0.message)]
    Caller(Box<WireError>),
    #[error(transparent)]
    Field(#[from] InvalidField),
}

impl From<Unnamed> for PutError {
    fn from(error: Unnamed) -> Self {
        match error {
            Unnamed::Caller(refused) => Self::Caller(refused),
            Unnamed::Field(field) => Self::Field(field),
        }
    }
}

impl From<Unnamed> for WaitError {
    fn from(error: Unnamed) -> Self {
        match error {
            Unnamed::Caller(refused) => Self::Caller(refused),
            Unnamed::Field(field) => Self::Field(field),
        }
    }
}

/// The refusal of a side that is not let in, whichever operation it asked for.
pub(crate) const fn code_of(refused: NotAdmitted) -> pli_api::ErrorCode {
    match refused {
        NotAdmitted::Gone => pli_api::ErrorCode::RendezvousExpired,
        NotAdmitted::Taken => pli_api::ErrorCode::RendezvousTaken,
        NotAdmitted::NotJoined => pli_api::ErrorCode::BadRequest,
    }
}
