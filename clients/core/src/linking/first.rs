// SPDX-License-Identifier: MIT OR Apache-2.0
//! The account's first device: it reads the code, asks its person, and lists the new device.

use std::fmt;

use bytes::Bytes;
use ed25519_dalek::{Signature, VerifyingKey};
use pli_api::directory::SignedDeviceList;
use pli_domain::{DeviceAddress, DeviceId};
use prost::Message as _;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use zeroize::Zeroizing;

use super::code::LinkCode;
use super::keys::{Keys, Transcript, seal_to};
use super::new_device::consent_bytes;
use super::wire::{LinkConsent, LinkHello, LinkOffer, LinkRefusal, LinkSealed, LinkStored, LinkVerdict};
use super::{LinkError, WITHDRAWN, device_name};
use crate::Core;
use crate::archive::HistorySecret;
use crate::core::LinkAccount;

/// Why the first device does not list the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its person said no.
    Declined,
    /// The account's list is full.
    TooManyDevices,
    /// The server did not take the list, or something else failed there.
    Failed,
    /// Another device of the account is called so; nobody was asked.
    NameTaken,
    /// The program there ended before its person answered.
    Ended,
}

impl Refusal {
    pub(super) const fn read(refusal: LinkRefusal) -> Self {
        match refusal {
            LinkRefusal::Declined => Self::Declined,
            LinkRefusal::TooManyDevices => Self::TooManyDevices,
            LinkRefusal::Server | LinkRefusal::Unspecified => Self::Failed,
            LinkRefusal::NameTaken => Self::NameTaken,
            LinkRefusal::Ended => Self::Ended,
        }
    }
    const fn write(self) -> LinkRefusal {
        match self {
            Self::Declined => LinkRefusal::Declined,
            Self::TooManyDevices => LinkRefusal::TooManyDevices,
            Self::Failed => LinkRefusal::Server,
            Self::NameTaken => LinkRefusal::NameTaken,
            Self::Ended => LinkRefusal::Ended,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Declined => "its user said no",
            Self::TooManyDevices => "the account has as many devices as it may have; remove one there first",
            Self::Failed => "the new device list was not taken; see what it says",
            Self::NameTaken => "another device of the account is called like this one; begin again under another name",
            Self::Ended => "its program ended before anybody there answered; begin again with a new code",
        })
    }
}

/// A first device that has read a code and waits for blob 1.
#[derive(Debug)]
pub struct Approver {
    code: LinkCode,
    account: LinkAccount,
}

impl Approver {
    /// With the code that was read; `hosts` are the addresses of this profile's server. Errors where the code is for another
    /// server, where this is not the account's first device, and before its list is known. Where the list is full there is
    /// nothing to ask anybody ([`Approver::refusal`]).
    pub fn begin(code: LinkCode, core: &Core, hosts: &[String]) -> Result<Self, LinkError> {
        code.for_one_of(hosts)?;
        Ok(Self { code, account: core.link_account()? })
    }

    /// Why no device can be added, whatever the people say.
    pub fn refusal(&self) -> Option<Refusal> {
        self.account.is_full.then_some(Refusal::TooManyDevices)
    }

    /// Where the new device waits.
    pub const fn code(&self) -> &LinkCode {
        &self.code
    }

    /// Takes blob 1. Ask the person whether the device is to be added. `seed` must come from the system's random source and
    /// be used once.
    pub fn greeted(self, blob: &[u8], seed: [u8; 32]) -> Result<Approving, LinkError> {
        let (keys, mut transcript) = (Keys::of_code(&self.code.seed), Transcript::of(&self.code));
        let hello = keys.open(1, &mut transcript, blob)?;
        let hello = LinkHello::decode(hello.as_slice()).map_err(|_| LinkError::Malformed(1))?;
        if !self.code.names(&hello.ephemeral_key) {
            return Err(LinkError::OtherKey);
        }
        let name = device_name(&hello.name).map_err(LinkError::Name)?.to_owned();
        if name != hello.name {
            return Err(LinkError::Malformed(1));
        }
        let mut session = Zeroizing::new([0; 32]);
        ChaCha20Rng::from_seed(seed).fill_bytes(session.as_mut_slice());
        let offer = LinkOffer {
            account: Bytes::copy_from_slice(self.account.account.as_bytes()),
            handle: self.account.handle.to_string(),
            identity_key: Bytes::copy_from_slice(&self.account.identity_key),
            devices: Some(self.account.list.clone()),
            session_secret: Bytes::copy_from_slice(session.as_slice()),
            cipher_suite: self.account.suite.stored(),
        };
        let plain = Zeroizing::new(offer.encode_to_vec());
        let (kem_output, ciphertext) = seal_to(&hello.ephemeral_key, &transcript, &plain)?;
        let sealed = LinkSealed { kem_output: kem_output.into(), ciphertext: ciphertext.into() };
        let blob = keys.seal(2, &mut transcript, &sealed.encode_to_vec());
        let keys = Keys::of_session(&transcript, &self.code.seed, session.as_slice());
        Ok(Approving { account: self.account, name, keys, transcript, blob })
    }
}

