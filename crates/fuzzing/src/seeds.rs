// SPDX-License-Identifier: MIT OR Apache-2.0
//! Inputs to begin with: for each decoder bytes that it takes, from the test vectors of the contracts and from the
//! recording, and sessions in which little is wrong.

use bytes::Bytes;
use pli_api::edge::{ClientFrame, client_frame};
use pli_client_core::{MessageRow, RowKind};
use prost::Message;
use serde_json::Value;

use crate::client;
use crate::decoders::{CONTRACTS, DECODERS, input_for};
use crate::person::Step;
use crate::samples::samples;
use crate::sessions;
use crate::tape::{ALICE, identity, tape};
use crate::templates::templates;

/// The vectors that clients in any language are tested with.
const VECTORS: [&str; 4] = [
    include_str!("../../../proto/vectors/edge_v1.json"),
    include_str!("../../../proto/vectors/sealed_v1.json"),
    include_str!("../../../proto/vectors/link_v1.json"),
    include_str!("../../../proto/vectors/archive_v1.json"),
];

/// The seeds of the target of this name; none where there is no such target.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "decoders" => of_decoders(),
        "client" => client::seeds::seeds(),
        "sessions" => sessions::seeds(),
        _ => Vec::new(),
    }
}

fn of_decoders() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = DECODERS.iter().map(|decoder| input_for(decoder.name, b"")).collect();
    let mut add = |name: &str, bytes: &[u8]| seeds.push(input_for(name, bytes));
    contracts(&mut add);
    vectors(&mut add);
    recorded(&mut add);
    texts(&mut add);
    seeds
}

type Add<'a> = &'a mut dyn FnMut(&str, &[u8]);

/// A message of this name.
fn contract(add: Add<'_>, name: &str, bytes: &[u8]) {
    if let Some(place) = CONTRACTS.iter().position(|contract| contract.name == name) {
        add("contracts", &[&[u8::try_from(place).unwrap_or(0)], bytes].concat());
    }
}

fn contracts(add: Add<'_>) {
    for contract in 0..CONTRACTS.len() {
        add("contracts", &[u8::try_from(contract).unwrap_or(0), 0x0A, 2, 8, 1]);
    }
    for n in 0..templates().len() {
        let frame = templates().frame(u16::try_from(n).unwrap_or(0));
        contract(add, "pli.edge.v1.ClientFrame", frame);
        if let Ok(ClientFrame { frame: Some(client_frame::Frame::Call(call)) }) = ClientFrame::decode(frame.clone()) {
            let method = call.method.trim_start_matches('/').rsplit_once('/');
            let package = method.and_then(|(service, method)| Some((service.rsplit_once('.')?.0, method)));
            if let Some((package, method)) = package {
                contract(add, &format!("{package}.{method}Request"), &call.body);
            }
        }
    }
}

/// Everything in hexadecimal of the vectors, for every decoder that may take it.
fn vectors(add: Add<'_>) {
    let mut found = Vec::new();
    for text in VECTORS {
        let vectors: Value = serde_json::from_str(text).unwrap_or_default();
        texts_of(&vectors, &mut found);
    }
    for text in &found {
        if text.starts_with("pli1") {
            add("link-code", text.as_bytes());
        }
        let Ok(bytes) = hex::decode(text) else { continue };
        for name in ["content", "sealed-frame", "device-list", "directory-list", "archive", "history-record"] {
            add(name, &bytes);
        }
        for name in ["pli.edge.v1.ServerFrame", "pli.log.v1.Envelope", "pli.sealed.v1.Frame", "pli.sealed.v1.LinkHello"]
        {
            contract(add, name, &bytes);
        }
    }
}

fn texts_of(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| texts_of(value, found)),
        Value::Object(values) => values.values().for_each(|value| texts_of(value, found)),
        _ => {}
    }
}

