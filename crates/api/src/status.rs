// SPDX-License-Identifier: MIT OR Apache-2.0
//! A [`crate::common::Error`] inside a gRPC status and out again: details carry it whole, the gRPC code is the
//! nearest one for tools that know only gRPC.

use prost::Message;
use tonic::{Code, Status};

use crate::ErrorCode;
use crate::common::Error;

/// The gRPC status that carries `error`.
pub fn status_of_error(error: &Error) -> Status {
    let code = match error.code() {
        ErrorCode::RateLimited => Code::ResourceExhausted,
        code if code.is_temporary() => Code::Unavailable,
        ErrorCode::NotFound | ErrorCode::UnknownConversation | ErrorCode::UnknownDevice => Code::NotFound,
        ErrorCode::HandleTaken | ErrorCode::IdTaken | ErrorCode::ConversationTaken => Code::AlreadyExists,
        ErrorCode::Anonymous => Code::Unauthenticated,
        ErrorCode::UnknownMethod => Code::Unimplemented,
        ErrorCode::BadRequest | ErrorCode::HandleMalformed => Code::InvalidArgument,
        _ => Code::FailedPrecondition,
    };
    Status::with_details(code, error.message.clone(), error.encode_to_vec().into())
}

/// The error that a status carries. One that no service of ours made becomes [`ErrorCode::Temporary`] where gRPC says
/// that it is, else [`ErrorCode::Internal`].
pub fn error_of_status(status: &Status) -> Error {
    if let Ok(error) = Error::decode(status.details())
        && error.code() != ErrorCode::Unspecified
    {
        return error;
    }
    let code = match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => ErrorCode::Temporary,
        Code::Unimplemented => ErrorCode::UnknownMethod,
        _ => ErrorCode::Internal,
    };
    crate::refusal(code, status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_status() {
        let error = crate::refusal(ErrorCode::RateLimited, "too many").retry_after(250);
        let status = status_of_error(&error);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(error_of_status(&status), error);
    }

    #[test]
    fn a_foreign_status_is_told_apart() {
        assert_eq!(error_of_status(&Status::unavailable("x")).code(), ErrorCode::Temporary);
        assert_eq!(error_of_status(&Status::data_loss("x")).code(), ErrorCode::Internal);
    }
}
