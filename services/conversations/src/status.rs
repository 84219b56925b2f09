// SPDX-License-Identifier: MIT OR Apache-2.0
//! From each operation's error to the one closed list of codes.

use pli_api::common::Error as WireError;
use pli_api::{ErrorCode, error_of_status, limit_reached, no_room, refusal};
use pli_domain::{DeviceAddress, MlsEpoch};
use pli_ports::{Retry, StoreError};

use crate::devices::{DirectoryError, Unfit};
use crate::error::{
    CommitError, CreateError, Denied, FinishError, PayloadError, ProposeError, QuestionError, ReportError, RosterError,
};
use crate::objects::ObjectError;
use crate::record::CorruptRecord;

/// When to ask again after another part could not answer.
const RETRY_AFTER_MS: u32 = 500;

fn store(error: &StoreError) -> WireError {
    tracing::warn!(error = error as &dyn std::error::Error, "a store failed");
    match error.retry {
        Retry::Later => refusal(ErrorCode::Temporary, error.to_string()).retry_after(RETRY_AFTER_MS),
        Retry::Room => no_room(),
        Retry::Never => refusal(ErrorCode::Internal, error.to_string()),
    }
}

fn corrupt(error: &CorruptRecord) -> WireError {
    tracing::error!(error = error as &dyn std::error::Error, "the conversation store returned what was never stored");
    refusal(ErrorCode::Internal, error.to_string())
}

fn wrong_epoch(message: String, current: MlsEpoch) -> WireError {
    let mut wire = refusal(ErrorCode::WrongEpoch, message);
    wire.current_epoch = current.0;
    wire
}

impl From<Denied> for WireError {
    fn from(error: Denied) -> Self {
        use Denied as E;
        let message = error.to_string();
        match error {
            E::Caller(refused) => *refused,
            E::Field(_) => refusal(ErrorCode::BadRequest, message),
            E::Limited(limited) => limit_reached(limited.limit, message, limited.retry_after_ms),
            E::UnknownConversation => refusal(ErrorCode::UnknownConversation, message),
            E::Store(error) => store(&error),
            E::Corrupt(error) => corrupt(&error),
        }
    }
}

impl From<FinishError> for WireError {
    fn from(error: FinishError) -> Self {
        use FinishError as E;
        let message = error.to_string();
        match error {
            E::Append { retry_after_ms, .. } => refusal(ErrorCode::Temporary, message).retry_after(retry_after_ms),
            E::Store(error) => store(&error),
            E::Corrupt(error) => corrupt(&error),
        }
    }
}

impl From<ObjectError> for WireError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Store(error) => store(&error),
            other => refusal(ErrorCode::BadRequest, other.to_string()),
        }
    }
}

impl From<Unfit> for WireError {
    fn from(unfit: Unfit) -> Self {
        let mismatch = match unfit {
            Unfit::Devices(mismatch) => mismatch,
            Unfit::CallerRemoved => return refusal(ErrorCode::DeviceRemoved, unfit.to_string()),
        };
        let wire = |devices: Vec<DeviceAddress>| devices.into_iter().map(Into::into).collect();
        let mut error = refusal(ErrorCode::DevicesMismatch, mismatch.to_string());
        error.missing = wire(mismatch.missing);
        error.extra = wire(mismatch.extra);
        error.stale = wire(mismatch.stale);
        error
    }
}

impl From<DirectoryError> for WireError {
    fn from(error: DirectoryError) -> Self {
        tracing::warn!(error = &error as &dyn std::error::Error, "the directory failed");
        match error {
            DirectoryError::Call(status) if !error_of_status(&status).code().is_temporary() => {
                refusal(ErrorCode::Internal, "the directory refuses the question")
            }
            other => refusal(ErrorCode::Temporary, other.to_string()).retry_after(RETRY_AFTER_MS),
        }
    }
}

