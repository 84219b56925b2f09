// SPDX-License-Identifier: MIT OR Apache-2.0
//! From each operation's error to the one closed list of codes.

use pli_api::common::Error as WireError;
use pli_api::{ErrorCode, limit_reached, no_room, refusal};
use pli_domain::DeviceAddress;
use pli_ports::{CreateAccountError, PutDeviceListError, Retry, StoreError};
use pli_runtime::limits::Limited;

use crate::error::{
    ClaimError, DeviceKeyError, GetDeviceListsError, LookupError, PublishError, RegisterError, ReplaceListError,
};
use crate::key_package::InvalidKeyPackage;
use crate::list::CorruptList;

/// When to ask again after the store could not tell.
const STORE_RETRY_AFTER_MS: u32 = 500;
/// When to put a list again whose removals are not finished.
const UNFINISHED_RETRY_AFTER_MS: u32 = 1_000;

fn store(error: &StoreError) -> WireError {
    tracing::warn!(error = error as &dyn std::error::Error, "the account store failed");
    match error.retry {
        Retry::Later => refusal(ErrorCode::Temporary, error.to_string()).retry_after(STORE_RETRY_AFTER_MS),
        Retry::Room => no_room(),
        Retry::Never => refusal(ErrorCode::Internal, error.to_string()),
    }
}

fn corrupt(error: &CorruptList) -> WireError {
    tracing::error!(error = error as &dyn std::error::Error, "the account store returned what was never stored");
    refusal(ErrorCode::Internal, error.to_string())
}

fn limited(error: &Limited) -> WireError {
    limit_reached(error.limit, error.to_string(), error.retry_after_ms)
}

fn about_devices(code: ErrorCode, message: String, devices: &[DeviceAddress]) -> WireError {
    let mut wire = refusal(code, message);
    wire.missing = devices.iter().map(|&d| d.into()).collect();
    wire
}

impl From<RegisterError> for WireError {
    fn from(error: RegisterError) -> Self {
        use RegisterError as E;
        let message = error.to_string();
        match error {
            E::Closed => refusal(ErrorCode::RegistrationClosed, message),
            E::Handle(_) => refusal(ErrorCode::HandleMalformed, message),
            E::NoList | E::List(_) => refusal(ErrorCode::DeviceListInvalid, message),
            E::Limited(limit) => limited(&limit),
            E::Create(CreateAccountError::HandleTaken) => refusal(ErrorCode::HandleTaken, message),
            E::Create(CreateAccountError::IdTaken) => refusal(ErrorCode::IdTaken, message),
            E::Create(CreateAccountError::Store(error)) => store(&error),
        }
    }
}

impl From<LookupError> for WireError {
    fn from(error: LookupError) -> Self {
        use LookupError as E;
        let message = error.to_string();
        match error {
            E::Caller(refused) => *refused,
            E::Handle(_) => refusal(ErrorCode::HandleMalformed, message),
            E::NotFound => refusal(ErrorCode::NotFound, message),
            E::Limited(limit) => limited(&limit),
            E::Store(error) => store(&error),
            E::Corrupt(error) => corrupt(&error),
        }
    }
}

impl From<GetDeviceListsError> for WireError {
    fn from(error: GetDeviceListsError) -> Self {
        use GetDeviceListsError as E;
        let message = error.to_string();
        match error {
            E::TooMany(_) | E::Known { .. } | E::TooLarge(_) | E::Field(_) => refusal(ErrorCode::BadRequest, message),
            E::Limited(limit) => limited(&limit),
            E::Store(error) => store(&error),
            E::Corrupt(error) => corrupt(&error),
        }
    }
}

