// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pinned bytes of the session protocol: `proto/vectors/edge_v1.json`.
//!
//! Each vector is a frame in the JSON of protobuf and its bytes. Encoding must give exactly the bytes and decoding exactly
//! the frame: the file is what clients in other languages are tested against, so a difference is a break of the protocol.
//! With `PLI_WRITE_VECTORS=1` the file is written anew. The JSON comes from the contracts themselves by a library that
//! shares no code with the generated messages, so it also tells what a field is called and which number it has.

use std::path::PathBuf;

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, Verifier};
use pli_api::common::{DeviceAddress, Error};
use pli_api::edge::{self, ClientFrame, ServerFrame, client_frame, notice, reply, send_result, server_frame, settled};
use pli_api::log::{Class, Content, Envelope, envelope::BodyOrRef};
use pli_api::{ErrorCode, delivery};
use pli_domain::transcript;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};

use crate::rig::{conversation, device, key};

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto/vectors/edge_v1.json")
}

fn sixteen(n: u8) -> Bytes {
    vec![n; 16].into()
}

fn envelope() -> Bytes {
    Envelope {
        sender: Some(DeviceAddress { account: sixteen(1), device: sixteen(2) }),
        send_id: sixteen(3),
        conversation: Bytes::copy_from_slice(conversation(4).as_bytes()),
        epoch: 5,
        class: Class::Message.into(),
        content: Content::Application.into(),
        accepted_at_ms: 1_767_225_600_000,
        expires_at_ms: 1_767_312_000_000,
        body_or_ref: Some(BodyOrRef::Body(Bytes::from_static(b"sealed"))),
        traceparent: Bytes::new(),
    }
    .encode_to_vec()
    .into()
}

fn receipt() -> Bytes {
    let part = delivery::ReceiptPart { shard: 3, seq: 77, entry: sixteen(8), log_epoch: 1 };
    delivery::QueryReceipts { parts: vec![part] }.encode_to_vec().into()
}

fn error() -> Error {
    let mut error = pli_api::refusal(ErrorCode::WrongEpoch, "send in epoch 9 or the two before it");
    error.current_epoch = 9;
    error
}

fn limits() -> edge::Limits {
    edge::Limits {
        frame_bytes_max: 81_920,
        envelope_bytes_max: 65_536,
        send_window: 256,
        delivery_window: 256,
        idle_timeout_ms: 120_000,
        expiry_max_ms: 2_592_000_000,
        call_window: 16,
    }
}

fn client_frames() -> Vec<(&'static str, client_frame::Frame)> {
    use client_frame::Frame;
    vec![
        ("hello", Frame::Hello(hello())),
        ("hello, anonymous", Frame::Hello(edge::ClientHello { version: 1, ..Default::default() })),
        (
            "send",
            Frame::Send(edge::SendBatch {
                sends: vec![edge::Send {
                    send_id: sixteen(3),
                    conversation: sixteen(4),
                    epoch: 5,
                    class: Class::Message.into(),
                    expires_at_ms: 1_767_312_000_000,
                    body: Bytes::from_static(b"sealed"),
                }],
            }),
        ),
        ("pending", Frame::Pending(edge::Pending { receipts: vec![receipt()] })),
        ("ack", Frame::Ack(edge::Ack { position: 1_125_899_906_921_474 })),
        (
            "call",
            Frame::Call(edge::Call {
                id: 7,
                method: "/pli.directory.v1.Directory/Lookup".into(),
                body: pli_api::directory::LookupRequest { handle: "alice".into() }.encode_to_vec().into(),
            }),
        ),
        ("ping", Frame::Ping(edge::Ping { id: 1 })),
        ("pong", Frame::Pong(edge::Pong { id: 1 })),
    ]
}

