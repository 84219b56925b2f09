// SPDX-License-Identifier: MIT OR Apache-2.0
//! The name of a message across providers.

use std::fmt;

use sha2::{Digest, Sha256};

/// draft-ietf-mimi-content-08, "Message ID": 0x01, then 31 bytes of a hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub [u8; 32]);

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({})", hex::encode(&self.0[..5]))
    }
}

/// 0x01 and the first 31 bytes of SHA-256(len16(sender URI), sender URI, len16(room URI), room URI, message, salt);
/// lengths are big-endian 16-bit numbers. URIs longer than that are cut, which no valid URI is.
pub fn message_id(sender_uri: &str, room_uri: &str, message: &[u8], salt: &[u8; 16]) -> MessageId {
    let mut hash = Sha256::new();
    for uri in [sender_uri, room_uri] {
        let length = u16::try_from(uri.len()).unwrap_or(u16::MAX);
        hash.update(length.to_be_bytes());
        hash.update(&uri.as_bytes()[..usize::from(length)]);
    }
    hash.update(message);
    hash.update(salt);
    let digest = hash.finalize();
    let mut id = [1; 32];
    id[1..].copy_from_slice(&digest[..31]);
    MessageId(id)
}
