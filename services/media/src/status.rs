// SPDX-License-Identifier: MIT OR Apache-2.0
//! From each operation's error to the one closed list of codes.

use pli_api::common::Error as WireError;
use pli_api::{ErrorCode, limit_reached, no_room, refusal};
use pli_ports::{BeginUploadError, FinishUploadError, PutPartError, Retry, StoreError};

use crate::error::{BeginError, FinishError, GetError, PutError, Unfit};

/// When to ask again after a store could not tell.
const STORE_RETRY_AFTER_MS: u32 = 500;
/// When to ask again for an upload that another device has not finished.
const UNFINISHED_RETRY_AFTER_MS: u32 = 1_000;

fn store(error: &StoreError) -> WireError {
    tracing::warn!(error = error as &dyn std::error::Error, "the store of uploads failed");
    match error.retry {
        Retry::Later => refusal(ErrorCode::Temporary, error.to_string()).retry_after(STORE_RETRY_AFTER_MS),
        Retry::Room => no_room(),
        Retry::Never => refusal(ErrorCode::Internal, error.to_string()),
    }
}

fn incomplete(message: String) -> WireError {
    refusal(ErrorCode::UploadIncomplete, message).retry_after(UNFINISHED_RETRY_AFTER_MS)
}

impl From<Unfit> for WireError {
    fn from(error: Unfit) -> Self {
        let message = error.to_string();
        match error {
            Unfit::Caller(refused) => *refused,
            Unfit::Removed => refusal(ErrorCode::DeviceRemoved, message),
            Unfit::Field(_) => refusal(ErrorCode::BadRequest, message),
            Unfit::Limited(limit) => limit_reached(limit.limit, message, limit.retry_after_ms),
            Unfit::Store(error) => store(&error),
            Unfit::Blobs(error) => {
                // Its text may name files of the server: for the log alone.
                tracing::warn!(error = &error as &dyn std::error::Error, "the store of parts failed");
                refusal(ErrorCode::Temporary, message).retry_after(STORE_RETRY_AFTER_MS)
            }
        }
    }
}

impl From<BeginError> for WireError {
    fn from(error: BeginError) -> Self {
        use BeginUploadError as B;
        let message = error.to_string();
        match error {
            BeginError::Unfit(unfit) => unfit.into(),
            BeginError::Begin(B::IdTaken) => refusal(ErrorCode::IdTaken, message),
            BeginError::Begin(B::NoUpload(_)) => refusal(ErrorCode::UploadUnknown, message),
            BeginError::Begin(B::Quota { .. } | B::TooMany) => refusal(ErrorCode::MediaQuota, message),
            BeginError::Begin(B::Store(error)) => store(&error),
        }
    }
}

impl From<PutError> for WireError {
    fn from(error: PutError) -> Self {
        use PutPartError as P;
        let message = error.to_string();
        match error {
            PutError::Unfit(unfit) => unfit.into(),
            PutError::Put(P::NoUpload(_)) => refusal(ErrorCode::UploadUnknown, message),
            PutError::Put(P::NoSuchPart(_)) => refusal(ErrorCode::BadRequest, message),
            PutError::Put(P::Conflict) => refusal(ErrorCode::PartConflict, message),
            PutError::Put(P::Store(error)) => store(&error),
        }
    }
}

impl From<FinishError> for WireError {
    fn from(error: FinishError) -> Self {
        use FinishUploadError as F;
        let message = error.to_string();
        match error {
            FinishError::Unfit(unfit) => unfit.into(),
            FinishError::Finish(F::NoUpload(_)) => refusal(ErrorCode::UploadUnknown, message),
            FinishError::Finish(F::Missing { .. }) => incomplete(message),
            FinishError::Finish(F::Store(error)) => store(&error),
        }
    }
}

impl From<GetError> for WireError {
    fn from(error: GetError) -> Self {
        let message = error.to_string();
        match error {
            GetError::Unfit(unfit) => unfit.into(),
            GetError::NoUpload(_) => refusal(ErrorCode::UploadUnknown, message),
            GetError::Unfinished | GetError::Lost(_) => incomplete(message),
        }
    }
}