fn server_frames() -> Vec<(&'static str, server_frame::Frame)> {
    use server_frame::Frame;
    let accepted = edge::Accepted { receipt: receipt(), accepted_at_ms: 1_767_225_600_000 };
    let result = |result| edge::SendResult { send_id: sixteen(3), result: Some(result) };
    let settled = |outcome| edge::Settled { receipt: receipt(), outcome: Some(outcome) };
    vec![
        (
            "hello",
            Frame::Hello(edge::ServerHello { nonce: vec![9; 32].into(), versions: vec![1], now_ms: 1_767_225_600_000 }),
        ),
        (
            "ready",
            Frame::Ready(edge::Ready {
                limits: Some(limits()),
                mail_waiting: true,
                now_ms: 1_767_225_600_000,
                session: sixteen(6),
                from: 1_125_899_906_921_474,
                position_ignored: false,
                history: Bytes::new(),
            }),
        ),
        (
            "send results",
            Frame::SendResults(edge::SendResults {
                results: vec![
                    result(send_result::Result::Accepted(accepted)),
                    result(send_result::Result::Refused(error())),
                ],
            }),
        ),
        (
            "settled",
            Frame::Settled(edge::SettledBatch {
                settled: vec![
                    settled(settled::Outcome::Stored(edge::Stored {})),
                    settled(settled::Outcome::Resend(edge::Resend {})),
                ],
            }),
        ),
        (
            "deliver",
            Frame::Deliver(edge::Deliver {
                position: 1_125_899_906_921_475,
                envelope: envelope(),
                previous: 1_125_899_906_921_474,
            }),
        ),
        ("caught up", Frame::CaughtUp(edge::CaughtUp { position: 1_125_899_906_921_475 })),
        ("gap", Frame::Gap(edge::Gap { from: 1, to: 1_125_899_906_921_474 })),
        ("reply", Frame::Reply(edge::Reply { id: 7, result: Some(reply::Result::Error(error())) })),
        ("pong", Frame::Pong(edge::Pong { id: 1 })),
        ("go away", Frame::GoAway(edge::GoAway { reconnect_after_ms: 1_500 })),
        (
            "close",
            Frame::Close(edge::Close {
                reason: Some(pli_api::refusal(ErrorCode::Displaced, "a newer session of the device took over")),
                reconnect: false,
            }),
        ),
        ("ping", Frame::Ping(edge::Ping { id: 0 })),
        (
            "notice",
            Frame::Notice(edge::Notice {
                notice: Some(notice::Notice::KeyPackagesLow(edge::KeyPackagesLow { left: 3 })),
            }),
        ),
    ]
}

const HOST: &str = "pli.example:8443";

fn signed() -> Vec<u8> {
    let me = device(1);
    transcript::authentication(HOST, me.account, me.device, &[9; 32], &[5; 32])
}

fn hello() -> edge::ClientHello {
    let me = device(1);
    edge::ClientHello {
        version: 1,
        account: Bytes::copy_from_slice(me.account.as_bytes()),
        device: Bytes::copy_from_slice(me.device.as_bytes()),
        binding: edge::Binding::TlsExporter.into(),
        host: HOST.into(),
        signature: key(1).sign(&signed()).to_bytes().to_vec().into(),
        committed: 1_125_899_906_921_474,
        user_agent: "pli/0.1.0".into(),
        history: Bytes::new(),
    }
}

/// The messages of the contracts.
fn contracts() -> DescriptorPool {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let files = ["pli/edge/v1/edge.proto", "pli/log/v1/log.proto"];
    protox::Compiler::new([root]).unwrap().open_files(files).unwrap().descriptor_pool()
}

/// The message `name` with these bytes, in the JSON of protobuf (the ProtoJSON format of proto3).
fn json_of(contracts: &DescriptorPool, name: &str, bytes: &[u8]) -> Value {
    let message = DynamicMessage::decode(contracts.get_message_by_name(name).unwrap(), bytes).unwrap();
    serde_json::to_value(message).unwrap()
}

/// The bytes of the message `name` that this JSON says.
fn bytes_of(contracts: &DescriptorPool, name: &str, json: &Value) -> Vec<u8> {
    DynamicMessage::deserialize(contracts.get_message_by_name(name).unwrap(), json).unwrap().encode_to_vec()
}

