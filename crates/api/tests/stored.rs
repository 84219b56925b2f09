// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bytes of what is stored. They must not change: a log and a queue hold old ones for 30 days.

use bytes::Bytes;
use pli_api::common::{DeviceAddress, PayloadRef};
use pli_api::log::envelope::BodyOrRef;
use pli_api::log::{Class, Content, Entry, Envelope, Item};
use prost::Message;

const ENVELOPE: &str = concat!(
    "0a240a100101010101010101010101010101010112100202020202020202020202020202020212100303030303030303",
    "03030303030303031a10040404040404040404040404040404042005280330013880d0eab6b7334081d0eab6b7334a06",
    "7365616c6564",
);
const ENVELOPE_BY_REFERENCE: &str = concat!(
    "0a240a100101010101010101010101010101010112100202020202020202020202020202020212100303030303030303",
    "03030303030303031a10040404040404040404040404040404042005280330023806400752380a100808080808080808",
    "080808080808080810d086031a200909090909090909090909090909090909090909090909090909090909090909",
);
const ENTRY: &str = concat!(
    "0a370a10050505050505050505050505050505050a10060606060606060606060606060606061081d0eab6b733180322",
    "08656e76656c6f7065121007070707070707070707070707070707",
);

fn id(n: u8) -> Bytes {
    Bytes::from(vec![n; 16])
}

fn bytes(hex: &str) -> Bytes {
    hex::decode(hex).expect("hexadecimal").into()
}

fn envelope() -> Envelope {
    Envelope {
        sender: Some(DeviceAddress { account: id(1), device: id(2) }),
        send_id: id(3),
        conversation: id(4),
        epoch: 5,
        class: Class::Message.into(),
        content: Content::Application.into(),
        accepted_at_ms: 1_767_225_600_000,
        expires_at_ms: 1_767_225_600_001,
        body_or_ref: Some(BodyOrRef::Body(Bytes::from_static(b"sealed"))),
        traceparent: Bytes::new(),
    }
}

#[test]
fn an_envelope_keeps_its_bytes() {
    assert_eq!(hex::encode(envelope().encode_to_vec()), ENVELOPE);
    assert_eq!(Envelope::decode(bytes(ENVELOPE)).expect("decodes"), envelope());
    let sha256 = Bytes::from(vec![9; 32]);
    let reference = Envelope {
        content: Content::Commit.into(),
        accepted_at_ms: 6,
        expires_at_ms: 7,
        body_or_ref: Some(BodyOrRef::BodyRef(PayloadRef { id: id(8), size: 50_000, sha256 })),
        ..envelope()
    };
    assert_eq!(hex::encode(reference.encode_to_vec()), ENVELOPE_BY_REFERENCE);
    assert_eq!(Envelope::decode(bytes(ENVELOPE_BY_REFERENCE)).expect("decodes"), reference);
}

#[test]
fn an_envelope_that_is_traced_says_so_at_its_end() {
    let traceparent = Bytes::from_static(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let traced = Envelope { traceparent: traceparent.clone(), ..envelope() };
    assert_eq!(hex::encode(traced.encode_to_vec()), format!("{ENVELOPE}6237{}", hex::encode(&traceparent)));
    assert_eq!(Envelope::decode(Bytes::from(traced.encode_to_vec())).expect("decodes"), traced);
}

#[test]
fn a_log_entry_keeps_its_bytes() {
    let item = Item {
        devices: vec![id(5), id(6)],
        expires_at_ms: 1_767_225_600_001,
        class: Class::Message.into(),
        envelope: Bytes::from_static(b"envelope"),
    };
    let entry = Entry { items: vec![item], origin: id(7) };
    assert_eq!(hex::encode(entry.encode_to_vec()), ENTRY);
    assert_eq!(Entry::decode(bytes(ENTRY)).expect("decodes"), entry);
}
