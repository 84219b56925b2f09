// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a user does about a refusal of the server. The table in `crates/api` says what a client does.

use pli_api::ErrorCode;

/// What the user does; none where the client deals with it and a user can only report it.
#[rustfmt::skip]
const ADVICE: &[(ErrorCode, &str)] = &[
    (ErrorCode::UnsupportedVersion, "install a newer pli"),
    (ErrorCode::BadSignature, "this device may have been replaced: use the profile that holds its keys, or another handle"),
    (ErrorCode::WrongHost, "give the server's address as its operator does, with --server HOST:PORT"),
    (ErrorCode::BadBinding, "connect to the server itself, without anything that ends TLS in between"),
    (ErrorCode::UnknownDevice, "the server does not know this device and does not take it back: it was set up anew; move \
        the profile folder away to register again"),
    (ErrorCode::DeviceRemoved, "link this machine again as a new device, under another name or with another --home; \
        `pli chat` of the old name with --offline shows what is stored here"),
    (ErrorCode::Displaced, "another process uses this profile: end it, then start this one again"),
    (ErrorCode::RateLimited, "wait a little; it is tried again by itself"),
    (ErrorCode::Temporary, "nothing to do: it is tried again by itself; look at `pli doctor` on the server if it lasts"),
    (ErrorCode::NoSpace, "ask the operator to free disk space on the server (`pli doctor` shows it); what you sent waits \
        here until then"),
    (ErrorCode::Draining, "nothing to do: the server restarts, the connection comes back by itself"),
    (ErrorCode::NotFound, "check how the handle is spelled, and that its owner has registered on this server"),
    (ErrorCode::UnknownConversation, "ask a member to add you, or begin a new conversation"),
    (ErrorCode::EnvelopeTooLarge, "send less text in one message"),
    (ErrorCode::EnvelopeExpired, "send it again if it still matters"),
    (ErrorCode::KeyPackagesExhausted, "ask the other person to come online once, then try again"),
    (ErrorCode::HandleTaken, "where it is yours on another device, link this one: `pli chat HANDLE/NAME`; where it is yours here, \
        write --server as when you made it"),
    (ErrorCode::HandleMalformed, "choose another handle: 3 to 32 of a-z 0-9 . _, a letter or digit first and last, no two of . _ in a row"),
    (ErrorCode::IdTaken, "move the profile folder away and try again"),
    (ErrorCode::RegistrationClosed, "ask the operator how accounts are made on this server"),
    (ErrorCode::SuiteNotTaken, "leave --suite out for a new handle, or ask the operator to set directory.post_quantum for \
        0x004f; devices of different suites cannot write to each other, so write from a handle of that suite"),
    (ErrorCode::GroupTooLarge, "name fewer people, make several groups, or have devices that nobody uses any more removed: a group holds at \
        most 250 people with 1000 devices together"),
    (ErrorCode::RendezvousExpired, "begin again on the new device, and scan its new code within a minute"),
    (ErrorCode::RendezvousTaken, "begin again on the new device, with a new code, if that was not yours"),
    (ErrorCode::UploadUnknown, "it lasted 7 days or was taken in already: hand the history over again on the first device"),
    (ErrorCode::MediaQuota, "the account's uploads take all the room that it has on this server: wait until they expire, or ask \
        the operator"),
    (ErrorCode::UploadIncomplete, "run `pli device history` again on the first device; it goes on with what is missing"),
];
/// About every other code.
const REPORT: &str = "nothing you can mend: report it with the output of --log debug";
/// About those that pass.
const PASSES: &str = "nothing to do: it is tried again by itself";

/// What the user does about this code.
pub fn advice(code: ErrorCode) -> &'static str {
    let row = ADVICE.iter().find(|(known, _)| *known == code).map(|(_, advice)| *advice);
    row.unwrap_or(if code.is_temporary() { PASSES } else { REPORT })
}

/// Whether what is refused with this code is taken within seconds: what comes before it is still on its way.
pub fn passes_soon(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::EpochNotOpen | ErrorCode::WrongEpoch)
}

#[cfg(test)]
mod tests {
    use pli_api::Action;
    use pli_domain::limits::{GROUP_DEVICES_MAX, MEMBERS_MAX};

    use super::*;

    #[test]
    fn every_code_that_a_user_must_hear_of_has_a_row_of_its_own() {
        let told =
            pli_api::CODES.iter().filter(|row| matches!(row.action, Action::Tell | Action::Stop | Action::Update));
        for row in told {
            assert!(ADVICE.iter().any(|(code, _)| *code == row.code), "{:?} has no advice", row.code);
        }
        let mut codes: Vec<i32> = ADVICE.iter().map(|(code, _)| *code as i32).collect();
        codes.dedup();
        assert_eq!(codes.len(), ADVICE.len());
    }

    #[test]
    fn no_advice_is_empty_or_names_a_field_of_the_protocol() {
        for row in pli_api::CODES {
            let said = advice(row.code);
            assert!(!said.is_empty() && !said.contains("_ms"), "{said}");
        }
        assert!(advice(ErrorCode::NoSpace).contains("disk space"));
        let room = format!("{} people with {}", MEMBERS_MAX, GROUP_DEVICES_MAX);
        assert!(advice(ErrorCode::GroupTooLarge).contains(&room), "the bounds are said as they are");
        assert_eq!(advice(ErrorCode::WrongEpoch), PASSES);
        assert_eq!(advice(ErrorCode::MalformedFrame), REPORT);
        assert!(passes_soon(ErrorCode::EpochNotOpen));
        for lasts in [ErrorCode::NoSpace, ErrorCode::RateLimited, ErrorCode::DevicesMismatch, ErrorCode::NotFound] {
            assert!(!passes_soon(lasts), "{lasts:?} may last, and is said");
        }
    }
}