const CLIENT_FRAME: &str = "pli.edge.v1.ClientFrame";
const SERVER_FRAME: &str = "pli.edge.v1.ServerFrame";
const ENVELOPE: &str = "pli.log.v1.Envelope";

fn made() -> Value {
    let contracts = contracts();
    let vector = |name: &str, message: &str, bytes: &[u8]| json!({ "name": name, "json": json_of(&contracts, message, bytes), "hex": hex::encode(bytes) });
    let client = client_frames()
        .into_iter()
        .map(|(name, frame)| vector(name, CLIENT_FRAME, &ClientFrame { frame: Some(frame) }.encode_to_vec()));
    let server = server_frames()
        .into_iter()
        .map(|(name, frame)| vector(name, SERVER_FRAME, &ServerFrame { frame: Some(frame) }.encode_to_vec()));
    let me = device(1);
    json!({
        "about": "pli.edge.v1, see docs/protocol.md: json is the frame in ProtoJSON (binary fields in base64), hex its bytes",
        "client_frames": client.collect::<Vec<_>>(),
        "server_frames": server.collect::<Vec<_>>(),
        "envelope": vector("envelope", ENVELOPE, &envelope()),
        "receipt": hex::encode(receipt()),
        "authentication": {
            "host": HOST,
            "account": me.account.to_string(),
            "device": me.device.to_string(),
            "nonce": hex::encode([9; 32]),
            "binding": hex::encode([5; 32]),
            "transcript": hex::encode(signed()),
            "secret_key": hex::encode(key(1).to_bytes()),
            "public_key": hex::encode(key(1).verifying_key().to_bytes()),
            "signature": hex::encode(key(1).sign(&signed()).to_bytes()),
        },
    })
}

fn pinned() -> Value {
    let text = std::fs::read_to_string(path()).expect("the vectors are in the tree");
    serde_json::from_str(&text).expect("the vectors are JSON")
}

#[test]
fn every_frame_encodes_to_its_pinned_bytes() {
    let made = made();
    if std::env::var_os("PLI_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&made).unwrap() + "\n";
        std::fs::create_dir_all(path().parent().unwrap()).unwrap();
        std::fs::write(path(), text).unwrap();
    }
    let pinned = pinned();
    for part in ["client_frames", "server_frames", "envelope", "receipt", "authentication"] {
        assert_eq!(made[part], pinned[part], "{part}");
    }
}

#[test]
fn every_pinned_frame_decodes_and_its_json_says_the_same_bytes() {
    let (pinned, contracts) = (pinned(), contracts());
    let bytes = |vector: &Value| Bytes::from(hex::decode(vector["hex"].as_str().unwrap()).unwrap());
    let vectors = |part: &str| pinned[part].as_array().unwrap().clone();
    for vector in vectors("client_frames") {
        assert_eq!(ClientFrame::decode(bytes(&vector)).unwrap().encode_to_vec(), bytes(&vector));
        assert_eq!(bytes_of(&contracts, CLIENT_FRAME, &vector["json"]), bytes(&vector), "{}", vector["name"]);
    }
    for vector in vectors("server_frames") {
        assert_eq!(ServerFrame::decode(bytes(&vector)).unwrap().encode_to_vec(), bytes(&vector));
        assert_eq!(bytes_of(&contracts, SERVER_FRAME, &vector["json"]), bytes(&vector), "{}", vector["name"]);
    }
    assert_eq!(bytes_of(&contracts, ENVELOPE, &pinned["envelope"]["json"]), bytes(&pinned["envelope"]));
}

const EXAMPLES: &str = "<!-- examples: rendered from proto/vectors/edge_v1.json; a test compares -->\n";
const EXAMPLES_END: &str = "<!-- end of examples -->\n";

fn page_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol.md")
}

