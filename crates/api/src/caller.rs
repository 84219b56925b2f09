// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who calls, as the edge authenticated it. Only edges may set this metadata.

use std::net::IpAddr;

use pli_domain::{AccountId, DeviceAddress, DeviceId};
use tonic::Request;
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::ErrorCode;
use crate::common::Error;

const ACCOUNT: &str = "pli-account-bin";
const DEVICE: &str = "pli-device-bin";
const ADDRESS: &str = "pli-address";

/// The caller of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caller {
    /// Absent on an anonymous session.
    pub device: Option<DeviceAddress>,
    /// Where the connection comes from, for limits by address.
    pub address: Option<IpAddr>,
}

impl Caller {
    /// Writes the caller into a request's metadata.
    pub fn put(&self, metadata: &mut MetadataMap) {
        if let Some(device) = self.device {
            metadata.insert_bin(ACCOUNT, MetadataValue::from_bytes(device.account.as_bytes()));
            metadata.insert_bin(DEVICE, MetadataValue::from_bytes(device.device.as_bytes()));
        }
        if let Some(Ok(address)) = self.address.map(|a| a.to_string().parse()) {
            metadata.insert(ADDRESS, address);
        }
    }

    /// Reads the caller from a request's metadata; what is absent or malformed reads as anonymous.
    pub fn of(metadata: &MetadataMap) -> Self {
        let bytes = |key| metadata.get_bin(key).and_then(|v| v.to_bytes().ok());
        let device = || {
            let account = AccountId::try_from(bytes(ACCOUNT)?.as_ref()).ok()?;
            let device = DeviceId::try_from(bytes(DEVICE)?.as_ref()).ok()?;
            Some(DeviceAddress { account, device })
        };
        let address = metadata.get(ADDRESS).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        Self { device: device(), address }
    }

    /// Whether a request names a caller at all.
    pub fn is_named(headers: &http::HeaderMap) -> bool {
        [ACCOUNT, DEVICE, ADDRESS].iter().any(|key| headers.contains_key(*key))
    }

    /// The caller of a request, and its message.
    pub fn split<T>(request: Request<T>) -> (Self, T) {
        (Self::of(request.metadata()), request.into_inner())
    }

    /// The calling device, or the refusal for a method that needs one.
    pub fn authenticated(&self) -> Result<DeviceAddress, Error> {
        self.device.ok_or_else(|| crate::refusal(ErrorCode::Anonymous, "authenticate before calling this method"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_survives_metadata() {
        let caller = Caller {
            device: Some(DeviceAddress {
                account: AccountId::from_bytes([1; 16]),
                device: DeviceId::from_bytes([2; 16]),
            }),
            address: Some([127, 0, 0, 1].into()),
        };
        let mut metadata = MetadataMap::new();
        caller.put(&mut metadata);
        assert_eq!(Caller::of(&metadata), caller);
        assert!(Caller::is_named(&metadata.clone().into_headers()));
        assert!(!Caller::is_named(&http::HeaderMap::new()));
        let mut request = Request::new(7);
        *request.metadata_mut() = metadata;
        assert_eq!(Caller::split(request), (caller, 7));
        assert!(Caller::of(&MetadataMap::new()).authenticated().is_err());
    }
}
