// SPDX-License-Identifier: MIT OR Apache-2.0
//! What makes a key package fit to be handed out.

use bytes::Bytes;
use openmls::prelude::{
    BasicCredential, DeserializeBytes, KeyPackage, KeyPackageVerifyError, MlsMessageBodyIn, MlsMessageIn,
    OpenMlsCrypto, ProtocolVersion,
};
use pli_domain::DeviceAddress;
use pli_domain::limits::{CIPHER_SUITE_POST_QUANTUM, CIPHER_SUITES};

/// Why a key package is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidKeyPackage {
    #[error("not an MLSMessage with a KeyPackage (RFC 9420 section 6)")]
    Encoding,
    #[error("not valid: {0}")]
    Verify(#[from] KeyPackageVerifyError),
    #[error("its suite is not allowed; use 0x0001 or 0x0003, or 0x004f where the server has directory.post_quantum")]
    Suite,
    #[error("it lives longer than a leaf may; use at most three months")]
    Lifetime,
    #[error("its credential must be basic with the identity account id, device id")]
    Credential,
    #[error("its signature key is not the device's key in the device list")]
    Key,
    #[error("a last-resort package carries the last_resort extension, a single-use one does not")]
    Kind,
}

/// The device that a key package must belong to.
pub(crate) struct Holder {
    pub address: DeviceAddress,
    pub key: [u8; 32],
    /// Packages of suite 0x004F are taken.
    pub post_quantum: bool,
}

/// Whether a package may be handed out more than once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    SingleUse,
    LastResort,
}

/// Checks everything that a peer will check, so that nobody claims a package in vain.
pub(crate) fn verify(
    crypto: &impl OpenMlsCrypto,
    bytes: &Bytes,
    holder: &Holder,
    kind: Kind,
) -> Result<(), InvalidKeyPackage> {
    let package = parse(crypto, bytes)?;
    let suite = u16::from(package.ciphersuite());
    if !(CIPHER_SUITES.contains(&suite) || holder.post_quantum && suite == CIPHER_SUITE_POST_QUANTUM) {
        return Err(InvalidKeyPackage::Suite);
    }
    if !package.life_time().has_acceptable_range() {
        return Err(InvalidKeyPackage::Lifetime);
    }
    let leaf = package.leaf_node();
    let identity = [holder.address.account.as_bytes().as_slice(), holder.address.device.as_bytes()].concat();
    let credential = BasicCredential::try_from(leaf.credential().clone()).map_err(|_| InvalidKeyPackage::Credential)?;
    if credential.identity() != identity {
        return Err(InvalidKeyPackage::Credential);
    }
    if leaf.signature_key().as_slice() != holder.key {
        return Err(InvalidKeyPackage::Key);
    }
    if package.last_resort() != (kind == Kind::LastResort) {
        return Err(InvalidKeyPackage::Kind);
    }
    Ok(())
}

/// Whether a stored package still verifies: what can change since it was published is its lifetime.
pub(crate) fn still_valid(crypto: &impl OpenMlsCrypto, bytes: &Bytes) -> bool {
    parse(crypto, bytes).is_ok()
}

fn parse(crypto: &impl OpenMlsCrypto, bytes: &Bytes) -> Result<KeyPackage, InvalidKeyPackage> {
    let message = MlsMessageIn::tls_deserialize_exact_bytes(bytes).map_err(|_| InvalidKeyPackage::Encoding)?;
    let MlsMessageBodyIn::KeyPackage(package) = message.extract() else { return Err(InvalidKeyPackage::Encoding) };
    Ok(package.validate(crypto, ProtocolVersion::Mls10)?)
}