fn rendered() -> String {
    let pinned = pinned();
    let mut out = String::new();
    let mut one = |from: &str, vector: &Value| {
        let json = serde_json::to_string_pretty(&vector["json"]).unwrap();
        let hex = vector["hex"].as_str().unwrap().as_bytes().chunks(96);
        let hex: Vec<&str> = hex.map(|line| std::str::from_utf8(line).unwrap()).collect();
        out += &format!(
            "\n**{}**, {from}\n\n```json\n{json}\n```\n\n```text\n{}\n```\n",
            vector["name"].as_str().unwrap(),
            hex.join("\n")
        );
    };
    for (part, from) in [("client_frames", "from the client"), ("server_frames", "from the edge")] {
        pinned[part].as_array().unwrap().iter().for_each(|vector| one(from, vector));
    }
    one("inside `deliver`", &pinned["envelope"]);
    out + "\n"
}

#[test]
fn the_page_shows_every_pinned_frame() {
    let page = std::fs::read_to_string(page_path()).unwrap();
    let (before, rest) = page.split_once(EXAMPLES).expect("the page has the mark");
    let (shown, after) = rest.split_once(EXAMPLES_END).expect("the page has the end mark");
    if std::env::var_os("PLI_WRITE_DOCS").is_some() {
        std::fs::write(page_path(), [before, EXAMPLES, &rendered(), EXAMPLES_END, after].concat()).unwrap();
        return;
    }
    assert_eq!(shown, rendered(), "run the test again with PLI_WRITE_DOCS=1");
}

#[test]
fn the_page_names_every_frame_and_every_frame_has_an_example() {
    let page = std::fs::read_to_string(page_path()).unwrap();
    let table = page.split("\n## ").find(|part| part.starts_with("Frames\n")).expect("a part about frames");
    let pinned = pinned();
    for (message, part) in [(CLIENT_FRAME, "client_frames"), (SERVER_FRAME, "server_frames")] {
        for field in contracts().get_message_by_name(message).unwrap().fields() {
            let kind = field.kind();
            let name = kind.as_message().unwrap().name().to_owned();
            assert!(table.contains(&format!("`{name}`")), "{message} has {name}, which the page does not name");
            let examples = pinned[part].as_array().unwrap();
            let shown = examples.iter().any(|vector| vector["json"].get(field.json_name()).is_some());
            assert!(shown || name == "EphemeralSignal", "{message} has {name} without an example");
        }
    }
}

#[test]
fn the_json_is_the_one_of_protobuf() {
    let pinned = pinned();
    let frame = |part: &str, name: &str| {
        let found = pinned[part].as_array().unwrap().iter().find(|vector| vector["name"] == name);
        found.unwrap()["json"].clone()
    };
    let send = &frame("client_frames", "send")["send"]["sends"][0];
    assert_eq!(send["sendId"], "AwMDAwMDAwMDAwMDAwMDAw==", "base64, and names in camel case");
    assert_eq!(send["expiresAtMs"], "1767312000000", "64-bit numbers are strings");
    assert_eq!(send["class"], "CLASS_MESSAGE", "enums by name");
}

#[test]
fn unknown_fields_are_ignored() {
    // Field 100 with a varint, behind a known frame and inside it.
    let mut ping = edge::Ping { id: 5 }.encode_to_vec();
    ping.extend([0xA0, 0x06, 0x01]);
    let mut frame = vec![0x3A, ping.len() as u8];
    frame.extend(ping);
    frame.extend([0xA0, 0x06, 0x01]);
    let frame = ClientFrame::decode(frame.as_slice()).unwrap().frame.unwrap();
    assert_eq!(frame, client_frame::Frame::Ping(edge::Ping { id: 5 }));
}

#[test]
fn the_pinned_signature_verifies() {
    let pinned = pinned();
    let field = |name: &str| hex::decode(pinned["authentication"][name].as_str().unwrap()).unwrap();
    let public = ed25519_dalek::VerifyingKey::from_bytes(&field("public_key").try_into().unwrap()).unwrap();
    let signature = Signature::from_slice(&field("signature")).unwrap();
    public.verify(&field("transcript"), &signature).unwrap();
}
