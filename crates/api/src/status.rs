// SPDX-License-Identifier: MIT OR Apache-2.0
//! A [`crate::common::Error`] inside a gRPC status and out again: details carry it whole, the gRPC code is the
//! nearest one for tools that know only gRPC.

use prost::Message;
use tonic::{Code, Response, Status};

use crate::ErrorCode;
use crate::common::Error;

/// The gRPC status that carries `error`.
pub fn status_of_error(error: &Error) -> Status {
    let code = match error.code() {
        ErrorCode::RateLimited => Code::ResourceExhausted,
        code if code.is_temporary() => Code::Unavailable,
        ErrorCode::NotFound
        | ErrorCode::UnknownConversation
        | ErrorCode::UnknownDevice
        | ErrorCode::RendezvousExpired
        | ErrorCode::UploadUnknown => Code::NotFound,
        ErrorCode::HandleTaken
        | ErrorCode::IdTaken
        | ErrorCode::ConversationTaken
        | ErrorCode::RendezvousTaken
        | ErrorCode::BlobConflict
        | ErrorCode::PartConflict => Code::AlreadyExists,
        ErrorCode::Anonymous => Code::Unauthenticated,
        ErrorCode::UnknownMethod => Code::Unimplemented,
        ErrorCode::BadRequest | ErrorCode::HandleMalformed => Code::InvalidArgument,
        _ => Code::FailedPrecondition,
    };
    Status::with_details(code, error.message.clone(), error.encode_to_vec().into())
}

/// An operation's result as a tonic server gives it: the answer, or the status that carries the refusal. `refused` is
/// told the code of a refusal, to count it.
pub fn reply<T, E: Into<Error>>(result: Result<T, E>, refused: impl FnOnce(ErrorCode)) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| {
        let error = error.into();
        refused(error.code());
        status_of_error(&error)
    })
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
        // A server that sheds load says that its resources are exhausted.
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted => ErrorCode::Temporary,
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
    fn a_refusal_is_counted_by_its_code_and_an_answer_is_not() {
        let mut counted = Vec::new();
        let refused = reply::<(), _>(Err(crate::refusal(ErrorCode::NotFound, "nothing")), |code| counted.push(code));
        assert_eq!(refused.map(|_| ()).map_err(|s| error_of_status(&s).code()), Err(ErrorCode::NotFound));
        assert!(reply::<_, Error>(Ok(1), |code| counted.push(code)).is_ok());
        assert_eq!(counted, [ErrorCode::NotFound]);
    }

    #[test]
    fn a_foreign_status_is_told_apart() {
        assert_eq!(error_of_status(&Status::unavailable("x")).code(), ErrorCode::Temporary);
        assert_eq!(error_of_status(&Status::resource_exhausted("x")).code(), ErrorCode::Temporary);
        assert_eq!(error_of_status(&Status::data_loss("x")).code(), ErrorCode::Internal);
    }
}