fn recorded(add: Add<'_>) {
    let alice = identity(&tape().rows[ALICE]);
    add("identity", &alice.encode());
    let list = samples().list.encode_to_vec();
    add("device-list", &list);
    add("directory-list", &list);
    let heard = tape().lives.iter().flat_map(|life| &life.steps).filter_map(|(_, step)| match step {
        Step::Frame(bytes) | Step::Hello(bytes) => Some(bytes),
        _ => None,
    });
    heard.take(60).for_each(|bytes| contract(add, "pli.edge.v1.ServerFrame", bytes));
    let whole = |bytes: &Bytes| [&[0, 0, 1][..], bytes].concat();
    for (name, samples) in [
        ("mls-message", &samples().messages),
        ("mls-handshake", &samples().handshakes),
        ("mls-welcome", &samples().welcomes),
        ("mls-group-info", &samples().group_infos),
    ] {
        samples.iter().take(4).for_each(|bytes| add(name, &whole(bytes)));
        (0..4u8).for_each(|n| add(name, &[n, 0, 0]));
    }
    for offer in &samples().offers {
        add("group-info", &offer.group_info);
        add("group-info", &offer.commit);
    }
    add("archive", &samples().archived.contents.encode());
    // In their order, without the last, exchanged, one twice.
    for order in [&[0, 1, 2][..], &[0, 1], &[1, 0, 2], &[0, 1, 2, 2]] {
        add("sealed-archive", &ordered(order));
    }
    (0..8u8).for_each(|n| add("offer", &[n; 9]));
    (0..8u8).for_each(|n| add("rows", &[n; 40]));
    (0..8u8).for_each(|n| add("link-blobs", &[n; 40]));
    for envelope in samples().envelopes.iter().take(8) {
        contract(add, "pli.log.v1.Envelope", envelope);
        let item = pli_api::log::Item {
            devices: vec![vec![1; 16].into(), vec![2; 16].into()],
            expires_at_ms: 7,
            class: 3,
            envelope: envelope.clone(),
        };
        let entry = pli_api::log::Entry { items: vec![item], origin: vec![9; 16].into() }.encode_to_vec();
        add("log-entry", &entry);
        let length = u32::try_from(entry.len()).unwrap_or(0).to_le_bytes();
        add("log-block", &[&[7; 16], length.as_slice(), &entry].concat());
    }
    add("history-record", &[&[0x0A, 32][..], &[3; 32], &[0x10, 4]].concat());
    add("commit-record", &decided());
    let row = MessageRow { kind: RowKind::Incoming.into(), text: "hello".into(), ..MessageRow::default() };
    add("message-row", &row.encode_to_vec());
}

/// Version, object, digest, welcome and one device that gets it, as the service stores them.
fn decided() -> Vec<u8> {
    let object = [&[0x0A, 6][..], b"commit"].concat();
    let device = [&[0x0A, 16][..], &[1; 16], &[0x12, 16], &[2; 16]].concat();
    let field = |tag: u8, bytes: &[u8]| [&[tag, u8::try_from(bytes.len()).unwrap_or(0)][..], bytes].concat();
    [vec![0x08, 1], field(0x12, &object), field(0x1A, &[9; 32]), field(0x22, &object), field(0x2A, &device)].concat()
}

/// The parts of the sealed archive in this order: an input of its decoder.
fn ordered(parts: &[u8]) -> Vec<u8> {
    // Lists say before each element that there is one.
    parts.iter().flat_map(|part| [1, *part]).chain([0, 0]).collect()
}

fn texts(add: Add<'_>) {
    for text in [
        "alice",
        "alice.b",
        "alice/laptop",
        "localhost:8443",
        "[::1]:8443",
        "quic",
        "pli1",
        "team",
        "0.1.0",
        "0f3a5c7e9b1d2f4a6c8e0b1d3f5a7c9e",
        "1\n0f3a5c7e9b1d2f4a6c8e0b1d3f5a7c9e\n",
        "$JS.ACK.stream.consumer.1.22.33.44.0",
        "$JS.ACK.d.a.stream.consumer.1.22.33.44.0.x",
        "00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff",
    ] {
        add("words", text.as_bytes());
    }
    add(
        "settings",
        b"[edge]\nname = \"x\"\nhosts = [\"a:1\"]\n[edge.session]\nidle_ms = 60000\n[delivery]\nspill_after_ms = 0\n",
    );
    add("environment", b"PLI_EDGE__NAME=x\nPLI_EDGE__HOSTS=a,b\nPLI_EDGE__SESSION__IDLE_MS=60000\nPLI_NOTHING=1\n");
    add("traces", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    add("traces", b"send=0f3a5c7e9b1d2f4a");
    add("traces", b"shard=3&place=77");
    add("receipt", &[4, 10, 26, 8, 0, 16, 1, 26, 16, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 32, 0]);
    add("cql-value", &[0; 24]);
    add("cql-value", &[7; 64]);
    add("nats-answer", br#"{"message":{"subject":"a","seq":7,"hdrs":"TkFUUy8xLjANCmE6IGINCg0K","data":"aGVsbG8="}}"#);
    add(
        "nats-answer",
        br#"{"config":{"a":1},"state":{"bytes":7},"cluster":{"leader":"a","replicas":[{"name":"b","active":1}]}}"#,
    );
    add("lease", br#"{"owner":"01010101010101010101010101010101","generation":7,"ttl_ms":10000}"#);
    add("lease", br#"{"owner":"","generation":null,"ttl_ms":18446744073709551615}"#);
    add("nats-answer", br#"{"error":{"err_code":10037,"description":"no"}}"#);
    add("frame-cutter", &[3, 0, 0, 0, 2, 9, 8, 0, 0, 0, 0, 0, 1, 0, 0]);
    add("pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
}
