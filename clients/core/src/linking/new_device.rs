// SPDX-License-Identifier: MIT OR Apache-2.0
//! The new device: it shows a code, and becomes a device of the account of whoever read it.

use bytes::Bytes;
use openmls_traits::types::HpkeKeyPair;
use pli_api::directory::SignedDeviceList;
use pli_domain::{AccountId, DeviceAddress, Handle, UnixMillis, transcript};
use prost::Message as _;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::code::LinkCode;
use super::first::Refusal;
use super::keys::{Keys, Transcript, ephemeral, open_sealed_to};
use super::wire::{LinkConsent, LinkHello, LinkOffer, LinkSealed, LinkStored, LinkVerdict};
use super::{DeviceNameError, LinkError, device_name};
use crate::archive::HistorySecret;
use crate::identity::{VerifiedDevices, verify_devices};
use crate::mls::Suite;
use crate::{ChangeSet, Core};

/// A new device that shows its code and waits for blob 2.
pub struct NewDevice {
    code: LinkCode,
    ephemeral: HpkeKeyPair,
    opener_secret: Zeroizing<[u8; 32]>,
    transcript: Transcript,
    hello: Vec<u8>,
}

impl std::fmt::Debug for NewDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewDevice({:?})", self.code)
    }
}

impl NewDevice {
    /// A device that is to be called `name`, connected to `host` (as [`Core::handshake`] takes it). `seed` must come from
    /// the system's random source and be used once.
    pub fn begin(host: &str, name: &str, seed: [u8; 32]) -> Result<Self, DeviceNameError> {
        let name = device_name(name)?;
        let mut rng = ChaCha20Rng::from_seed(seed);
        let (mut code_seed, mut opener_secret, mut key_seed) =
            ([0; 16], Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
        rng.fill_bytes(&mut code_seed);
        rng.fill_bytes(opener_secret.as_mut_slice());
        rng.fill_bytes(key_seed.as_mut_slice());
        let ephemeral = ephemeral(&key_seed);
        let code = LinkCode::new(code_seed, &ephemeral.public, host);
        let hello = LinkHello { ephemeral_key: Bytes::copy_from_slice(&ephemeral.public), name: name.into() };
        let mut transcript = Transcript::of(&code);
        let hello = Keys::of_code(&code.seed).seal(1, &mut transcript, &hello.encode_to_vec());
        Ok(Self { code, ephemeral, opener_secret, transcript, hello })
    }

    /// What it shows.
    pub fn code(&self) -> &LinkCode {
        &self.code
    }

    #[cfg(test)]
    pub(super) fn ephemeral_public(&self) -> &[u8] {
        &self.ephemeral.public
    }

    #[cfg(test)]
    pub(super) fn ephemeral_private(&self) -> &[u8] {
        &self.ephemeral.private
    }

    /// What it shows at the rendezvous, and nobody else.
    pub fn opener_secret(&self) -> &[u8; 32] {
        &self.opener_secret
    }

    /// Blob 1.
    pub fn hello(&self) -> &[u8] {
        &self.hello
    }

    /// Takes blob 2: which account it would join. Ask the person.
    pub fn offered(self, blob: &[u8]) -> Result<Joining, LinkError> {
        let said = self.transcript.clone();
        let mut transcript = self.transcript;
        let sealed = Keys::of_code(&self.code.seed).open(2, &mut transcript, blob)?;
        let sealed = LinkSealed::decode(sealed.as_slice()).map_err(|_| LinkError::Malformed(2))?;
        let sealed = (sealed.kem_output.to_vec(), sealed.ciphertext.to_vec());
        let offer = open_sealed_to(&self.ephemeral.private, &said, sealed).ok_or(LinkError::Sealed(2))?;
        let offer = LinkOffer::decode(offer.as_slice()).map_err(|_| LinkError::Malformed(2))?;
        let secret = Zeroizing::new(offer.session_secret.to_vec());
        if secret.len() != 32 {
            return Err(LinkError::Malformed(2));
        }
        let keys = Keys::of_session(&transcript, &self.code.seed, &secret);
        let account = AccountId::try_from(offer.account.as_ref()).map_err(|_| LinkError::Malformed(2))?;
        let handle: Handle = offer.handle.parse().map_err(|_| LinkError::Malformed(2))?;
        let identity_key: [u8; 32] = offer.identity_key.as_ref().try_into().map_err(|_| LinkError::Malformed(2))?;
        let suite = Suite::from_stored(offer.cipher_suite).map_err(|_| LinkError::Malformed(2))?;
        let signed = offer.devices.ok_or(LinkError::Malformed(2))?;
        let newest = verify_devices(&signed, account, None).map_err(LinkError::List)?;
        if newest.identity_key != identity_key {
            return Err(LinkError::List(crate::identity::DeviceListError::IdentityKey));
        }
        Ok(Joining { account, handle, suite, newest, signed, keys, transcript })
    }
}

/// It knows which account it would join, and a person is asked.
pub struct Joining {
    account: AccountId,
    handle: Handle,
    suite: Suite,
    newest: VerifiedDevices,
    signed: SignedDeviceList,
    keys: Keys,
    transcript: Transcript,
}

impl std::fmt::Debug for Joining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Joining({:?})", self.handle)
    }
}

