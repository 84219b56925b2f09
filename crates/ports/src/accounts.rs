// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accounts, handles, device lists and key packages.

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::{AccountId, DeviceId, Handle, UnixMillis};

use crate::StoreError;

/// SHA-256 of [`DeviceListRecord::signed`]: what the next list of the chain names as the one before it.
pub type ListHash = [u8; 32];

/// A device list as signed by its account's identity key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceListRecord {
    /// Counts up from 1.
    pub version: u64,
    /// An encoded `pli.directory.v1.SignedDeviceList`; verified by the directory before it is stored.
    pub signed: Bytes,
    /// The devices it names, for look-up.
    pub devices: Vec<DeviceId>,
}

/// An account to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAccount {
    /// Random, chosen by the client.
    pub account: AccountId,
    /// The name it claims.
    pub handle: Handle,
    /// Ed25519 public key of the account.
    pub identity_key: [u8; 32],
    /// Its first device list, version 1.
    pub devices: DeviceListRecord,
    /// When.
    pub created_at: UnixMillis,
}

/// What is stored of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRecord {
    /// Its id.
    pub account: AccountId,
    /// Its handle.
    pub handle: Handle,
    /// Ed25519 public key of the account.
    pub identity_key: [u8; 32],
    /// Its newest device list.
    pub devices: DeviceListRecord,
}

/// Why an account was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateAccountError {
    /// Somebody else has the handle.
    #[error("the handle is taken; choose another")]
    HandleTaken,
    /// The account id or one of its device ids exists with other keys.
    #[error("the account or device id exists; draw new random ids")]
    IdTaken,
    /// The engine could not tell.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a device list was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum PutDeviceListError {
    /// Its version is not one above the stored one.
    #[error("device list version does not follow the stored version {current}")]
    Version {
        /// The stored version.
        current: u64,
    },
    /// Its version follows, but it was made from another list than the stored one.
    #[error("previous is not the hash of the stored list, version {current}; fetch it and make the change again")]
    Previous {
        /// The stored version.
        current: u64,
    },
    /// It names a device id that belongs to another account, or did once: ids are never reused.
    #[error("a device of the list belongs to another account; draw a new random device id and sign again")]
    IdTaken,
    /// It names a device that an earlier list had and a later one left out.
    #[error("a device of the list was removed before; give the device new keys and a new random id and sign again")]
    Removed,
    /// No such account.
    #[error("no such account")]
    UnknownAccount,
    /// The engine could not tell.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A key package handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedKeyPackage {
    /// The MLS KeyPackage (RFC 9420 section 10).
    pub key_package: Bytes,
    /// It is the last-resort package, which is handed out again.
    pub last_resort: bool,
    /// How many single-use packages are left.
    pub left: u32,
}

/// What a device has published.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyPackageStock {
    /// Single-use packages left.
    pub left: u32,
    /// The last-resort package, where there is one: whoever counts it looks whether it has expired.
    pub last_resort: Option<Bytes>,
}

/// A device that a list left out, until its removal is carried out everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Removal {
    /// Whose it was.
    pub account: AccountId,
    /// The version of the list that left it out.
    pub version: u64,
    /// The device.
    pub device: DeviceId,
}

/// Accounts and their keys. All writes are durable on `Ok`.
#[async_trait]
pub trait Accounts: Send + Sync + 'static {
    /// Creates the account, claims its handle and stores its device list, all or nothing as far as readers can see.
    /// Idempotent for the same account id, handle and identity key.
    async fn create(&self, account: NewAccount) -> Result<(), CreateAccountError>;

    /// The account, or none.
    async fn account(&self, account: AccountId) -> Result<Option<AccountRecord>, StoreError>;

    /// The account that holds exactly this handle, or none.
    async fn by_handle(&self, handle: &Handle) -> Result<Option<AccountRecord>, StoreError>;

    /// Puts `list` behind the newest one: its version must be that one's + 1, `previous` that one's hash, and none of its
    /// devices another account's or one that a list left out before; else nothing changes for readers. Of lists that race
    /// for a version one wins. Answers the devices that it leaves out; their key packages are deleted, and each is one of
    /// [`Self::removals`] from the moment that the list is stored, whatever dies then.
    ///
    /// Durable and seen by every later read on `Ok`. Idempotent: the newest list again, same bytes, is `Ok` with the same
    /// answer. After `Retry::Later`, or when the future was dropped, it may be stored or not; the same call again tells.
    /// Of a chain the newest [`pli_domain::limits::DEVICE_LISTS_KEPT`] lists are kept.
    async fn put_device_list(
        &self,
        account: AccountId,
        previous: ListHash,
        list: DeviceListRecord,
    ) -> Result<Vec<DeviceId>, PutDeviceListError>;

    /// Lists of the account's chain above version `after`, in order, at most `max`; none of an account that is not
    /// there. Lists before the oldest kept one are left out. Sees every list whose put was acknowledged before.
    async fn device_lists(
        &self,
        account: AccountId,
        after: u64,
        max: usize,
    ) -> Result<Vec<DeviceListRecord>, StoreError>;

    /// Removals that were not called done, after `after`, in an order of the engine's own; at most `max`, and fewer only
    /// where there are no more. Sees every list whose put was acknowledged before.
    async fn removals(&self, after: Option<Removal>, max: usize) -> Result<Vec<Removal>, StoreError>;

    /// The removal was carried out: what is left of the device here goes, and it is no longer one of [`Self::removals`].
    /// Durable on `Ok`. Idempotent.
    async fn finish_removal(&self, removal: Removal) -> Result<(), StoreError>;

    /// The account whose lists have or had this device; none where no list ever named it. Where the account's oldest
    /// lists are not kept any more, one that a list was to name whose put is under way or was refused may be answered too.
    async fn device_account(&self, device: DeviceId) -> Result<Option<AccountId>, StoreError>;

    /// Adds single-use key packages, at most [`pli_domain::limits::KEY_PACKAGES_MAX`], and sets the last-resort package
    /// where given. A package that was stored before is not stored twice. Where the stock would have more than that bound,
    /// packages of before give way to the new ones. Answers the stock after it. Puts of one device that race may leave
    /// more for a while.
    async fn put_key_packages(
        &self,
        device: DeviceId,
        single_use: Vec<Bytes>,
        last_resort: Option<Bytes>,
    ) -> Result<KeyPackageStock, StoreError>;

    /// Hands out one package: a single-use one, which no other call ever gets, else the last-resort one, else none.
    /// After an unknown outcome a package may be spent without having been handed out.
    async fn claim_key_package(&self, device: DeviceId) -> Result<Option<ClaimedKeyPackage>, StoreError>;

    /// What the device has published. Hands nothing out and writes nothing, so that a store without room answers too.
    async fn key_package_stock(&self, device: DeviceId) -> Result<KeyPackageStock, StoreError>;
}
