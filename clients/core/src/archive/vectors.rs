// SPDX-License-Identifier: MIT OR Apache-2.0
//! `proto/vectors/archive_v1.json`: one archive with its secret, for clients in any language. `PLI_WRITE_VECTORS=1`
//! writes it.

use std::path::PathBuf;

use pli_domain::{AccountId, DeviceId};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::tests::row;
use super::{Archive, ArchiveName, HistorySecret, PART_BYTES, SALT_BYTES, open, seal};

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto/vectors/archive_v1.json")
}

fn vector() -> Value {
    let secret = HistorySecret::from_bytes([0xA1; 32]);
    let (account, device) = (AccountId::from_bytes([0xB2; 16]), DeviceId::from_bytes([0xC3; 16]));
    let name = ArchiveName { account, device, number: 1 };
    let salt = [0xD4; SALT_BYTES];
    // Two parts: the second row begins in one and ends in the other.
    let long = "long ".repeat(6_553);
    let archive = Archive::of(vec![row(1, "hello"), row(2, &long), row(5, &long), row(7, "bye")], 1_767_225_600_000);
    let plain = archive.encode();
    let sealed = seal(&secret, &name, salt, &plain).expect("not too long");
    let opened = open(&secret, &name, &sealed).expect("opens");
    assert_eq!(Archive::decode(&opened), Ok(archive));
    let sha256 = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
    json!({
        "about": "one archive of a history, see docs/protocol.md, \"The archive of a history\": binary values in hex; \
                  the text of the second and third row is \"long \" 6,553 times",
        "secret": hex::encode(secret.as_bytes()),
        "account": account.to_string(),
        "device": device.to_string(),
        "number": name.number,
        "salt": hex::encode(salt),
        "upload": name.upload(&secret).to_string(),
        "key": hex::encode(super::seal::key(&secret, &salt).as_slice()),
        "plain_begins": hex::encode(&plain[..plain.len().min(96)]),
        "plain_bytes": plain.len(),
        "plain_sha256": sha256(&plain),
        "parts": sealed.chunks(PART_BYTES).map(sha256).collect::<Vec<_>>(),
    })
}

#[test]
fn the_vector_of_an_archive_is_what_the_code_makes() {
    let made = serde_json::to_string_pretty(&vector()).expect("JSON") + "\n";
    if std::env::var_os("PLI_WRITE_VECTORS").is_some() {
        std::fs::write(path(), &made).expect("the vector can be written");
    }
    let stored = std::fs::read_to_string(path()).unwrap_or_default();
    assert!(stored == made, "run this test with PLI_WRITE_VECTORS=1");
}
