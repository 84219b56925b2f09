// SPDX-License-Identifier: MIT OR Apache-2.0
//! The closed list of error codes with what each asks of a client; `docs/protocol.md` renders this table.

use crate::ErrorCode;
use crate::common::Error;

/// What a client does with a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A defect of the client: do not repeat it.
    Fix,
    /// Open a new connection.
    Reconnect,
    /// Send the same again later.
    Retry,
    /// Send the message again with the same send id.
    Resend,
    /// Fetch what is newer, then try again.
    CatchUp,
    /// Join the conversation again by external commit.
    Rejoin,
    /// Tell the user.
    Tell,
    /// Stop until the user acts.
    Stop,
    /// The client is too old.
    Update,
}

/// One row of the table of codes.
#[derive(Debug, Clone, Copy)]
pub struct CodeDoc {
    /// The code.
    pub code: ErrorCode,
    /// Whether the same request can succeed later.
    pub temporary: bool,
    /// What a client does.
    pub action: Action,
    /// The same in words.
    pub advice: &'static str,
}

const fn row(code: ErrorCode, temporary: bool, action: Action, advice: &'static str) -> CodeDoc {
    CodeDoc { code, temporary, action, advice }
}

/// Every code that is ever sent, in the order of its number.
pub const CODES: &[CodeDoc] = &[
    row(
        ErrorCode::UnknownFrame,
        false,
        Action::Fix,
        "update the client, or do not send frames that server info's versions lack",
    ),
    row(ErrorCode::MalformedFrame, false, Action::Fix, "fix the encoder; the message names the field"),
    row(ErrorCode::FrameTooLarge, false, Action::Fix, "keep frames within the limits of `Ready` and server info"),
    row(
        ErrorCode::UnexpectedFrame,
        false,
        Action::Fix,
        "send `ClientHello` once, first, and everything else after `Ready`",
    ),
    row(ErrorCode::HelloTimeout, true, Action::Reconnect, "connect again and answer `ServerHello` within 10 s"),
    row(ErrorCode::UnsupportedVersion, false, Action::Update, "update the client"),
    row(
        ErrorCode::FrameTimeout,
        true,
        Action::Reconnect,
        "connect again; pause for less than 5 s within a frame, and send it at 1 KiB a second or more",
    ),
    row(ErrorCode::BadNonce, true, Action::Reconnect, "connect again and sign the new nonce"),
    row(
        ErrorCode::BadSignature,
        false,
        Action::Fix,
        "sign the exact transcript with the device key; if the key is right, the device was replaced",
    ),
    row(ErrorCode::WrongHost, false, Action::Fix, "name the host that the client connected to, as the user wrote it"),
    row(
        ErrorCode::BadBinding,
        false,
        Action::Fix,
        "use a binding that server info allows, computed over this connection",
    ),
    row(
        ErrorCode::UnknownDevice,
        false,
        Action::Stop,
        "register again once, as it was (the server may have been restored from a backup), then stop and tell the user; a device that signs no lists connects again with delays that double up to 60 s",
    ),
    row(
        ErrorCode::Displaced,
        false,
        Action::Stop,
        "stop: another process uses the same device; do not reconnect without the user",
    ),
    row(ErrorCode::Anonymous, false, Action::Fix, "authenticate before calling this method"),
    row(
        ErrorCode::DeviceRemoved,
        false,
        Action::Stop,
        "stop and tell the user; what is stored stays readable, and the same app comes back only as a new device",
    ),
    row(ErrorCode::RateLimited, true, Action::Retry, "retry after `retry_after_ms`; `limit` names the limit"),
    row(ErrorCode::Temporary, true, Action::Retry, "send the same again after `retry_after_ms`, with the same ids"),
    row(ErrorCode::NoSpace, true, Action::Retry, "retry after `retry_after_ms`; tell the operator if it lasts"),
    row(ErrorCode::Draining, true, Action::Reconnect, "connect again after `retry_after_ms`"),
    row(ErrorCode::Internal, true, Action::Retry, "retry a few times with back-off, then report it"),
    row(ErrorCode::UnknownMethod, false, Action::Fix, "use a method of docs/protocol.md"),
    row(ErrorCode::BadRequest, false, Action::Fix, "fix the field that the message names"),
    row(ErrorCode::NotFound, false, Action::Tell, "tell the user that there is nothing under that name"),
    row(ErrorCode::UnknownConversation, false, Action::Tell, "mark the conversation as left"),
    row(
        ErrorCode::WrongEpoch,
        true,
        Action::CatchUp,
        "process the missing commits, encrypt again, send with the same send id",
    ),
    row(ErrorCode::EpochNotOpen, true, Action::Retry, "send the same again after `retry_after_ms`"),
    row(ErrorCode::EnvelopeTooLarge, false, Action::Fix, "send large content as an attachment"),
    row(ErrorCode::EnvelopeEmpty, false, Action::Fix, "seal something"),
    row(ErrorCode::EnvelopeExpired, false, Action::Tell, "drop it and tell the user that it was not sent in time"),
    row(ErrorCode::ExpiryTooFar, false, Action::Fix, "set `expires_at_ms` at most 30 days ahead of server time"),
    row(ErrorCode::BadReceipt, false, Action::Resend, "send the message again with the same send id"),
    row(ErrorCode::KeyPackagesExhausted, false, Action::Tell, "tell the user that the device must come online first"),
    row(ErrorCode::HandleTaken, false, Action::Tell, "ask the user for another handle"),
    row(
        ErrorCode::HandleMalformed,
        false,
        Action::Tell,
        "ask the user for another handle: 3 to 32 of a-z 0-9 . _, a letter or digit first and last, no two of . _ in a row",
    ),
    row(ErrorCode::IdTaken, false, Action::Fix, "draw new random ids, then register or sign the list again"),
    row(
        ErrorCode::DeviceListVersion,
        true,
        Action::CatchUp,
        "fetch the newest list, make the change again, sign the next version",
    ),
    row(ErrorCode::DeviceListInvalid, false, Action::Fix, "fix the field that the message names and sign again"),
    row(ErrorCode::RegistrationClosed, false, Action::Tell, "tell the user how this server registers accounts"),
    row(
        ErrorCode::SuiteNotTaken,
        false,
        Action::Tell,
        "tell the user which suites fit; use one that server info names, and for a conversation that of its members",
    ),
    row(
        ErrorCode::CommitInvalid,
        false,
        Action::Rejoin,
        "drop the pending commit; re-join if the group does not go on",
    ),
    row(
        ErrorCode::ConversationTaken,
        false,
        Action::Fix,
        "draw a new random conversation id; of a successor: another member made it, wait for the welcome",
    ),
    row(
        ErrorCode::DevicesMismatch,
        true,
        Action::CatchUp,
        "fetch device lists, add what is missing, remove what is extra or stale, commit again",
    ),
    row(ErrorCode::GroupTooLarge, false, Action::Tell, "tell the user the limit"),
    row(
        ErrorCode::RendezvousExpired,
        false,
        Action::Tell,
        "tell the user to begin again on the new device: open a new rendezvous and scan its new code",
    ),
    row(
        ErrorCode::RendezvousTaken,
        false,
        Action::Tell,
        "tell the user that another device has used this code; begin again on the new device if that was not theirs",
    ),
    row(
        ErrorCode::BlobConflict,
        false,
        Action::Fix,
        "send the same bytes again or nothing; begin with a new rendezvous if they are lost",
    ),
    row(
        ErrorCode::UploadUnknown,
        false,
        Action::Tell,
        "tell the user that the upload is over: the device that has its content begins a new one",
    ),
    row(
        ErrorCode::PartConflict,
        false,
        Action::Fix,
        "send the same bytes again or nothing; begin a new upload if they are lost",
    ),
    row(
        ErrorCode::MediaQuota,
        false,
        Action::Tell,
        "delete uploads that are no longer needed; tell the user that there is no room until others expire",
    ),
    row(
        ErrorCode::UploadIncomplete,
        true,
        Action::CatchUp,
        "put the part that the message names and finish again; who reads asks again later",
    ),
];

