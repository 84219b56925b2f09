// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who this device is: account, device and their keys.
//!
//! The account identity key signs device lists; the device key authenticates sessions and signs MLS leaves. Both are
//! Ed25519. The first device holds both; the others hold their device key alone, and sign no list.

mod lists;

use std::fmt;

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use pli_api::directory::{DeviceList, DeviceListEntry, SignedDeviceList};
use pli_domain::{AccountId, DeviceAddress, DeviceId, Handle, transcript};
use prost::Message as _;
use rand_chacha::rand_core::RngCore;
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

use crate::mls::Suite;
pub(crate) use lists::list_version;
pub use lists::{DeviceListError, VerifiedDevices, follow_lists, list_hash, verify_devices};

/// A stored identity that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the stored identity is damaged: {0}")]
pub struct IdentityError(&'static str);

/// A change of this account's device list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListChange {
    /// Name another device.
    Add(DeviceListEntry),
    /// Leave a device out.
    Remove(DeviceId),
    /// Call a device otherwise.
    Rename(DeviceId, String),
    /// Name the same devices in a version above this one, so that everybody sees that this device is still one of them.
    Keep(DeviceId, u64),
}

/// This device's secrets and names. Its debug form shows no key.
pub struct Identity {
    account: AccountId,
    device: DeviceId,
    handle: Handle,
    identity_key: IdentityKey,
    device_key: SigningKey,
    /// The directory has it.
    pub registered: bool,
    suite: Suite,
}

/// The first device has the secret.
enum IdentityKey {
    Own(SigningKey),
    Public(VerifyingKey),
}

impl IdentityKey {
    fn public(&self) -> [u8; 32] {
        match self {
            Self::Own(key) => key.verifying_key().to_bytes(),
            Self::Public(key) => key.to_bytes(),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?}, {:?}, {:?}, registered: {})", self.handle, self.account, self.device, self.registered)
    }
}

/// Numbers are never reused.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(bytes = "vec", tag = "1")]
    account: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    device: Vec<u8>,
    #[prost(string, tag = "3")]
    handle: String,
    #[prost(bytes = "vec", tag = "4")]
    identity_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    device_key: Vec<u8>,
    #[prost(bool, tag = "6")]
    registered: bool,
    /// Instead of `identity_key` where this device does not have the secret.
    #[prost(bytes = "vec", tag = "7")]
    identity_public: Vec<u8>,
    /// Left out where it is the default.
    #[prost(uint32, tag = "8")]
    suite: u32,
}

fn random<const N: usize>(rng: &mut impl RngCore) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

impl Identity {
    /// A new account with its first device.
    pub fn create(handle: Handle, rng: &mut impl RngCore) -> Self {
        Self {
            account: AccountId::from_bytes(random(rng)),
            device: DeviceId::from_bytes(random(rng)),
            handle,
            identity_key: IdentityKey::Own(SigningKey::from_bytes(&Zeroizing::new(random(rng)))),
            device_key: SigningKey::from_bytes(&Zeroizing::new(random(rng))),
            registered: false,
            suite: Suite::default(),
        }
    }

    /// Another device of an account that its first device signs into the list. Errors when the key is none.
    pub fn companion(
        account: AccountId,
        handle: Handle,
        identity_key: [u8; 32],
        rng: &mut impl RngCore,
    ) -> Result<Self, IdentityError> {
        let key = VerifyingKey::from_bytes(&identity_key).map_err(|_| IdentityError("identity key"))?;
        Ok(Self {
            account,
            device: DeviceId::from_bytes(random(rng)),
            handle,
            identity_key: IdentityKey::Public(key),
            device_key: SigningKey::from_bytes(&Zeroizing::new(random(rng))),
            registered: true,
            suite: Suite::default(),
        })
    }

    /// Its stored form; holds secrets.
    pub fn encode(&self) -> Vec<u8> {
        Record {
            account: self.account.as_bytes().to_vec(),
            device: self.device.as_bytes().to_vec(),
            handle: self.handle.to_string(),
            identity_key: match &self.identity_key {
                IdentityKey::Own(key) => key.to_bytes().to_vec(),
                IdentityKey::Public(_) => Vec::new(),
            },
            identity_public: match &self.identity_key {
                IdentityKey::Own(_) => Vec::new(),
                IdentityKey::Public(key) => key.to_bytes().to_vec(),
            },
            device_key: self.device_key.to_bytes().to_vec(),
            registered: self.registered,
            suite: self.suite.stored(),
        }
        .encode_to_vec()
    }

