// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the new device shows.

use std::fmt;
use std::str::FromStr;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};

use super::LinkError;
use super::keys::{CODE_ID, CODE_SECRET, Keys};

/// Before the separator `1` of the text.
const PREFIX: Hrp = Hrp::parse_unchecked("pli");
const VERSION: u8 = 1;
const SEED_BYTES: usize = 16;
/// Of SHA-256: who wants another key with the same beginning tries 2^128 of them.
const KEY_HASH_BYTES: usize = 16;
const HOST_AT: usize = 1 + SEED_BYTES + KEY_HASH_BYTES;
/// A name of 253 bytes, brackets and a port.
const HOST_BYTES_MAX: usize = 261;

/// A random seed, the hash of the new device's ephemeral key, and the server. As text it is bech32m (BIP 350) of
/// `1 ‖ seed ‖ hash ‖ host` behind `pli1`. Everything that only the two devices may know follows from the seed, so the text
/// is a secret for the minute that it lives. Its debug form shows the server alone.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkCode {
    pub(super) seed: [u8; SEED_BYTES],
    pub(super) key_hash: [u8; KEY_HASH_BYTES],
    host: String,
}

/// Text that is no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCode {
    /// Another prefix or another alphabet.
    #[error(
        "a code begins with `pli1` and goes on in small letters and digits, as `pli chat HANDLE/NAME` prints it on the new device"
    )]
    Shape,
    /// A slip.
    #[error("the code has a slip in it, or a part of it is missing; copy it again from the new device")]
    Checksum,
    /// Made by a newer version.
    #[error("the code was made by a newer pli; update this one")]
    Version,
}

/// Where the two devices meet.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendezvous {
    /// Its id.
    pub id: [u8; 16],
    /// What the approver shows there.
    pub approver_secret: [u8; 32],
}

impl fmt::Debug for LinkCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkCode({})", self.host)
    }
}

impl fmt::Debug for Rendezvous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rendezvous")
    }
}

impl LinkCode {
    pub(super) fn new(seed: [u8; SEED_BYTES], public: &[u8], host: &str) -> Self {
        Self { seed, key_hash: key_hash(public), host: host.into() }
    }

    /// The server that the new device is connected to, as [`super::super::Core::handshake`] takes it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Errors where it is for none of these addresses of a profile's server.
    pub fn for_one_of(&self, hosts: &[String]) -> Result<(), LinkError> {
        if hosts.contains(&self.host) {
            return Ok(());
        }
        let here = hosts.first().cloned().unwrap_or_default();
        Err(LinkError::OtherHost { code: self.host.clone(), here })
    }

    /// Where the devices meet.
    pub fn rendezvous(&self) -> Rendezvous {
        let keys = Keys::of_code(&self.seed);
        Rendezvous { id: keys.derive(CODE_ID), approver_secret: keys.derive(CODE_SECRET) }
    }

    /// Whether this ephemeral key is the one that the code names.
    pub(super) fn names(&self, public: &[u8]) -> bool {
        key_hash(public) == self.key_hash
    }

    /// What the text encodes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [&[VERSION], self.seed.as_slice(), &self.key_hash, self.host.as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidCode> {
        if bytes.first().is_some_and(|version| *version != VERSION) {
            return Err(InvalidCode::Version);
        }
        let part = |from: usize, to: usize| bytes.get(from..to).ok_or(InvalidCode::Shape);
        let seed = part(1, 1 + SEED_BYTES)?.try_into().map_err(|_| InvalidCode::Shape)?;
        let key_hash = part(1 + SEED_BYTES, HOST_AT)?.try_into().map_err(|_| InvalidCode::Shape)?;
        let host = std::str::from_utf8(part(HOST_AT, bytes.len())?).map_err(|_| InvalidCode::Shape)?;
        let graphic = host.bytes().all(|b| b.is_ascii_graphic());
        if host.is_empty() || host.len() > HOST_BYTES_MAX || !graphic {
            return Err(InvalidCode::Shape);
        }
        Ok(Self { seed, key_hash, host: host.into() })
    }
}

fn key_hash(public: &[u8]) -> [u8; KEY_HASH_BYTES] {
    use sha2::Digest as _;
    let hash: [u8; 32] = sha2::Sha256::digest(public).into();
    let mut first = [0; KEY_HASH_BYTES];
    first.copy_from_slice(&hash[..KEY_HASH_BYTES]);
    first
}

impl fmt::Display for LinkCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is encoded is far below the checksum's 1,023 characters.
        let text = bech32::encode::<Bech32m>(PREFIX, &self.to_bytes()).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

impl FromStr for LinkCode {
    type Err = InvalidCode;
    fn from_str(text: &str) -> Result<Self, InvalidCode> {
        // A terminal breaks a long line, and who copies it takes the break along.
        let text: String = text.split_whitespace().collect();
        if !text.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("pli1")) {
            return Err(InvalidCode::Shape);
        }
        let read = CheckedHrpstring::new::<Bech32m>(&text).map_err(|_| InvalidCode::Checksum)?;
        Self::from_bytes(&read.byte_iter().collect::<Vec<u8>>())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code() -> LinkCode {
        LinkCode::new([7; 16], &[9; 32], "127.0.0.1:7480")
    }

    #[test]
    fn a_code_is_read_as_it_was_shown_and_in_capitals_and_broken_over_lines() {
        let text = code().to_string();
        assert!(text.starts_with("pli1") && text.len() < 96, "{text}");
        for shown in [text.clone(), text.to_uppercase(), format!(" {}\n{}", &text[..30], &text[30..])] {
            assert_eq!(shown.parse(), Ok(code()));
        }
        assert!(!format!("{:?}", code()).contains("07"), "no secret in a log");
    }

    #[test]
    fn what_is_no_code_says_why() {
        for (text, why) in [
            ("", InvalidCode::Shape),
            ("hello", InvalidCode::Shape),
            ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", InvalidCode::Shape),
            ("pli1", InvalidCode::Checksum),
            ("pli1äöü", InvalidCode::Checksum),
            (&code().to_string()[..50], InvalidCode::Checksum),
        ] {
            assert_eq!(text.parse::<LinkCode>(), Err(why), "{text}");
        }
        let encoded = |bytes: &[u8]| bech32::encode::<Bech32m>(PREFIX, bytes).expect("short");
        assert_eq!(encoded(&[2; 60]).parse::<LinkCode>(), Err(InvalidCode::Version));
        assert_eq!(encoded(&[1; 33]).parse::<LinkCode>(), Err(InvalidCode::Shape), "no host");
        assert_eq!(encoded(&[1; 60]).parse::<LinkCode>(), Err(InvalidCode::Shape), "a host of control characters");
        assert_eq!(encoded(&[]).parse::<LinkCode>(), Err(InvalidCode::Shape));
    }

    proptest! {
        #[test]
        fn one_wrong_character_is_always_noticed(at in 4usize..90, with in "[02-9ac-hj-np-z]") {
            let text = code().to_string();
            let at = 4 + at % (text.len() - 4);
            prop_assume!(text[at..=at] != with);
            let mut slip = text.clone();
            slip.replace_range(at..=at, &with);
            prop_assert_eq!(slip.parse::<LinkCode>(), Err(InvalidCode::Checksum));
        }

        #[test]
        fn any_text_is_refused_or_read_and_never_more(text in ".{0,200}") {
            if let Ok(code) = text.parse::<LinkCode>() {
                let squeezed: String = text.split_whitespace().collect();
                prop_assert_eq!(code.to_string(), squeezed.to_lowercase());
            }
        }
    }
}
