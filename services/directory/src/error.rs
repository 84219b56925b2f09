// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each operation may refuse. `status.rs` gives each its code on the wire.

use pli_api::FieldError;
use pli_api::common::Error as WireError;
use pli_domain::limits::{CLAIM_DEVICES_MAX, DEVICE_LISTS_MAX, KEY_PACKAGES_MAX};
use pli_domain::{DeviceAddress, InvalidHandle};
use pli_ports::{CreateAccountError, PutDeviceListError, StoreError};
use pli_runtime::limits::Limited;

use crate::key_package::InvalidKeyPackage;
use crate::key_packages::KEY_PACKAGE_BYTES_MAX;
use crate::list::{CorruptList, InvalidDeviceList};

/// Why an account was not registered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("registration is closed on this server")]
    Closed,
    #[error(transparent)]
    Handle(#[from] InvalidHandle),
    #[error("devices is missing")]
    NoList,
    #[error(transparent)]
    List(#[from] InvalidDeviceList),
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error(transparent)]
    Create(#[from] CreateAccountError),
}

/// Why a look-up has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupError {
    #[error("{}", .0.message)]
    Caller(Box<WireError>),
    #[error(transparent)]
    Handle(#[from] InvalidHandle),
    #[error("no account that you may see has this handle")]
    NotFound,
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Corrupt(#[from] CorruptList),
}

/// Why device lists were not given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GetDeviceListsError {
    #[error("accounts: {0} named; ask for at most {DEVICE_LISTS_MAX} at once")]
    TooMany(usize),
    #[error("known: {known} versions for {accounts} accounts; give one for each, 0 for none, or none at all")]
    Known { known: usize, accounts: usize },
    #[error("accounts: the answer has {0} bytes, more than a frame holds; ask for fewer at once")]
    TooLarge(usize),
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Corrupt(#[from] CorruptList),
}

/// Why a device list was not replaced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplaceListError {
    #[error("{}", .0.message)]
    Caller(Box<WireError>),
    #[error("devices is missing")]
    NoList,
    #[error(transparent)]
    List(#[from] InvalidDeviceList),
    #[error("no such account")]
    UnknownAccount,
    #[error("{}", .0.message)]
    NotListed(Box<WireError>),
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error(transparent)]
    Put(#[from] PutDeviceListError),
    #[error("the list is stored, what it leaves out is not gone everywhere yet; put the same list again")]
    Unfinished,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Corrupt(#[from] CorruptList),
}

/// Why key packages were not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    #[error("{}", .0.message)]
    Caller(Box<WireError>),
    #[error("key_packages: {0} given; publish at most {KEY_PACKAGES_MAX} at once")]
    TooMany(usize),
    #[error("{field}: {bytes} bytes; at most {KEY_PACKAGE_BYTES_MAX} are allowed")]
    TooLarge { field: String, bytes: usize },
    #[error("key_packages[{index}]: {source}")]
    Invalid { index: usize, source: InvalidKeyPackage },
    #[error("last_resort: {0}")]
    InvalidLastResort(#[source] InvalidKeyPackage),
    #[error("{}", .0.message)]
    NotListed(Box<WireError>),
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Corrupt(#[from] CorruptList),
}

/// Why key packages were not handed out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    #[error("{}", .0.message)]
    Caller(Box<WireError>),
    #[error("devices: {0} named; claim for 1 to {CLAIM_DEVICES_MAX} at once")]
    Count(usize),
    #[error("devices: one is named twice; name each once")]
    Duplicate,
    #[error("devices that no device list names; fetch the lists again")]
    UnknownDevices(Vec<DeviceAddress>),
    #[error("devices without a key package: {}", .0.len())]
    Exhausted(Vec<DeviceAddress>),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Corrupt(#[from] CorruptList),
}

/// Why a device's key was not given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceKeyError {
    #[error("this method is for edges only")]
    NotForClients,
    #[error("{}", .0.message)]
    NotListed(Box<WireError>),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Corrupt(#[from] CorruptList),
}
