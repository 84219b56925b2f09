// SPDX-License-Identifier: MIT OR Apache-2.0
//! `proto/vectors/sealed_v1.json`: what clients seal and sign, for clients in any language. `PLI_WRITE_VECTORS=1` writes it.

use std::path::PathBuf;

use bytes::Bytes;
use pli_domain::{AccountId, ConversationId, DeviceId};
use serde_json::{Value, json};

use super::restored::successor;
use crate::content::{Addressed, Content, Frame, GroupInfo, Kind, LifeSpan, Tick, Ticks};
use crate::identity::{Identity, safety_number, verify_devices};

const SALT: [u8; 16] = [7; 16];
/// Account 01…, device 02…, identity key 03…, device key 04…, handle alice.
const ALICE: &str = concat!(
    "0a10010101010101010101010101010101011210020202020202020202020202020202021a05616c6963652220030303",
    "03030303030303030303030303030303030303030303030303030303032a200404040404040404040404040404040404",
    "0404040404040404040404040404043001",
);

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto/vectors/sealed_v1.json")
}

fn frames() -> Value {
    let text = Content::text(SALT, "hello").encode();
    let first = Frame {
        lane_no: 1,
        lane_base: 1,
        kind: Kind::Direct.into(),
        sent_at_ms: 1_767_225_600_000,
        content: text.into(),
        ..Frame::default()
    };
    let device = Bytes::from(vec![2; 16]);
    let lives = Frame {
        lane_no: 9,
        lane_base: 4,
        kind: Kind::Group.into(),
        lives: vec![LifeSpan { id: 11, first: 1 }, LifeSpan { id: 12, first: 6 }],
        place: 8,
        addressed: vec![Addressed { device, first: 2 }],
        written_in: 11,
        line: vec![12, 11],
        ..first.clone()
    };
    let void = Frame { content: Bytes::new(), lane_no: 10, place: 0, written_in: 0, line: Vec::new(), ..lives.clone() };
    let behind = Frame { lane_no: 14, unsent_from: 12, ..lives.clone() };
    let named = [
        ("a first message", first),
        ("one that tells lives", lives),
        ("a number that shows nothing", void),
        ("one behind numbers that stand for nothing", behind),
    ];
    named.into_iter().map(|(name, frame)| shown_frame(name, &frame)).collect()
}

fn shown_frame(name: &str, frame: &Frame) -> Value {
    let span = |life: &LifeSpan| json!({ "id": life.id.to_string(), "first": life.first });
    let one = |one: &Addressed| json!({ "device": hex::encode(&one.device), "first": one.first });
    json!({
        "name": name, "lane_no": frame.lane_no, "lane_base": frame.lane_base, "kind": frame.kind,
        "sent_at_ms": frame.sent_at_ms, "content": hex::encode(&frame.content),
        "lives": frame.lives.iter().map(span).collect::<Vec<_>>(), "place": frame.place,
        "addressed": frame.addressed.iter().map(one).collect::<Vec<_>>(),
        "written_in": frame.written_in.to_string(),
        "line": frame.line.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "unsent_from": frame.unsent_from, "hex": hex::encode(frame.to_bytes()),
    })
}

/// What a content says, read from its bytes.
fn shown_content(name: &str, bytes: &[u8]) -> Value {
    let content = Content::decode(bytes).expect("a content");
    let mut shown = json!({ "name": name, "hex": hex::encode(bytes) });
    if let Some(text) = content.as_text() {
        shown["text"] = text.into();
    }
    if let Some(group) = GroupInfo::of(&content) {
        let GroupInfo { name, root, outcasts } = group.expect("a group's name");
        shown["group"] = [Some(name), root.map(|root| root.to_string())].into_iter().flatten().collect();
        if !outcasts.is_empty() {
            shown["removed"] = outcasts.iter().map(ToString::to_string).collect();
        }
    }
    if let Some(ticks) = Ticks::of(&content) {
        let Ticks(ticks) = ticks.expect("ticks");
        shown["ticks"] = ticks.iter().map(|t| json!([t.sender.to_string(), t.delivered, t.read])).collect();
        let lost = |t: &Tick| t.lost.iter().flat_map(|(first, last)| [*first, *last]).collect::<Vec<_>>();
        let with_lost: Vec<Value> =
            ticks.iter().filter(|t| !t.lost.is_empty()).map(|t| json!([t.sender.to_string(), lost(t)])).collect();
        let lives: Vec<Value> =
            ticks.iter().filter(|t| t.life != 0).map(|t| json!([t.sender.to_string(), t.life.to_string()])).collect();
        for (field, all) in [("lost", with_lost), ("lives", lives)] {
            if !all.is_empty() {
                shown[field] = all.into();
            }
        }
    }
    shown
}