impl ErrorCode {
    /// Its row of the table; none only for the unspecified code.
    pub fn doc(self) -> Option<&'static CodeDoc> {
        CODES.iter().find(|row| row.code == self)
    }
    /// Whether the same request can succeed later.
    pub fn is_temporary(self) -> bool {
        self.doc().is_some_and(|row| row.temporary)
    }
}

/// A refusal with a sentence that names the field and the fix.
pub fn refusal(code: ErrorCode, message: impl Into<String>) -> Error {
    Error { code: code.into(), message: message.into(), ..Error::default() }
}

/// When to ask a server again whose disk was full.
const NO_ROOM_RETRY_AFTER_MS: u32 = 5_000;

/// The refusal of what would have to be written, where the disk is full.
pub fn no_room() -> Error {
    refusal(ErrorCode::NoSpace, "the server has no space left on its disk").retry_after(NO_ROOM_RETRY_AFTER_MS)
}

/// Every named limit: settings of the services. A label of a metric is one of these, or `other`.
pub const LIMITS: &[&str] = &[
    "address_connections",
    "address_hellos",
    "session_calls",
    "session_deliveries",
    "session_open_receipts",
    "session_send_bytes",
    "session_sends",
    "changes_per_account",
    "pages_fetched_per_account",
    "pages_stored_per_account",
    "questions_per_account",
    "claims_of_one_account",
    "claims_per_account",
    "lists_fetched_per_account",
    "lists_put_per_account",
    "lookups_per_account",
    "media_calls_per_account",
    "publications_per_account",
    "registrations_per_address",
    "rendezvous_calls_per_address",
    "rendezvous_joined_per_account",
    "rendezvous_open_max",
    "rendezvous_opened_per_address",
    "rendezvous_waits_max",
    "uploads_begun_per_account",
];