impl Joining {
    /// Which account.
    pub const fn account(&self) -> AccountId {
        self.account
    }
    /// What it is called.
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }
    /// Six digits that the first device shows too.
    pub fn number(&self) -> String {
        self.keys.number()
    }

    #[cfg(test)]
    pub(super) fn said(&self) -> Transcript {
        self.transcript.clone()
    }
    #[cfg(test)]
    pub(super) fn session_keys(&self) -> Keys {
        self.keys.clone()
    }

    /// Blob 4 that came while the person is asked: why the first device says no.
    pub fn refused(&self, blob: &[u8]) -> Result<Refusal, LinkError> {
        early_refusal(&self.keys, &self.transcript, blob)
    }

    /// The person said no: blob 3.
    pub fn decline(mut self) -> Vec<u8> {
        let consent = LinkConsent { declined: true, ..LinkConsent::default() };
        self.keys.seal(3, &mut self.transcript, &consent.encode_to_vec())
    }

    /// The person said yes: the core of the new device and what makes it durable. Commit that before blob 3 leaves: from
    /// then on the device may be listed at any time. `seed` must come from the system's random source and be used once.
    pub fn accept(self, seed: [u8; 32], now: UnixMillis) -> Result<(Core, ChangeSet, Consented), LinkError> {
        let Self { account, handle, suite, newest, signed, keys, mut transcript } = self;
        let identity_key = newest.identity_key;
        let (mut core, mut changes) = Core::companion((account, handle, identity_key, suite), seed, now)
            .map_err(|_| LinkError::List(crate::identity::DeviceListError::IdentityKey))?;
        changes.0.extend(core.linked(&signed).map_err(LinkError::List)?.0);
        let last_resort = core.last_resort().ok_or(LinkError::KeyPackage)?;
        let device = core.address();
        let key = core.device_key();
        let signature = core.sign_link(&consent_bytes(&transcript, device, &key, &last_resort));
        let consent = LinkConsent {
            declined: false,
            device: Bytes::copy_from_slice(device.device.as_bytes()),
            key: Bytes::copy_from_slice(&key),
            last_resort: last_resort.into(),
            signature: Bytes::copy_from_slice(&signature),
        };
        let said = transcript.clone();
        let blob = keys.seal(3, &mut transcript, &consent.encode_to_vec());
        Ok((core, changes, Consented { device, key, newest, keys, said, transcript, blob }))
    }
}

/// Reads blob 4 as one that was put before blob 3: it can only say no.
fn early_refusal(keys: &Keys, said: &Transcript, blob: &[u8]) -> Result<Refusal, LinkError> {
    let verdict = keys.open(4, &mut said.clone(), blob)?;
    let verdict = LinkVerdict::decode(verdict.as_slice()).map_err(|_| LinkError::Malformed(4))?;
    if verdict.devices.is_some() {
        return Err(LinkError::Malformed(4));
    }
    Ok(Refusal::read(verdict.refusal()))
}

/// What the new device signs.
pub(super) fn consent_bytes(
    transcript: &Transcript,
    device: DeviceAddress,
    key: &[u8; 32],
    last_resort: &[u8],
) -> Vec<u8> {
    transcript::link(&transcript.0, device, key, &Sha256::digest(last_resort).into())
}

/// It wants to be listed and waits for blob 4.
pub struct Consented {
    device: DeviceAddress,
    key: [u8; 32],
    newest: VerifiedDevices,
    keys: Keys,
    /// Transcript 2, which a refusal that crosses blob 3 follows.
    said: Transcript,
    transcript: Transcript,
    blob: Vec<u8>,
}

impl std::fmt::Debug for Consented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Consented({:?})", self.device)
    }
}

impl Consented {
    /// Blob 3.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// What both devices keep for archives of the history: durable before blob 3 leaves.
    pub fn history_secret(&self) -> HistorySecret {
        self.keys.history()
    }

    /// Takes blob 4: the account's new list, which names this device, or a refusal. What the core is to keep of it is
    /// durable before blob 5 leaves ([`Core::linked`]).
    pub fn listed(mut self, blob: &[u8]) -> Result<Listed, LinkError> {
        if let Ok(why) = early_refusal(&self.keys, &self.said, blob) {
            return Err(LinkError::Refused(why));
        }
        let verdict = self.keys.open(4, &mut self.transcript, blob)?;
        let verdict = LinkVerdict::decode(verdict.as_slice()).map_err(|_| LinkError::Malformed(4))?;
        let Some(signed) = verdict.devices else { return Err(LinkError::Refused(Refusal::read(verdict.refusal()))) };
        let list =
            verify_devices(&signed, self.device.account, Some((self.newest.version + 1, self.newest.identity_key)))
                .map_err(LinkError::List)?;
        if list.identity_key != self.newest.identity_key {
            return Err(LinkError::List(crate::identity::DeviceListError::IdentityKey));
        }
        if list.version == self.newest.version + 1 && list.previous != Some(self.newest.hash) {
            return Err(LinkError::List(crate::identity::DeviceListError::Fork));
        }
        if !list.devices.contains(&(self.device.device, self.key)) {
            return Err(LinkError::NotListed);
        }
        let stored = LinkStored { version: list.version };
        let blob = self.keys.seal(5, &mut self.transcript, &stored.encode_to_vec());
        Ok(Listed { signed, blob })
    }
}

/// It is a device of the account.
#[derive(Debug)]
pub struct Listed {
    signed: SignedDeviceList,
    blob: Vec<u8>,
}

impl Listed {
    /// The account's list that names it.
    pub const fn list(&self) -> &SignedDeviceList {
        &self.signed
    }
    /// Blob 5: it is durable here.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }
}