impl From<CreateError> for WireError {
    fn from(error: CreateError) -> Self {
        use CreateError as E;
        let message = error.to_string();
        match error {
            E::Denied(denied) => denied.into(),
            E::Object(error) => error.into(),
            E::Invalid(_) => refusal(ErrorCode::CommitInvalid, message),
            E::Devices(unfit) => unfit.into(),
            E::Directory(error) => error.into(),
            E::Taken => refusal(ErrorCode::ConversationTaken, message),
            E::Store(error) => store(&error),
        }
    }
}

impl From<CommitError> for WireError {
    fn from(error: CommitError) -> Self {
        use CommitError as E;
        let message = error.to_string();
        match error {
            E::Denied(denied) => denied.into(),
            E::Ahead { current, .. } => wrong_epoch(message, current),
            E::Object(error) => error.into(),
            E::Invalid(_) => refusal(ErrorCode::CommitInvalid, message),
            E::TooManyAccounts { .. } | E::TooManyDevices { .. } | E::StateTooLarge { .. } => {
                refusal(ErrorCode::GroupTooLarge, message)
            }
            E::Devices(unfit) => unfit.into(),
            E::Directory(error) => error.into(),
            E::Finish(error) => error.into(),
            E::Contended => refusal(ErrorCode::Temporary, message).retry_after(RETRY_AFTER_MS),
        }
    }
}

impl From<ProposeError> for WireError {
    fn from(error: ProposeError) -> Self {
        use ProposeError as E;
        let message = error.to_string();
        match error {
            E::Denied(denied) => denied.into(),
            E::TooLarge(_) => refusal(ErrorCode::BadRequest, message),
            E::WrongEpoch { current } => wrong_epoch(message, current),
            E::Invalid(_) => refusal(ErrorCode::CommitInvalid, message),
            E::Finish(error) => error.into(),
            E::Store(error) => store(&error),
        }
    }
}

impl From<QuestionError> for WireError {
    fn from(error: QuestionError) -> Self {
        match error {
            QuestionError::Denied(denied) => denied.into(),
            QuestionError::Store(error) => store(&error),
            QuestionError::Corrupt(error) => corrupt(&error),
        }
    }
}

impl From<ReportError> for WireError {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Denied(denied) => denied.into(),
            ReportError::Finish(error) => error.into(),
            ReportError::Reason | ReportError::TooMany(_) => refusal(ErrorCode::BadRequest, error.to_string()),
        }
    }
}

impl From<PayloadError> for WireError {
    fn from(error: PayloadError) -> Self {
        use PayloadError as E;
        let message = error.to_string();
        match error {
            E::Denied(denied) => denied.into(),
            E::Size(_) | E::Page | E::MissingPage { .. } | E::IdTaken => refusal(ErrorCode::BadRequest, message),
            E::NotFound => refusal(ErrorCode::NotFound, message),
            E::Store(error) => store(&error),
        }
    }
}

impl From<RosterError> for WireError {
    fn from(error: RosterError) -> Self {
        use RosterError as E;
        let message = error.to_string();
        match error {
            E::NotForClients => refusal(ErrorCode::UnknownMethod, message),
            E::Field(_) => refusal(ErrorCode::BadRequest, message),
            E::UnknownConversation => refusal(ErrorCode::UnknownConversation, message),
            E::WrongEpoch { current } => wrong_epoch(message, current),
            E::Store(error) => store(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_request_names_the_field_first() {
        let refused: [(WireError, &str); 7] = [
            (ProposeError::TooLarge(70_000).into(), "proposal: "),
            (PayloadError::Size(0).into(), "size: "),
            (PayloadError::Page.into(), "bytes: "),
            (PayloadError::MissingPage { offset: 1 }.into(), "offset: "),
            (PayloadError::IdTaken.into(), "id: "),
            (ReportError::Reason.into(), "reason: "),
            (ReportError::TooMany(9).into(), "renew: "),
        ];
        for (said, field) in refused {
            assert_eq!(said.code(), ErrorCode::BadRequest, "{said:?}");
            assert!(said.message.starts_with(field), "{said:?}");
        }
    }
}