    /// From its stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let record = Record::decode(bytes).map_err(|_| IdentityError("not a record"))?;
        let public = |bytes: &[u8]| {
            let bytes = bytes.try_into().map_err(|_| IdentityError("identity key"))?;
            VerifyingKey::from_bytes(&bytes).map_err(|_| IdentityError("identity key"))
        };
        let key = |bytes: &[u8]| bytes.try_into().map(|b| SigningKey::from_bytes(&b)).map_err(|_| IdentityError("key"));
        Ok(Self {
            account: record.account.as_slice().try_into().map_err(|_| IdentityError("account"))?,
            device: record.device.as_slice().try_into().map_err(|_| IdentityError("device"))?,
            handle: record.handle.parse().map_err(|_| IdentityError("handle"))?,
            identity_key: match record.identity_public.as_slice() {
                [] => IdentityKey::Own(key(&record.identity_key)?),
                bytes => IdentityKey::Public(public(bytes)?),
            },
            device_key: key(&record.device_key)?,
            registered: record.registered,
            suite: Suite::from_stored(record.suite).map_err(|_| IdentityError("suite"))?,
        })
    }

    /// The same with another suite; for a device that has made nothing yet.
    pub fn of_suite(self, suite: Suite) -> Self {
        Self { suite, ..self }
    }
    /// The same in place.
    pub(crate) const fn set_suite(&mut self, suite: Suite) {
        self.suite = suite;
    }
    /// The suite of its key packages and conversations.
    pub const fn suite(&self) -> Suite {
        self.suite
    }
    /// Account and device.
    pub fn address(&self) -> DeviceAddress {
        DeviceAddress { account: self.account, device: self.device }
    }
    /// The handle.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
    #[cfg(test)]
    pub(crate) fn call_itself(&mut self, handle: Handle) {
        self.handle = handle;
    }
    /// The public identity key.
    pub fn identity_key(&self) -> [u8; 32] {
        self.identity_key.public()
    }
    /// Whether this device signs the account's device lists.
    pub fn signs_lists(&self) -> bool {
        matches!(self.identity_key, IdentityKey::Own(_))
    }
    /// The public device key.
    pub fn device_key(&self) -> [u8; 32] {
        self.device_key.verifying_key().to_bytes()
    }
    /// The device's signing key, for MLS.
    pub(crate) fn signing_key(&self) -> &SigningKey {
        &self.device_key
    }
    /// Signs with the device key.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.device_key.sign(message).to_bytes()
    }

    /// The signature of a hello: see [`transcript::authentication`].
    pub fn authenticate(&self, host: &str, nonce: &[u8], binding: &[u8]) -> [u8; 64] {
        self.sign(&transcript::authentication(host, self.account, self.device, nonce, binding))
    }

    /// The account's first device list; none where another device is the first.
    pub fn device_list(&self) -> Option<SignedDeviceList> {
        let entry = DeviceListEntry {
            device: Bytes::copy_from_slice(self.device.as_bytes()),
            key: Bytes::copy_from_slice(&self.device_key()),
            name: "first device".into(),
        };
        self.sign_list(&DeviceList {
            account: Bytes::copy_from_slice(self.account.as_bytes()),
            version: 1,
            devices: vec![entry],
            identity_key: Bytes::copy_from_slice(&self.identity_key()),
            previous: Bytes::new(),
        })
    }

    /// The list that follows `newest` with this change; none where that changes nothing or this device signs no lists.
    /// The same change of the same list has the same bytes.
    pub fn next_list(&self, newest: &SignedDeviceList, change: &ListChange) -> Option<SignedDeviceList> {
        let mut list = DeviceList::decode(newest.list.as_ref()).ok()?;
        let before = list.devices.clone();
        match change {
            ListChange::Add(entry) if list.devices.iter().all(|known| known.device != entry.device) => {
                list.devices.push(entry.clone());
            }
            ListChange::Add(_) => {}
            ListChange::Remove(device) => list.devices.retain(|known| known.device.as_ref() != device.as_bytes()),
            ListChange::Rename(device, name) => {
                let mut named = list.devices.iter_mut().filter(|known| known.device.as_ref() == device.as_bytes());
                named.by_ref().for_each(|entry| entry.name.clone_from(name));
            }
            ListChange::Keep(..) => {}
        }
        let keeps = |device: &DeviceId| before.iter().any(|known| known.device.as_ref() == device.as_bytes());
        let says_anew = matches!(change, ListChange::Keep(device, above) if keeps(device) && list.version <= *above);
        if list.devices == before && !says_anew {
            return None;
        }
        list.version += 1;
        list.previous = Bytes::copy_from_slice(&list_hash(newest));
        self.sign_list(&list)
    }

    fn sign_list(&self, list: &DeviceList) -> Option<SignedDeviceList> {
        let IdentityKey::Own(key) = &self.identity_key else { return None };
        let list = list.encode_to_vec();
        let signature = key.sign(&transcript::device_list(&list)).to_bytes();
        Some(SignedDeviceList { list: list.into(), signature: Bytes::copy_from_slice(&signature) })
    }
}

