// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys and seals of a link: HKDF-SHA256 (RFC 5869), ChaCha20-Poly1305 (RFC 8439) and HPKE (RFC 9180, base mode,
//! DHKEM(X25519), HKDF-SHA256, ChaCha20-Poly1305) of the MLS crypto provider.

use openmls_rust_crypto::RustCrypto;
use openmls_traits::crypto::OpenMlsCrypto as _;
use openmls_traits::types::{
    AeadType, HashType, HpkeAeadType, HpkeCiphertext, HpkeConfig, HpkeKdfType, HpkeKemType, HpkeKeyPair,
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::LinkError;
use super::code::LinkCode;
use crate::archive::HistorySecret;

/// Salt of the first key, and what every label begins with.
const PROTOCOL: &[u8] = b"pli-link-1";
pub(super) const CODE_ID: &str = "rendezvous";
pub(super) const CODE_SECRET: &str = "approver";
/// What both people see.
const NUMBER: &str = "number";
/// What both devices keep for archives of histories.
const HISTORY: &str = "history";
const NUMBER_MODULUS: u64 = 1_000_000;
const HPKE: HpkeConfig = HpkeConfig(HpkeKemType::DhKem25519, HpkeKdfType::HkdfSha256, HpkeAeadType::ChaCha20Poly1305);
/// Every key seals one blob.
const NONCE: [u8; 12] = [0; 12];

/// A key from which others follow.
#[derive(Clone)]
pub(super) struct Keys(Zeroizing<[u8; 32]>);

fn extract(salt: &[u8], secret: &[u8]) -> Keys {
    let extracted = RustCrypto::default().hkdf_extract(HashType::Sha2_256, salt, secret);
    let extracted = extracted.expect("the provider knows SHA-256, and takes a salt and a secret of any length");
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(extracted.as_slice());
    Keys(key)
}

impl Keys {
    /// Who has read the code has these.
    pub(super) fn of_code(seed: &[u8]) -> Self {
        extract(PROTOCOL, seed)
    }

    /// The two devices alone have these: `session` travelled sealed to the ephemeral key.
    pub(super) fn of_session(transcript: &Transcript, seed: &[u8], session: &[u8]) -> Self {
        extract(&transcript.0, &Zeroizing::new([seed, session].concat()))
    }

    /// What follows under a label.
    pub(super) fn derive<const N: usize>(&self, label: &str) -> [u8; N] {
        let info = [PROTOCOL, b" ", label.as_bytes()].concat();
        let bytes = RustCrypto::default().hkdf_expand(HashType::Sha2_256, self.0.as_slice(), &info, N);
        let bytes = bytes.expect("it fails above 255 hashes, and none of these is longer than one");
        let mut derived = [0; N];
        derived.copy_from_slice(bytes.as_slice());
        derived
    }

    /// What both devices keep when the link is done.
    pub(super) fn history(&self) -> HistorySecret {
        HistorySecret::from_bytes(self.derive(HISTORY))
    }

    fn of_blob(&self, number: u32) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.derive(&format!("blob {number}")))
    }

    /// Seals blob `number`, said after `transcript`, which takes it in.
    pub(super) fn seal(&self, number: u32, transcript: &mut Transcript, plain: &[u8]) -> Vec<u8> {
        let (key, aead) = (self.of_blob(number), AeadType::ChaCha20Poly1305);
        let sealed = RustCrypto::default().aead_encrypt(aead, key.as_slice(), plain, &NONCE, &transcript.0);
        let sealed = sealed.expect("it fails for texts of gigabytes, and each of these fits a blob");
        transcript.add(&sealed);
        sealed
    }

    /// Opens blob `number`, said after `transcript`, which takes it in if it opens.
    pub(super) fn open(&self, number: u32, transcript: &mut Transcript, sealed: &[u8]) -> Result<Vec<u8>, LinkError> {
        let (key, aead) = (self.of_blob(number), AeadType::ChaCha20Poly1305);
        let opened = RustCrypto::default().aead_decrypt(aead, key.as_slice(), sealed, &NONCE, &transcript.0);
        let opened = opened.map_err(|_| LinkError::Sealed(number))?;
        transcript.add(sealed);
        Ok(opened)
    }

    /// Six digits.
    pub(super) fn number(&self) -> String {
        format!("{:06}", u64::from_be_bytes(self.derive(NUMBER)) % NUMBER_MODULUS)
    }
}

/// Hash of everything that was said: SHA-256 over the code, then over itself and each blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transcript(pub(super) [u8; 32]);

impl Transcript {
    pub(super) fn of(code: &LinkCode) -> Self {
        Self(Sha256::new().chain_update(PROTOCOL).chain_update(code.to_bytes()).finalize().into())
    }
    fn add(&mut self, blob: &[u8]) {
        self.0 = Sha256::new().chain_update(self.0).chain_update(blob).finalize().into();
    }
}

/// A new ephemeral key.
pub(super) fn ephemeral(seed: &[u8; 32]) -> HpkeKeyPair {
    RustCrypto::default()
        .derive_hpke_keypair(HPKE, seed)
        .expect("the provider knows X25519, and takes 32 bytes for a key")
}

/// Seals to an ephemeral key; `transcript` is bound in.
pub(super) fn seal_to(public: &[u8], transcript: &Transcript, plain: &[u8]) -> Result<(Vec<u8>, Vec<u8>), LinkError> {
    let sealed = RustCrypto::default().hpke_seal(HPKE, public, PROTOCOL, &transcript.0, plain);
    let sealed = sealed.map_err(|_| LinkError::OtherKey)?;
    Ok((sealed.kem_output.as_slice().to_vec(), sealed.ciphertext.as_slice().to_vec()))
}

/// Opens what was sealed to one's own ephemeral key.
pub(super) fn open_sealed_to(
    private: &[u8],
    transcript: &Transcript,
    (kem_output, ciphertext): (Vec<u8>, Vec<u8>),
) -> Option<Zeroizing<Vec<u8>>> {
    let sealed = HpkeCiphertext { kem_output: kem_output.into(), ciphertext: ciphertext.into() };
    let opened = RustCrypto::default().hpke_open(HPKE, &sealed, private, PROTOCOL, &transcript.0);
    opened.ok().map(Zeroizing::new)
}