impl From<ReplaceListError> for WireError {
    fn from(error: ReplaceListError) -> Self {
        use ReplaceListError as E;
        let message = error.to_string();
        match error {
            E::Caller(refused) | E::NotListed(refused) => *refused,
            E::NoList | E::List(_) => refusal(ErrorCode::DeviceListInvalid, message),
            E::Limited(limit) => limited(&limit),
            E::Put(PutDeviceListError::IdTaken | PutDeviceListError::Removed) => refusal(ErrorCode::IdTaken, message),
            E::Put(PutDeviceListError::Version { .. } | PutDeviceListError::Previous { .. }) => {
                refusal(ErrorCode::DeviceListVersion, message)
            }
            E::Unfinished => refusal(ErrorCode::Temporary, message).retry_after(UNFINISHED_RETRY_AFTER_MS),
            E::UnknownAccount | E::Put(PutDeviceListError::UnknownAccount) => {
                refusal(ErrorCode::UnknownDevice, message)
            }
            E::Put(PutDeviceListError::Store(error)) | E::Store(error) => store(&error),
            E::Corrupt(error) => corrupt(&error),
        }
    }
}

impl From<PublishError> for WireError {
    fn from(error: PublishError) -> Self {
        use PublishError as E;
        let message = error.to_string();
        match error {
            E::Caller(refused) | E::NotListed(refused) => *refused,
            E::Invalid { source: InvalidKeyPackage::Suite, .. } | E::InvalidLastResort(InvalidKeyPackage::Suite) => {
                refusal(ErrorCode::SuiteNotTaken, message)
            }
            E::TooMany(_) | E::TooLarge { .. } | E::Invalid { .. } | E::InvalidLastResort(_) => {
                refusal(ErrorCode::BadRequest, message)
            }
            E::Limited(limit) => limited(&limit),
            E::Store(error) => store(&error),
            E::Corrupt(error) => corrupt(&error),
        }
    }
}

impl From<ClaimError> for WireError {
    fn from(error: ClaimError) -> Self {
        use ClaimError as E;
        let message = error.to_string();
        match error {
            E::Caller(refused) => *refused,
            E::Count(_) | E::Duplicate | E::Field(_) => refusal(ErrorCode::BadRequest, message),
            E::UnknownDevices(devices) => about_devices(ErrorCode::NotFound, message, &devices),
            E::Exhausted(devices) => about_devices(ErrorCode::KeyPackagesExhausted, message, &devices),
            E::Limited(limit) => limited(&limit),
            E::Store(error) => store(&error),
            E::Corrupt(error) => corrupt(&error),
        }
    }
}

impl From<DeviceKeyError> for WireError {
    fn from(error: DeviceKeyError) -> Self {
        use DeviceKeyError as E;
        let message = error.to_string();
        match error {
            E::NotForClients => refusal(ErrorCode::UnknownMethod, message),
            E::NotListed(refused) => *refused,
            E::Field(_) => refusal(ErrorCode::BadRequest, message),
            E::Store(error) => store(&error),
            E::Corrupt(error) => corrupt(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_said_to_be_one() {
        let said = store(&StoreError::no_room("create an account", "database or disk is full"));
        assert_eq!((said.code(), said.retry_after_ms), (ErrorCode::NoSpace, 5_000));
    }

    #[test]
    fn a_bad_request_names_the_field_first() {
        let refused: [(WireError, &str); 7] = [
            (GetDeviceListsError::TooMany(33).into(), "accounts: "),
            (GetDeviceListsError::Known { known: 1, accounts: 2 }.into(), "known: "),
            (GetDeviceListsError::TooLarge(70_000).into(), "accounts: "),
            (PublishError::TooMany(101).into(), "key_packages: "),
            (PublishError::TooLarge { field: "last_resort".into(), bytes: 20_000 }.into(), "last_resort: "),
            (ClaimError::Count(0).into(), "devices: "),
            (ClaimError::Duplicate.into(), "devices: "),
        ];
        for (said, field) in refused {
            assert_eq!(said.code(), ErrorCode::BadRequest, "{said:?}");
            assert!(said.message.starts_with(field), "{said:?}");
        }
    }
}
