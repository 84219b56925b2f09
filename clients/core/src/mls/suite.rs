// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cipher suites that a device may use.

use std::fmt;
use std::str::FromStr;

use openmls::prelude::{Capabilities, Ciphersuite, ExtensionType};

/// Text or a number that names no suite.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no suite; use 0x0001, 0x0003 or 0x004f")]
pub struct InvalidSuite(String);

/// The suite of a device's key packages and of the conversations that it makes (RFC 9420 section 17.1); all sign with
/// Ed25519. Devices of different suites cannot be in one conversation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Suite {
    /// 0x0001: X25519, AES-128-GCM. Every provider has it.
    #[default]
    Aes,
    /// 0x0003: X25519, ChaCha20-Poly1305.
    ChaCha,
    /// 0x004F: ML-KEM-768 with X25519 (X-Wing), AES-128-GCM (draft-ietf-mls-pq-ciphersuites): stays secret also from who
    /// records it now and has a quantum computer one day. The code point is not assigned yet, so only servers that are set
    /// to (`directory.post_quantum`) take it.
    PostQuantum,
}

impl Suite {
    /// Every suite.
    pub const ALL: [Self; 3] = [Self::Aes, Self::ChaCha, Self::PostQuantum];

    /// Its number.
    pub const fn number(self) -> u16 {
        match self {
            Self::Aes => 0x0001,
            Self::ChaCha => 0x0003,
            Self::PostQuantum => 0x004F,
        }
    }

    /// The suite with this number.
    pub fn from_number(number: u16) -> Result<Self, InvalidSuite> {
        let found = Self::ALL.into_iter().find(|suite| suite.number() == number);
        found.ok_or_else(|| InvalidSuite(format!("0x{number:04x}")))
    }

    /// Its number as it is stored and sent, 0 for the default.
    pub(crate) fn stored(self) -> u32 {
        if self == Self::default() { 0 } else { self.number().into() }
    }

    /// From that.
    pub(crate) fn from_stored(stored: u32) -> Result<Self, InvalidSuite> {
        match u16::try_from(stored) {
            Ok(0) => Ok(Self::default()),
            Ok(number) => Self::from_number(number),
            Err(_) => Err(InvalidSuite(stored.to_string())),
        }
    }

    /// What a leaf of this suite says that it can (RFC 9420 section 7.2): its suite, among others that it could, and the
    /// extensions of its package.
    pub(super) fn capabilities(self, extensions: &[ExtensionType]) -> Capabilities {
        let suites = Self::ALL.map(Self::ciphersuite);
        // What openmls names by default does not hold the last one.
        let suites = (self == Self::PostQuantum).then_some(suites.as_slice());
        Capabilities::new(None, suites, Some(extensions), None, None)
    }

    pub(super) const fn ciphersuite(self) -> Ciphersuite {
        match self {
            Self::Aes => Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
            Self::ChaCha => Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519,
            Self::PostQuantum => Ciphersuite::MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519,
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:04x}", self.number())
    }
}

impl FromStr for Suite {
    type Err = InvalidSuite;

    fn from_str(text: &str) -> Result<Self, InvalidSuite> {
        let digits = text.strip_prefix("0x").ok_or_else(|| InvalidSuite(text.into()))?;
        let number = u16::from_str_radix(digits, 16).map_err(|_| InvalidSuite(text.into()))?;
        Self::from_number(number).map_err(|_| InvalidSuite(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_read_as_it_is_written() {
        for suite in Suite::ALL {
            assert_eq!(suite.to_string().parse(), Ok(suite));
            assert_eq!(Suite::from_number(suite.number()), Ok(suite));
            assert_eq!(u16::from(suite.ciphersuite()), suite.number());
        }
        assert_eq!("0x004F".parse(), Ok(Suite::PostQuantum));
        for text in ["", "1", "0x", "0x0002", "0x10001", "x-wing"] {
            assert!(text.parse::<Suite>().is_err(), "{text}");
        }
    }
}
