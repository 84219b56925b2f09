// SPDX-License-Identifier: MIT OR Apache-2.0
//! From each operation's error to the one closed list of codes.

use pli_api::common::Error as WireError;
use pli_api::{ErrorCode, limit_reached, no_room, refusal};
use pli_ports::{GetBlobError, JoinRendezvousError, OpenRendezvousError, PutBlobError, Retry, StoreError};
use pli_runtime::limits::Limited;

use crate::error::{JoinError, OpenError, PutError, WaitError, code_of};

/// When to ask again after the store could not tell.
const STORE_RETRY_AFTER_MS: u32 = 500;

fn store(error: &StoreError) -> WireError {
    tracing::warn!(error = error as &dyn std::error::Error, "the store of rendezvous failed");
    match error.retry {
        Retry::Later => refusal(ErrorCode::Temporary, error.to_string()).retry_after(STORE_RETRY_AFTER_MS),
        Retry::Room => no_room(),
        Retry::Never => refusal(ErrorCode::Internal, error.to_string()),
    }
}

fn limited(error: &Limited) -> WireError {
    limit_reached(error.limit, error.to_string(), error.retry_after_ms)
}

impl From<OpenError> for WireError {
    fn from(error: OpenError) -> Self {
        use OpenError as E;
        let message = error.to_string();
        match error {
            E::Field(_) => refusal(ErrorCode::BadRequest, message),
            E::Limited(limit) => limited(&limit),
            E::Open(OpenRendezvousError::IdTaken) => refusal(ErrorCode::IdTaken, message),
            E::Open(OpenRendezvousError::NotAdmitted(refused)) => refusal(code_of(refused), message),
            E::Open(OpenRendezvousError::Store(error)) => store(&error),
        }
    }
}

impl From<JoinError> for WireError {
    fn from(error: JoinError) -> Self {
        use JoinError as E;
        let message = error.to_string();
        match error {
            E::Caller(refused) => *refused,
            E::Field(_) => refusal(ErrorCode::BadRequest, message),
            E::Limited(limit) => limited(&limit),
            E::Join(JoinRendezvousError::NotAdmitted(refused)) => refusal(code_of(refused), message),
            E::Join(JoinRendezvousError::Store(error)) => store(&error),
        }
    }
}

impl From<PutError> for WireError {
    fn from(error: PutError) -> Self {
        use PutError as E;
        let message = error.to_string();
        match error {
            E::Caller(refused) => *refused,
            E::Field(_) | E::Put(PutBlobError::NoPlace(_)) => refusal(ErrorCode::BadRequest, message),
            E::Limited(limit) => limited(&limit),
            E::Put(PutBlobError::Conflict) => refusal(ErrorCode::BlobConflict, message),
            E::Put(PutBlobError::NotAdmitted(refused)) => refusal(code_of(refused), message),
            E::Put(PutBlobError::Store(error)) => store(&error),
        }
    }
}

impl From<WaitError> for WireError {
    fn from(error: WaitError) -> Self {
        use WaitError as E;
        let message = error.to_string();
        match error {
            E::Caller(refused) => *refused,
            E::Field(_) => refusal(ErrorCode::BadRequest, message),
            E::Limited(limit) => limited(&limit),
            E::Get(GetBlobError::NotAdmitted(refused)) => refusal(code_of(refused), message),
            E::Get(GetBlobError::Store(error)) => store(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use pli_domain::{NoPlace, NotAdmitted};

    use super::*;
    use crate::error::InvalidField;

    #[test]
    fn a_bad_request_names_the_field_first() {
        let refused: [(WireError, &str); 4] = [
            (OpenError::Field(InvalidField::SameSecret).into(), "opener_secret_sha256 "),
            (PutError::Field(InvalidField::Number(0)).into(), "number: "),
            (PutError::Put(PutBlobError::NoPlace(NoPlace::Full)).into(), "number: "),
            (PutError::Put(PutBlobError::NotAdmitted(NotAdmitted::NotJoined)).into(), "rendezvous: "),
        ];
        for (said, field) in refused {
            assert_eq!(said.code(), ErrorCode::BadRequest, "{said:?}");
            assert!(said.message.starts_with(field), "{said:?}");
        }
    }
}
