// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each operation may refuse. `status.rs` gives each its code on the wire.

use pli_api::FieldError;
use pli_api::common::Error as WireError;
use pli_domain::limits::MEDIA_UPLOAD_BYTES_MAX;
use pli_domain::{NoSuchPart, NoUpload};
use pli_ports::{BeginUploadError, FinishUploadError, PutPartError, StoreError};
use pli_runtime::limits::Limited;

/// A field that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidField {
    #[error(transparent)]
    Id(#[from] FieldError),
    #[error("bytes: {0} given; an upload has 1 to {MEDIA_UPLOAD_BYTES_MAX}")]
    Bytes(u64),
    #[error(transparent)]
    Number(#[from] NoSuchPart),
    #[error("part: {bytes} bytes; this one has {wanted}")]
    Part { bytes: u64, wanted: u64 },
    #[error("sha256 must have 32 bytes")]
    Sha256,
    #[error("sha256: not that of part; send both again")]
    OtherHash,
}

/// What any operation may refuse.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("{}", .0.message)]
    Caller(Box<WireError>),
    #[error("the account removed this device; link it again as a new one")]
    Removed,
    #[error(transparent)]
    Field(#[from] InvalidField),
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the store of parts failed")]
    Blobs(#[from] object_store::Error),
}

/// Why an upload was not begun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BeginError {
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error(transparent)]
    Begin(#[from] BeginUploadError),
}

/// Why a part was not put.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error(transparent)]
    Put(#[from] PutPartError),
}

/// Why an upload is not finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FinishError {
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error(transparent)]
    Finish(#[from] FinishUploadError),
}

/// Why there is no answer about an upload or a part.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GetError {
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error(transparent)]
    NoUpload(#[from] NoUpload),
    #[error("the upload is not finished; wait until its device has put every part")]
    Unfinished,
    #[error("part {0} is not what was put; put it again, or begin a new upload")]
    Lost(u32),
}

impl From<object_store::Error> for GetError {
    fn from(error: object_store::Error) -> Self {
        Self::Unfit(error.into())
    }
}