/// The refusal by a named limit, one of [`LIMITS`], to be retried after so many milliseconds.
pub fn limit_reached(limit: &str, message: impl Into<String>, retry_after_ms: u32) -> Error {
    debug_assert!(LIMITS.contains(&limit), "{limit} is not in the list of limits");
    Error { limit: limit.into(), ..refusal(ErrorCode::RateLimited, message).retry_after(retry_after_ms) }
}

impl Error {
    /// The limit that was reached as a word from a closed list; empty where none was. Another service may say anything.
    pub fn limit_word(&self) -> &'static str {
        if self.limit.is_empty() {
            return "";
        }
        LIMITS.iter().find(|known| **known == self.limit).copied().unwrap_or("other")
    }
    /// The same refusal, to be retried after so many milliseconds.
    #[must_use]
    pub fn retry_after(mut self, ms: u32) -> Self {
        self.retry_after_ms = ms;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_nobody_knows_is_one_word() {
        let named = |limit: &str| Error { limit: limit.into(), ..refusal(ErrorCode::RateLimited, "") };
        assert_eq!(named("").limit_word(), "");
        assert_eq!(named("session_sends").limit_word(), "session_sends");
        for n in 0..1_000 {
            assert_eq!(named(&format!("account {n}")).limit_word(), "other");
        }
    }

    #[test]
    fn every_code_has_exactly_one_row_in_order() {
        let numbers: Vec<i32> = CODES.iter().map(|row| row.code as i32).collect();
        assert!(numbers.windows(2).all(|w| w[0] < w[1]), "rows out of order: {numbers:?}");
        let all: Vec<i32> = (1..200).filter(|&n| ErrorCode::try_from(n).is_ok()).collect();
        assert_eq!(numbers, all);
    }
}
