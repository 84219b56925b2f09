// SPDX-License-Identifier: MIT OR Apache-2.0
//! Key packages: what others need to add this device while it is away.

use std::collections::BTreeSet;

use openmls::prelude::tls_codec::{Deserialize as _, DeserializeBytes as _};
use openmls::prelude::{
    ExtensionType, KeyPackage, KeyPackageBundle, KeyPackageIn, Lifetime, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut,
    ProtocolVersion,
};
use pli_domain::DeviceAddress;
use pli_domain::limits::KEY_PACKAGES_MAX;

use super::{Mls, MlsError, device_of, refused};

const DAY_S: u64 = 24 * 3600;
/// A package counts from before it is made on: clocks of those who check it may be behind.
const NOT_BEFORE_S: u64 = 3 * DAY_S;
/// And for so long: with what lies before, the 84 days that a leaf may live.
const LIFE_S: u64 = 81 * DAY_S;
/// A welcome may use a package until it expires, and wait in a queue for so long.
const KEPT_S: u64 = 30 * DAY_S;

/// The private keys of so many are kept, the newest: of four publications, each with its package of last resort. However
/// often a directory asks for more, what is stored here has a bound.
pub(super) const PACKAGES_MAX: usize = 4 * (KEY_PACKAGES_MAX + 1);

/// How the store's keys of key packages begin (the label of openmls_memory_storage).
pub(super) const KEY_PACKAGES: &[u8] = b"KeyPackage";

/// The system's time, as openmls reads it where it checks lifetimes.
pub(super) fn seconds() -> u64 {
    Lifetime::new(0).not_after()
}

impl Mls {
    /// Deletes the private keys of packages that no welcome at `now` (seconds since 1970) can use any more, and of the
    /// oldest where there are more than `kept`.
    pub(super) fn forget_packages(&mut self, now: u64, kept: usize) {
        let until = |value: &[u8]| {
            let bundle = serde_json::from_slice::<KeyPackageBundle>(value).ok()?;
            Some(bundle.key_package().life_time().not_after())
        };
        let mut newest: Vec<(u64, Vec<u8>)> =
            self.account.map(KEY_PACKAGES, |key, value| Some((until(value)?, key.to_vec())));
        newest.sort_unstable_by(|one, other| other.cmp(one));
        let over = newest.into_iter().enumerate();
        let over = over.filter(|(place, (until, _))| *place >= kept || until.saturating_add(KEPT_S) < now);
        self.account.forget(&over.map(|(_, (_, key))| key).collect());
    }

    /// Makes room for the private keys of a publication. To be called before any of its packages is made: one that is
    /// made under a clock that was set back is not newer than those that are there, and must not give way to them.
    pub(crate) fn make_room_for_packages(&mut self) {
        self.forget_packages(seconds(), PACKAGES_MAX - (KEY_PACKAGES_MAX + 1));
    }

    /// Deletes the private keys of packages that nobody can have, as the directory refused them. Those of packages that
    /// expired meanwhile stay for a while, as of any that expired: an earlier answer about them may have been lost. They
    /// are the oldest, which keep no other from being kept.
    pub(crate) fn forget_refused(&mut self, packages: &[&[u8]]) {
        let packages: BTreeSet<&[u8]> = packages.iter().copied().collect();
        let now = seconds();
        let refused = |value: &[u8]| {
            let package = serde_json::from_slice::<KeyPackageBundle>(value).ok()?.key_package().clone();
            let is_valid = package.life_time().not_after() > now;
            let bytes = MlsMessageOut::from(package).to_bytes().ok()?;
            (is_valid && packages.contains(bytes.as_slice())).then_some(())
        };
        let refused = self.account.map(KEY_PACKAGES, |key, value| refused(value).map(|()| key.to_vec()));
        self.account.forget(&refused.into_iter().collect());
    }

    /// Makes single-use key packages, as MLSMessages; their private keys are in the next changes, which must be
    /// committed before the packages leave.
    pub fn key_packages(&mut self, count: usize) -> Result<Vec<Vec<u8>>, MlsError> {
        (0..count).map(|_| self.key_package(false)).collect()
    }

    /// Makes a package that is handed out when nothing else is left and may be used more than once.
    pub fn last_resort(&mut self) -> Result<Vec<u8>, MlsError> {
        self.key_package(true)
    }

    fn key_package(&mut self, last_resort: bool) -> Result<Vec<u8>, MlsError> {
        let mut builder = KeyPackage::builder();
        // The leaf must name every extension that its package carries (RFC 9420 section 7.2).
        let extensions: &[ExtensionType] = if last_resort { &[ExtensionType::LastResort] } else { &[] };
        if last_resort {
            builder = builder.mark_as_last_resort();
        }
        builder = builder.leaf_node_capabilities(self.suite.capabilities(extensions));
        let bundle = builder
            .key_package_lifetime(Lifetime::init(seconds().saturating_sub(NOT_BEFORE_S), seconds() + LIFE_S))
            .build(self.suite.ciphersuite(), &self.provider.on(&self.account), &self.signer, self.credential.clone())
            .map_err(refused("making a key package"))?;
        MlsMessageOut::from(bundle.into_key_package()).to_bytes().map_err(refused("encoding a key package"))
    }

    /// Errors with why a package is not one of exactly this device under this key, for groups of this device's suite.
    pub(crate) fn check_package(&self, device: DeviceAddress, key: &[u8], bytes: &[u8]) -> Result<(), MlsError> {
        self.checked_package(device, key, bytes).map(drop)
    }

    /// Whether a package is one of exactly this device under this key, for groups of this device's suite.
    pub(crate) fn takes(&self, device: DeviceAddress, key: &[u8], bytes: &[u8]) -> bool {
        self.checked_package(device, key, bytes).is_ok()
    }

    /// A package of exactly this device under this key, verified; an MLSMessage, or a bare KeyPackage.
    pub(super) fn checked_package(
        &self,
        device: DeviceAddress,
        key: &[u8],
        bytes: &[u8],
    ) -> Result<KeyPackage, MlsError> {
        let package = match MlsMessageIn::tls_deserialize_exact_bytes(bytes).map(MlsMessageIn::extract) {
            Ok(MlsMessageBodyIn::KeyPackage(package)) => package,
            _ => KeyPackageIn::tls_deserialize(&mut &*bytes).map_err(|_| MlsError::Decode("a key package"))?,
        };
        let package = package
            .validate(self.provider.crypto(), ProtocolVersion::Mls10)
            .map_err(refused("checking a key package"))?;
        if package.ciphersuite() != self.suite.ciphersuite() {
            let theirs = format!("0x{:04x}", u16::from(package.ciphersuite()));
            return Err(MlsError::Suite { theirs, ours: self.suite });
        }
        let leaf = package.leaf_node();
        let right = device_of(leaf.credential()) == Some(device) && leaf.signature_key().as_slice() == key;
        if right { Ok(package) } else { Err(MlsError::KeyPackage) }
    }
}