fn contents() -> Value {
    let tick = |device, delivered, read, lost, life| Tick {
        sender: DeviceId::from_bytes([device; 16]),
        delivered,
        read,
        lost,
        life,
    };
    let plain = Ticks(vec![tick(2, 5, 3, Vec::new(), 0)]);
    let whole = Ticks(vec![tick(2, 9, 9, vec![(2, 3), (7, 7)], 12), tick(3, 1, 0, Vec::new(), 0)]);
    let root = Some(ConversationId::from_bytes([4; 16]));
    let group = |root, outcasts| GroupInfo { name: "team".into(), root, outcasts };
    let outcasts = vec![AccountId::from_bytes([5; 16])];
    let all = [
        ("text", Content::text(SALT, "hello")),
        ("group name", group(None, Vec::new()).content(SALT)),
        ("group name with root", group(root, Vec::new()).content(SALT)),
        ("group name with root and who was removed", group(root, outcasts).content(SALT)),
        ("ticks", plain.content(SALT)),
        ("ticks with losses and lives", whole.content(SALT)),
    ];
    all.into_iter().map(|(name, content)| shown_content(name, &content.encode())).collect()
}

fn made() -> Value {
    let alice = Identity::decode(&hex::decode(ALICE).expect("hexadecimal")).expect("an identity");
    let signed = alice.device_list().expect("is the first");
    verify_devices(&signed, alice.address().account, None).expect("as every client verifies it");
    let other = (pli_domain::AccountId::from_bytes([9; 16]), [8; 32]);
    let root = ConversationId::from_bytes([4; 16]);
    json!({
        "about": "what clients seal and sign, see docs/protocol.md: binary values in hex, 64-bit random numbers as strings; the salt of every content is 07 sixteen times",
        "frames": frames(),
        "contents": contents(),
        "device_list": {
            "account": alice.address().account.to_string(),
            "device": alice.address().device.to_string(),
            "identity_secret_key": hex::encode([3; 32]),
            "identity_public_key": hex::encode(alice.identity_key()),
            "device_secret_key": hex::encode([4; 32]),
            "device_public_key": hex::encode(alice.device_key()),
            "list": hex::encode(&signed.list),
            "signature": hex::encode(&signed.signature),
        },
        "safety_number": {
            "one": [alice.address().account.to_string(), hex::encode(alice.identity_key())],
            "other": [other.0.to_string(), hex::encode(other.1)],
            "digits": safety_number((alice.address().account, alice.identity_key()), other),
        },
        "successor": {
            "root": root.to_string(),
            "history": hex::encode([5; 16]),
            "conversation": successor(root, &[5; 16]).to_string(),
        },
    })
}

fn pinned() -> Value {
    let text = std::fs::read_to_string(path()).expect("the vectors are in the tree");
    serde_json::from_str(&text).expect("the vectors are JSON")
}

#[test]
fn what_is_sealed_and_signed_keeps_its_pinned_bytes() {
    let made = made();
    if std::env::var_os("PLI_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&made).expect("JSON") + "\n";
        std::fs::write(path(), text).expect("written");
    }
    let pinned = pinned();
    for part in ["about", "frames", "contents", "device_list", "safety_number", "successor"] {
        assert_eq!(made[part], pinned[part], "{part}");
    }
}

#[test]
fn every_pinned_content_and_frame_is_read_back() {
    let pinned = pinned();
    let each = |part: &str| pinned[part].as_array().expect("a list").clone();
    let bytes = |vector: &Value| hex::decode(vector["hex"].as_str().expect("text")).expect("hexadecimal");
    let name = |vector: &Value| vector["name"].as_str().expect("text").to_owned();
    for content in each("contents") {
        assert_eq!(shown_content(&name(&content), &bytes(&content)), content);
    }
    for frame in each("frames") {
        let read = Frame::from_bytes(&bytes(&frame)).expect("a frame");
        assert_eq!(shown_frame(&name(&frame), &read), frame);
    }
}
