// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys, names and sealed parts: HKDF-SHA256 (RFC 5869) and ChaCha20-Poly1305 (RFC 8439) of the MLS crypto provider.

use openmls_rust_crypto::RustCrypto;
use openmls_traits::crypto::OpenMlsCrypto as _;
use openmls_traits::types::{AeadType, HashType};
use pli_domain::limits::MEDIA_PART_BYTES;
use pli_domain::{AccountId, DeviceId, UploadId};
use zeroize::Zeroizing;

use super::{ArchiveError, PARTS_MAX};

/// Salt of what names an archive, and what every label and all additional data begin with.
const PROTOCOL: &[u8] = b"pli-archive-1";
/// Length of every sealed part.
pub const PART_BYTES: usize = MEDIA_PART_BYTES as usize;
/// Length of the salt at the beginning of part 1.
pub const SALT_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

/// What two devices of an account share since one linked the other.
#[derive(Clone)]
pub struct HistorySecret(Zeroizing<[u8; 32]>);

impl HistorySecret {
    /// The secret with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
    /// Its bytes, to be stored.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for HistorySecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HistorySecret")
    }
}

/// Which archive of which two devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveName {
    /// Whose history.
    pub account: AccountId,
    /// The device that takes it in.
    pub device: DeviceId,
    /// Counts the archives for this device, from 1.
    pub number: u32,
}

impl ArchiveName {
    /// The id of its upload.
    pub fn upload(&self, secret: &HistorySecret) -> UploadId {
        let named = extract(PROTOCOL, secret.as_bytes());
        let info = [PROTOCOL, b" upload ", &self.number.to_be_bytes()].concat();
        let mut id = [0; 16];
        expand(&named, &info, &mut id);
        UploadId::from_bytes(id)
    }

    fn additional(&self, parts: u32) -> Vec<u8> {
        let numbers = [self.number.to_be_bytes(), parts.to_be_bytes()].concat();
        [PROTOCOL, self.account.as_bytes(), self.device.as_bytes(), &numbers].concat()
    }
}

fn extract(salt: &[u8], secret: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    let extracted = RustCrypto::default().hkdf_extract(HashType::Sha2_256, salt, secret);
    key.copy_from_slice(extracted.expect("the provider knows SHA-256").as_slice());
    key
}

fn expand(key: &[u8; 32], info: &[u8], into: &mut [u8]) {
    let bytes = RustCrypto::default().hkdf_expand(HashType::Sha2_256, key, info, into.len());
    into.copy_from_slice(bytes.expect("at most 255 hashes are asked for").as_slice());
}

/// The key of one archive: its salt is drawn for it.
pub(super) fn key(secret: &HistorySecret, salt: &[u8]) -> Zeroizing<[u8; 32]> {
    let (extracted, mut key) = (extract(salt, secret.as_bytes()), Zeroizing::new([0; 32]));
    expand(&extracted, &[PROTOCOL, b" key"].concat(), key.as_mut_slice());
    key
}

/// Seven zeros, the part's place from 0 on, and whether it is the last.
fn nonce(place: u32, last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[7..11].copy_from_slice(&place.to_be_bytes());
    nonce[11] = u8::from(last);
    nonce
}

/// How much plain text a part holds.
const fn room(place: u32) -> usize {
    let whole = PART_BYTES - TAG_BYTES;
    if place == 0 { whole - SALT_BYTES } else { whole }
}

/// How many parts so many bytes of plain text take; none where they are more than an archive has.
pub fn parts_of(plain_bytes: usize) -> Option<u32> {
    let parts = (plain_bytes + SALT_BYTES).div_ceil(PART_BYTES - TAG_BYTES).max(1);
    u32::try_from(parts).ok().filter(|parts| *parts <= PARTS_MAX)
}

/// Seals an archive: whole parts, the plain text filled up with zeros. None where it is too long. `salt` must come from
/// the system's random source and be used once.
pub fn seal(secret: &HistorySecret, name: &ArchiveName, salt: [u8; SALT_BYTES], plain: &[u8]) -> Option<Vec<u8>> {
    let parts = parts_of(plain.len())?;
    let (key, additional) = (key(secret, &salt), name.additional(parts));
    let mut sealed = salt.to_vec();
    sealed.reserve(parts as usize * PART_BYTES);
    let mut rest = plain;
    for place in 0..parts {
        let (now, later) = rest.split_at(room(place).min(rest.len()));
        rest = later;
        let mut chunk = Zeroizing::new(now.to_vec());
        chunk.resize(room(place), 0);
        let nonce = nonce(place, place + 1 == parts);
        let aead = AeadType::ChaCha20Poly1305;
        let part = RustCrypto::default().aead_encrypt(aead, key.as_slice(), &chunk, &nonce, &additional);
        // Fails for texts of gigabytes.
        sealed.extend(part.ok()?);
    }
    Some(sealed)
}

/// Opens an archive: every part, or nothing.
pub fn open(secret: &HistorySecret, name: &ArchiveName, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, ArchiveError> {
    let whole = !sealed.is_empty() && sealed.len().is_multiple_of(PART_BYTES);
    let parts = u32::try_from(sealed.len() / PART_BYTES).ok().filter(|parts| whole && *parts <= PARTS_MAX);
    let parts = parts.ok_or(ArchiveError::Length(sealed.len()))?;
    let (salt, mut rest) = sealed.split_at(SALT_BYTES);
    let (key, additional) = (key(secret, salt), name.additional(parts));
    let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len()));
    for place in 0..parts {
        let (part, later) = rest.split_at(room(place) + TAG_BYTES);
        rest = later;
        let nonce = nonce(place, place + 1 == parts);
        let aead = AeadType::ChaCha20Poly1305;
        let opened = RustCrypto::default().aead_decrypt(aead, key.as_slice(), part, &nonce, &additional);
        plain.extend(Zeroizing::new(opened.map_err(|_| ArchiveError::Part(place + 1))?).iter());
    }
    Ok(plain)
}
