// SPDX-License-Identifier: MIT OR Apache-2.0
//! The exact bytes that devices and accounts sign.

use crate::{AccountId, DeviceAddress, DeviceId};

/// Label of the TLS exporter that binds an authentication to its connection (RFC 8446 section 7.5); no context, 32
/// bytes.
pub const TLS_EXPORTER_LABEL: &[u8] = b"EXPORTER-pli-auth-1";

fn append(out: &mut Vec<u8>, part: &[u8]) {
    // Parts are bounded by the frame they travel in, far below 4 GiB.
    out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(part);
}

/// What a device signs to authenticate: "pli-auth-1", host, account, device, nonce and channel binding, each prefixed
/// with its length as a big-endian 32-bit number.
pub fn authentication(host: &str, account: AccountId, device: DeviceId, nonce: &[u8], binding: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(160 + host.len());
    for part in [b"pli-auth-1".as_slice(), host.as_bytes(), account.as_bytes(), device.as_bytes(), nonce, binding] {
        append(&mut out, part);
    }
    out
}

/// What an identity key signs over an encoded device list: "pli-devices-1" and the list, each prefixed with its
/// length.
pub fn device_list(list: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + list.len());
    append(&mut out, b"pli-devices-1");
    append(&mut out, list);
    out
}

/// What a new device signs to be listed: "pli-link-1", the transcript of the link so far, account, device, the device's
/// key and SHA-256 of its key package of last resort, each prefixed with its length.
pub fn link(said: &[u8; 32], device: DeviceAddress, key: &[u8; 32], package_sha256: &[u8; 32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(192);
    let (account, device) = (device.account, device.device);
    for part in [b"pli-link-1".as_slice(), said, account.as_bytes(), device.as_bytes(), key, package_sha256] {
        append(&mut out, part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        let (account, device) = (AccountId::from_bytes([1; 16]), DeviceId::from_bytes([2; 16]));
        let one = authentication("ab", account, device, b"c", b"d");
        let other = authentication("a", account, device, b"bc", b"d");
        assert_ne!(one, other);
        assert_eq!(&one[..14], b"\x00\x00\x00\x0apli-auth-1");
    }
}