/// Iterations of the fingerprint hash: makes a collision in 30 digits costly.
const SAFETY_ITERATIONS: usize = 5_200;

/// 60 digits that two people compare. Each side's 30 digits come from its account id and identity key by SHA-512,
/// iterated 5,200 times (h = SHA-512(h, key), beginning with "pli-safety-1", account and key), six groups of 5 bytes
/// each taken modulo 100,000; the lower half stands first. The shape follows Signal's numeric fingerprint.
pub fn safety_number(one: (AccountId, [u8; 32]), other: (AccountId, [u8; 32])) -> String {
    let mut halves = [half(one), half(other)];
    halves.sort();
    halves.concat()
}

fn half((account, key): (AccountId, [u8; 32])) -> String {
    let mut hash = [b"pli-safety-1".as_slice(), account.as_bytes(), &key].concat();
    for _ in 0..SAFETY_ITERATIONS {
        hash = Sha512::new().chain_update(&hash).chain_update(key).finalize().to_vec();
    }
    let group = |bytes: &[u8]| bytes.iter().fold(0u64, |n, &b| n << 8 | u64::from(b)) % 100_000;
    hash[..30].chunks(5).map(|bytes| format!("{:05}", group(bytes))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    fn identity(seed: u8) -> Identity {
        Identity::create("alice".parse().expect("a handle"), &mut ChaCha20Rng::from_seed([seed; 32]))
    }

    const STORED: &str = concat!(
        "0a10010101010101010101010101010101011210020202020202020202020202020202021a05616c6963652220030303",
        "03030303030303030303030303030303030303030303030303030303032a200404040404040404040404040404040404",
        "0404040404040404040404040404043001",
    );

    #[test]
    fn an_identity_keeps_its_bytes() {
        let stored = hex::decode(STORED).expect("hexadecimal");
        let identity = Identity::decode(&stored).expect("read");
        assert_eq!(
            (identity.account, identity.device),
            (AccountId::from_bytes([1; 16]), DeviceId::from_bytes([2; 16]))
        );
        assert_eq!((identity.handle.as_str(), identity.registered), ("alice", true));
        assert!(matches!(&identity.identity_key, IdentityKey::Own(key) if key.to_bytes() == [3; 32]));
        assert_eq!(identity.device_key.to_bytes(), [4; 32]);
        assert_eq!(hex::encode(identity.encode()), STORED);
        assert!(Identity::decode(&[0xff]).is_err());
    }

    #[test]
    fn an_identity_survives_storage_and_shows_no_key() {
        let one = identity(1);
        let again = Identity::decode(&one.encode()).expect("own record");
        assert_eq!((again.address(), again.device_key()), (one.address(), one.device_key()));
        assert!(!format!("{one:?}").contains(&hex::encode(&one.device_key()[..4])));
    }

    #[test]
    fn a_device_list_verifies_for_its_account_only_and_never_goes_back() {
        let (one, other) = (identity(1), identity(2));
        let list = one.device_list().expect("is the first");
        let verified = verify_devices(&list, one.address().account, None).expect("own list");
        assert_eq!(verified.devices, [(one.address().device, one.device_key())]);
        assert_eq!(verify_devices(&list, other.address().account, None), Err(DeviceListError::OtherAccount));
        let seen = Some((2, one.identity_key()));
        assert_eq!(verify_devices(&list, one.address().account, seen), Err(DeviceListError::Version));
        let mut forged = list.clone();
        forged.signature = other.device_list().expect("is the first").signature;
        assert_eq!(verify_devices(&forged, one.address().account, None), Err(DeviceListError::Signature));
    }

    #[test]
    fn an_identity_without_the_identity_key_keeps_its_bytes_and_signs_no_list() {
        let first = identity(1);
        let mut rng = ChaCha20Rng::from_seed([2; 32]);
        let account = first.address().account;
        let second = Identity::companion(account, first.handle.clone(), first.identity_key(), &mut rng).expect("a key");
        assert!(second.registered && !second.signs_lists() && second.device_list().is_none());
        let again = Identity::decode(&second.encode()).expect("own record");
        assert_eq!((again.address(), again.identity_key()), (second.address(), first.identity_key()));
        let newest = first.device_list().expect("is the first");
        assert_eq!(second.next_list(&newest, &ListChange::Remove(first.address().device)), None);
    }

    fn entry(n: u8) -> DeviceListEntry {
        let key = SigningKey::from_bytes(&[n; 32]).verifying_key().to_bytes();
        DeviceListEntry {
            device: Bytes::copy_from_slice(&[n; 16]),
            key: Bytes::copy_from_slice(&key),
            name: "tablet".into(),
        }
    }

    #[test]
    fn a_chain_is_followed_link_by_link_and_no_other_way() {
        let one = identity(1);
        let account = one.address().account;
        let first = one.device_list().expect("is the first");
        let next = |list: &SignedDeviceList, n| one.next_list(list, &ListChange::Add(entry(n))).expect("a change");
        let second = next(&first, 7);
        let (third, other_second) = (next(&second, 8), next(&first, 9));
        let other_third = next(&other_second, 8);
        let known = verify_devices(&first, account, None).expect("own list");
        let versions = |lists: &[SignedDeviceList]| {
            follow_lists(&known, lists).map(|chain| chain.iter().map(|list| list.version).collect::<Vec<_>>())
        };
        assert_eq!(versions(&[second.clone(), third.clone()]), Ok(vec![2, 3]));
        assert_eq!(versions(std::slice::from_ref(&first)), Ok(vec![]), "the same again");
        assert_eq!(versions(std::slice::from_ref(&third)), Err(DeviceListError::Unlinked));
        assert_eq!(versions(&[second.clone(), other_third]), Err(DeviceListError::Fork));
        assert_eq!(versions(&[second.clone(), other_second]), Err(DeviceListError::Fork), "two of one version");
        assert_eq!(versions(&[second.clone(), first.clone()]), Err(DeviceListError::Version));
        let theirs = Identity { account, ..identity(2) };
        let stolen = theirs.next_list(&first, &ListChange::Add(entry(7)));
        // It names the identity key that did not sign it.
        assert_eq!(versions(&[stolen.expect("signed")]), Err(DeviceListError::Signature));
        let swapped = theirs.device_list().expect("signed");
        assert_eq!(versions(&[swapped]), Err(DeviceListError::IdentityKey));
        assert_eq!(one.next_list(&second, &ListChange::Add(entry(7))), None, "it is there already");
        let back = one.next_list(&second, &ListChange::Remove(DeviceId::from_bytes([7; 16]))).expect("a change");
        assert_eq!(verify_devices(&back, account, None).expect("verifies").devices, known.devices);
        let rename = ListChange::Rename(DeviceId::from_bytes([7; 16]), "slate".into());
        let renamed = one.next_list(&second, &rename).expect("a change");
        assert_eq!(DeviceList::decode(renamed.list.as_ref()).expect("a list").devices[1].name, "slate");
        assert_eq!(one.next_list(&renamed, &rename), None, "it is called so already");
        assert_eq!(one.next_list(&first, &rename), None, "there is no such device");
    }

    #[test]
    fn a_safety_number_is_the_same_on_both_sides_and_has_sixty_digits() {
        let (one, other) = (identity(1), identity(2));
        let a = (one.address().account, one.identity_key());
        let b = (other.address().account, other.identity_key());
        let number = safety_number(a, b);
        assert_eq!(number, safety_number(b, a));
        assert!(number.len() == 60 && number.bytes().all(|b| b.is_ascii_digit()));
        assert_ne!(number, safety_number(a, (b.0, a.1)));
    }
}
