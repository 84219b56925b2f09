// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stands in the blobs: `proto/pli/sealed/v1/link.proto`.

use bytes::Bytes;
use pli_api::directory::SignedDeviceList;

/// Blob 1.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LinkHello {
    #[prost(bytes = "bytes", tag = "1")]
    pub ephemeral_key: Bytes,
    #[prost(string, tag = "2")]
    pub name: String,
}

/// Blob 2.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LinkSealed {
    #[prost(bytes = "bytes", tag = "1")]
    pub kem_output: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub ciphertext: Bytes,
}

/// What blob 2 seals.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LinkOffer {
    #[prost(bytes = "bytes", tag = "1")]
    pub account: Bytes,
    #[prost(string, tag = "2")]
    pub handle: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub identity_key: Bytes,
    #[prost(message, optional, tag = "4")]
    pub devices: Option<SignedDeviceList>,
    #[prost(bytes = "bytes", tag = "5")]
    pub session_secret: Bytes,
    /// Of the account's devices; 0 is the default.
    #[prost(uint32, tag = "6")]
    pub cipher_suite: u32,
}

/// Blob 3.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LinkConsent {
    #[prost(bool, tag = "1")]
    pub declined: bool,
    #[prost(bytes = "bytes", tag = "2")]
    pub device: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub key: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    pub last_resort: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    pub signature: Bytes,
}

/// Blob 4.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LinkVerdict {
    #[prost(message, optional, tag = "1")]
    pub devices: Option<SignedDeviceList>,
    #[prost(enumeration = "LinkRefusal", tag = "2")]
    pub refusal: i32,
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub(super) enum LinkRefusal {
    Unspecified = 0,
    Declined = 1,
    TooManyDevices = 2,
    Server = 3,
    NameTaken = 4,
    Ended = 5,
}

/// Blob 5.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LinkStored {
    #[prost(uint64, tag = "1")]
    pub version: u64,
}