/// It has answered, and a person is asked. Blob 3 may come before or after the person's answer, and blob 4 before it where
/// the answer is no.
pub struct Approving {
    account: LinkAccount,
    name: String,
    keys: Keys,
    transcript: Transcript,
    blob: Vec<u8>,
}

impl fmt::Debug for Approving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Approving({:?})", self.name)
    }
}

impl Approving {
    /// Blob 2.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }
    /// What the new device is called.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Six digits that the new device shows too.
    pub fn number(&self) -> String {
        self.keys.number()
    }

    /// Whether blob 3 says that the person at the new device said no. It is not taken up.
    pub fn is_declined(&self, blob: &[u8]) -> Result<bool, LinkError> {
        let consent = opened(&self.keys, &mut self.transcript.clone(), blob)?;
        Ok(LinkConsent::decode(consent.as_slice()).map_err(|_| LinkError::Malformed(3))?.declined)
    }

    /// The person said no, or would have nothing to say yes to: blob 4 without waiting for blob 3.
    pub fn refused(mut self, why: Refusal) -> Vec<u8> {
        refusal(&self.keys, &mut self.transcript, why)
    }

    /// Takes blob 3, and the person's yes; `core` is this device's.
    pub fn consented(mut self, blob: &[u8], core: &Core) -> Result<Newcomer, LinkError> {
        let said = self.transcript.clone();
        let consent = opened(&self.keys, &mut self.transcript, blob)?;
        let consent = LinkConsent::decode(consent.as_slice()).map_err(|_| LinkError::Malformed(3))?;
        if consent.declined {
            return Err(LinkError::Declined);
        }
        let malformed = |_| LinkError::Malformed(3);
        let device = DeviceId::try_from(consent.device.as_ref()).map_err(|_| LinkError::Malformed(3))?;
        let key: [u8; 32] = consent.key.as_ref().try_into().map_err(malformed)?;
        let address = DeviceAddress { account: self.account.account, device };
        let verifying = VerifyingKey::from_bytes(&key).map_err(|_| LinkError::Malformed(3))?;
        let signature = Signature::from_slice(&consent.signature).map_err(|_| LinkError::Signature)?;
        let signed = consent_bytes(&said, address, &key, &consent.last_resort);
        verifying.verify_strict(&signed, &signature).map_err(|_| LinkError::Signature)?;
        if !core.takes_package(address, &key, &consent.last_resort) {
            return Err(LinkError::KeyPackage);
        }
        Ok(Newcomer { device, key, name: self.name, keys: self.keys, transcript: self.transcript })
    }
}

/// A new device that is to be listed ([`crate::Command::AddDevice`]).
pub struct Newcomer {
    device: DeviceId,
    key: [u8; 32],
    name: String,
    keys: Keys,
    transcript: Transcript,
}

impl fmt::Debug for Newcomer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Newcomer({:?})", self.device)
    }
}

impl Newcomer {
    /// Its id.
    pub const fn device(&self) -> DeviceId {
        self.device
    }
    /// Its public key.
    pub const fn key(&self) -> [u8; 32] {
        self.key
    }
    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What both devices keep for archives of the history: durable before the device is listed.
    pub fn history_secret(&self) -> HistorySecret {
        self.keys.history()
    }

    /// Blob 4: the directory has this list, which names it.
    pub fn listed(mut self, list: SignedDeviceList) -> (Vec<u8>, Told) {
        let verdict = LinkVerdict { devices: Some(list), refusal: 0 };
        let blob = self.keys.seal(4, &mut self.transcript, &verdict.encode_to_vec());
        (blob, Told { device: self.device, keys: self.keys, transcript: self.transcript })
    }

    /// Blob 4: it is not listed.
    pub fn refused(mut self, why: Refusal) -> Vec<u8> {
        refusal(&self.keys, &mut self.transcript, why)
    }
}

/// Blob 4 that says no. A link has one blob 4, so its key seals one text, whether that stands before blob 3 or behind it.
/// What blob 3 says, if there is one.
fn opened(keys: &Keys, transcript: &mut Transcript, blob: &[u8]) -> Result<Vec<u8>, LinkError> {
    if blob == WITHDRAWN { Err(LinkError::Withdrawn) } else { keys.open(3, transcript, blob) }
}

fn refusal(keys: &Keys, transcript: &mut Transcript, why: Refusal) -> Vec<u8> {
    let verdict = LinkVerdict { devices: None, refusal: why.write().into() };
    keys.seal(4, transcript, &verdict.encode_to_vec())
}

/// A new device that is listed and told so.
pub struct Told {
    device: DeviceId,
    keys: Keys,
    transcript: Transcript,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Told({:?})", self.device)
    }
}

impl Told {
    /// Takes blob 5: it is durable there.
    pub fn stored(mut self, blob: &[u8]) -> Result<(), LinkError> {
        let stored = self.keys.open(5, &mut self.transcript, blob)?;
        LinkStored::decode(stored.as_slice()).map_err(|_| LinkError::Malformed(5))?;
        Ok(())
    }
}
