// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bad input: each row is an input, the answer on the wire, and two bystanders who talk meanwhile, one over each carrier.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use pli_api::edge::{Binding, ClientHello, Ping, Send, client_frame, server_frame::Frame, settled::Outcome};
use pli_api::quic::put_frame;
use pli_api::{ErrorCode, edge};
use pli_domain::{LogEpoch, Position, Seq};
use pli_edge::{CarrierName, Config, LimitsConfig, SessionConfig};
use pli_ports::Clock;
use prost::Message;
use tokio_tungstenite::tungstenite;

use crate::client::{Client, Link, body};
use crate::rig::{Door, Rig, conversation, device};

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The session was closed; whether reconnecting makes sense.
    Closed(ErrorCode, bool),
    /// A send was refused, the session goes on.
    Refused(ErrorCode),
    /// A call was answered with an error, the session goes on.
    Reply(ErrorCode),
    /// A receipt was refused, the session goes on.
    Receipt(ErrorCode),
    /// It was taken, and the session goes on.
    Taken,
    /// It was ignored, and the session goes on.
    Ignored,
    /// The position in the hello was ignored and the client told so.
    PositionIgnored,
    /// QUIC answered by itself, before or below a session: with this packet, error or alert.
    Quic(&'static str),
    /// A stream was refused, the session goes on.
    StreamRefused(ErrorCode),
}

use Answer::{Closed, Ignored, PositionIgnored, Quic, Receipt, Refused, Reply, StreamRefused, Taken};

/// An edge, and the carrier over which it gets bad input.
pub struct Stage {
    pub rig: Rig,
    pub door: Door,
    pub carrier: CarrierName,
}

impl Stage {
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.rig.clock.clone()
    }
    async fn connected(&self) -> Client {
        Client::over(self.carrier, &self.door, 1, self.clock()).await
    }
    pub async fn logged_in(&self) -> Client {
        self.connected().await.log_in(&self.door.trust).await
    }
    /// A hello that lies, and how it ends.
    async fn lie(&self, binding: Binding, change: impl FnOnce(&mut ClientHello)) -> Answer {
        let mut client = self.connected().await;
        let mut hello = client.hello(&self.door.trust, binding, 0).await;
        change(&mut hello);
        client.say(client_frame::Frame::Hello(hello)).await;
        closed(client).await
    }
    async fn committed(&self, position: Position) -> Answer {
        let mut client = self.connected().await;
        let hello = client.hello(&self.door.trust, Binding::TlsExporter, position.get()).await;
        client.say(client_frame::Frame::Hello(hello)).await;
        let ready = client.ready().await;
        assert!(alive(&mut client).await);
        if ready.position_ignored { PositionIgnored } else { Taken }
    }
    /// One send after a good login.
    async fn sent(&self, change: impl FnOnce(&mut Send)) -> Answer {
        let mut client = self.logged_in().await;
        let mut send = client.message(1, b"hello");
        change(&mut send);
        let answer = match client.send_one(send).await {
            Ok(_) => Taken,
            Err(error) => Refused(error.code()),
        };
        assert!(alive(&mut client).await);
        answer
    }
    /// One message of raw bytes after a good login.
    async fn said(&self, bytes: Vec<u8>) -> Answer {
        let mut client = self.logged_in().await;
        client.say_bytes(bytes).await;
        closed(client).await
    }
    /// Bytes below the frames after a good login.
    pub async fn written(&self, bytes: &[u8]) -> Answer {
        let mut client = self.logged_in().await;
        client.write(bytes).await;
        closed(client).await
    }
    /// A frame of 100 bytes of which 5 come.
    async fn begun(&self) -> Answer {
        match self.carrier {
            CarrierName::Quic => self.written(&[0, 0, 0, 100, 1, 2, 3, 4, 5]).await,
            _ => self.written(&[0x82, 0x80 | 100, 1, 2, 3, 4, 5]).await,
        }
    }
    /// A frame as it stands below the frames.
    fn below(&self, frame: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::new();
        match self.carrier {
            CarrierName::Quic => put_frame(&mut bytes, frame),
            _ => {
                // One final binary frame with a 16-bit length and a mask of zeros (RFC 6455 section 5.2).
                bytes.extend([0x82, 0x80 | 126]);
                bytes.extend(u16::try_from(frame.len()).unwrap().to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(frame);
            }
        }
        bytes
    }
    /// A frame that takes longer than a session may be silent, and more often than that some of it comes.
    async fn slowly(&self) -> Answer {
        let mut client = self.logged_in().await;
        let sends = vec![client.message(77, &[7; 12_000])];
        let frame = Some(client_frame::Frame::Send(edge::SendBatch { sends }));
        let bytes = self.below(&edge::ClientFrame { frame }.encode_to_vec());
        for piece in bytes.chunks(bytes.len() / 10) {
            tokio::time::sleep(Duration::from_millis(350)).await;
            client.write(piece).await;
        }
        let taken = client.result().await.result;
        assert!(matches!(taken, Some(edge::send_result::Result::Accepted(_))), "{taken:?}");
        assert!(alive(&mut client).await);
        Taken
    }
    /// A large frame of which a byte comes now and then.
    async fn trickling(&self) -> Answer {
        let mut client = self.logged_in().await;
        for byte in self.below(&[7; 60_000]) {
            if let Ok(closed) = tokio::time::timeout(Duration::from_millis(50), client.closed()).await {
                let close = closed.expect("a last frame says why");
                return Closed(close.reason.unwrap().code(), close.reconnect);
            }
            // The edge may have closed it just now, and then says so.
            client.try_write(&[byte]).await;
        }
        Taken
    }
    /// Most of a large frame comes at once, and nothing more.
    async fn half_way(&self) -> Answer {
        self.written(&self.below(&[7; 60_000])[..55_000]).await
    }
    /// A call that its service refuses with `code`.
    async fn called(&self, method: &str, code: ErrorCode, body: Vec<u8>) -> Answer {
        let set = if method.contains("Directory") { &self.rig.directory.code } else { &self.rig.conversations.code };
        *set.lock().unwrap() = Some(code);
        let mut client = self.logged_in().await;
        let answer = client.call(1, method, body).await;
        *set.lock().unwrap() = None;
        assert!(alive(&mut client).await);
        answer.map_or_else(Reply, |_| Taken)
    }
    async fn receipt(&self, receipt: Bytes) -> Answer {
        let mut client = self.logged_in().await;
        client.present(vec![receipt]).await;
        let answer = match client.settled().await.remove(0).outcome.unwrap() {
            Outcome::Refused(error) => Receipt(error.code()),
            Outcome::Stored(_) => Taken,
            Outcome::Resend(_) => Ignored,
        };
        assert!(alive(&mut client).await);
        answer
    }
}

pub async fn closed(mut client: Client) -> Answer {
    let close = client.closed().await.expect("a last frame says why");
    Closed(close.reason.unwrap().code(), close.reconnect)
}

pub async fn alive(client: &mut Client) -> bool {
    client.say(client_frame::Frame::Ping(Ping { id: 77 })).await;
    matches!(client.wait(|frame| matches!(frame, Frame::Pong(_))).await, Frame::Pong(pong) if pong.id == 77)
}

/// Input, answer, and how it is said.
pub type Row = (&'static str, Answer, Run);

pub type Run = for<'a> fn(&'a Stage) -> BoxFuture<'a, Answer>;

/// Where every code must stand.
const DOCS: &str = include_str!("../../../../docs/protocol.md");

/// What the specification lists; every one needs a row.
const LISTED: &[&str] = &[
    "unknown frame",
    "truncated frame",
    "frame over the limit",
    "garbage after hello",
    "slow hello",
    "slow frame, byte by byte",
    "slow frame, steady",
    "half-open socket",
    "second session of a device",
    "replayed nonce",
    "wrong signature",
    "wrong host",
    "wrong binding",
    "unknown device",
    "hello with a position above the head",
    "hello with a position in an unknown epoch",
    "ack above what was sent",
    "ack below",
    "wrong MLS epoch",
    "unknown conversation",
    "not a member",
    "a commit that lies about its tree",
    "a group of 1,001 devices",
    "a tree with duplicate keys",
    "a commit by a non-member",
    "a welcome for somebody else",
    "65 KiB envelope",
    "empty envelope",
    "expired envelope",
    "the same send id again, same bytes",
    "the same send id again, other bytes",
    "forged receipt",
    "key packages exhausted",
    "handle taken",
    "handle malformed, empty",
    "handle malformed, 1 MB",
    "handle malformed, bidi",
    "device list with an old version",
    "device list with a bad signature",
];

/// The same of QUIC.
const LISTED_FOR_QUIC: &[&str] = &[
    "version negotiation flood",
    "initial flood with spoofed addresses",
    "stream over the limit",
    "reset mid-frame",
    "idle for an hour",
    "0-RTT attempt",
    "unknown ALPN",
];

/// QUIC handshakes with unproven addresses that the edge of these tests has under way at a time.
pub const UNPROVEN_MAX: usize = 16;

fn handle(handle: &str) -> Vec<u8> {
    pli_api::directory::RegisterRequest { handle: handle.into(), ..Default::default() }.encode_to_vec()
}

const REGISTER: &str = "/pli.directory.v1.Directory/Register";

/// Frames and connections.
fn transport() -> Vec<Row> {
    vec![
        ("unknown frame", Closed(ErrorCode::UnknownFrame, false), |s| Box::pin(s.said(vec![0xFA, 0x07, 0x01, 0x00]))),
        ("unknown frame, signal", Closed(ErrorCode::UnknownFrame, false), |s| {
            let signal = client_frame::Frame::Signal(edge::EphemeralSignal::default());
            Box::pin(s.said(edge::ClientFrame { frame: Some(signal) }.encode_to_vec()))
        }),
        ("truncated frame", Closed(ErrorCode::MalformedFrame, false), |s| Box::pin(s.said(vec![0x12, 0x20, 0x01]))),
        ("truncated frame, never finished", Closed(ErrorCode::FrameTimeout, true), |s| Box::pin(s.begun())),
        ("truncated frame, half-way", Closed(ErrorCode::FrameTimeout, true), |s| Box::pin(s.half_way())),
        ("slow frame, byte by byte", Closed(ErrorCode::FrameTimeout, true), |s| Box::pin(s.trickling())),
        ("slow frame, steady", Taken, |s| Box::pin(s.slowly())),
        ("empty frame", Closed(ErrorCode::MalformedFrame, false), |s| Box::pin(s.said(Vec::new()))),
        ("frame over the limit", Closed(ErrorCode::FrameTooLarge, false), |s| Box::pin(s.said(vec![0; 80 * 1024 + 1]))),
        ("frame over the limit, 1 MB", Closed(ErrorCode::FrameTooLarge, false), |s| Box::pin(s.said(vec![0; 1 << 20]))),
        ("garbage after hello", Closed(ErrorCode::MalformedFrame, false), |s| Box::pin(s.said(vec![0xFF; 300]))),
        ("frame before hello", Closed(ErrorCode::UnexpectedFrame, false), |s| {
            Box::pin(async {
                let mut client = s.connected().await;
                client.say(client_frame::Frame::Ping(Ping { id: 1 })).await;
                closed(client).await
            })
        }),
        ("second hello", Closed(ErrorCode::UnexpectedFrame, false), |s| {
            let hello = client_frame::Frame::Hello(ClientHello { version: 1, ..ClientHello::default() });
            Box::pin(s.said(edge::ClientFrame { frame: Some(hello) }.encode_to_vec()))
        }),
        ("slow hello", Closed(ErrorCode::HelloTimeout, true), |s| {
            Box::pin(async { closed(s.connected().await).await })
        }),
        ("half-open socket", Closed(ErrorCode::Temporary, true), |s| {
            Box::pin(async { closed(s.logged_in().await).await })
        }),
        ("too many receipts in a frame", Closed(ErrorCode::MalformedFrame, false), |s| {
            let pending = client_frame::Frame::Pending(edge::Pending { receipts: vec![Bytes::new(); 257] });
            Box::pin(s.said(edge::ClientFrame { frame: Some(pending) }.encode_to_vec()))
        }),
    ]
}

/// What only a WebSocket can be asked.
fn websocket() -> Vec<Row> {
    vec![
        ("garbage after hello, below the WebSocket", Closed(ErrorCode::MalformedFrame, false), |s| {
            Box::pin(s.written(&[0xFF; 64]))
        }),
        ("garbage after hello, text", Closed(ErrorCode::MalformedFrame, false), |s| {
            Box::pin(async {
                let mut client = s.logged_in().await;
                let Link::Ws(ws) = &mut client.link else { unreachable!() };
                futures::SinkExt::send(ws, tungstenite::Message::Text("hello".into())).await.unwrap();
                closed(client).await
            })
        }),
    ]
}

/// Who somebody claims to be.
fn identity() -> Vec<Row> {
    vec![
        ("second session of a device", Closed(ErrorCode::Displaced, false), |s| {
            Box::pin(async {
                let first = s.logged_in().await;
                let mut second = s.logged_in().await;
                let answer = closed(first).await;
                assert!(alive(&mut second).await);
                answer
            })
        }),
        ("unsupported version", Closed(ErrorCode::UnsupportedVersion, false), |s| {
            Box::pin(s.lie(Binding::TlsExporter, |hello| hello.version = 9))
        }),
        ("outdated client", Closed(ErrorCode::UnsupportedVersion, false), |s| {
            Box::pin(s.lie(Binding::TlsExporter, |hello| hello.user_agent = "pli/0.0.1".into()))
        }),
        ("replayed nonce", Closed(ErrorCode::BadSignature, false), |s| {
            Box::pin(async {
                // Bound to the certificate, so that nothing but the nonce differs between the connections.
                let mut before = s.connected().await;
                let recorded = before.hello(&s.door.trust, Binding::ServerCertificate, 0).await;
                before.say(client_frame::Frame::Hello(recorded.clone())).await;
                before.ready().await;
                s.lie(Binding::ServerCertificate, |hello| *hello = recorded).await
            })
        }),
        ("relayed hello", Closed(ErrorCode::BadSignature, false), |s| {
            Box::pin(async {
                let mut other = s.connected().await;
                let relayed = other.hello(&s.door.trust, Binding::TlsExporter, 0).await;
                s.lie(Binding::TlsExporter, |hello| hello.signature = relayed.signature).await
            })
        }),
        ("wrong signature", Closed(ErrorCode::BadSignature, false), |s| {
            Box::pin(s.lie(Binding::TlsExporter, |hello| hello.signature = vec![1; 64].into()))
        }),
        ("signature of another length", Closed(ErrorCode::BadSignature, false), |s| {
            Box::pin(s.lie(Binding::TlsExporter, |hello| hello.signature = Bytes::new()))
        }),
        ("wrong host", Closed(ErrorCode::WrongHost, false), |s| {
            Box::pin(s.lie(Binding::TlsExporter, |hello| hello.host = "evil.example".into()))
        }),
        ("wrong binding", Closed(ErrorCode::BadBinding, false), |s| {
            Box::pin(s.lie(Binding::TlsExporter, |hello| hello.binding = Binding::Unspecified.into()))
        }),
        ("wrong binding, origin not allowed", Closed(ErrorCode::BadBinding, false), |s| {
            Box::pin(s.lie(Binding::Origin, |_| ()))
        }),
        ("wrong binding, another's value", Closed(ErrorCode::BadSignature, false), |s| {
            Box::pin(s.lie(Binding::TlsExporter, |hello| hello.binding = Binding::ServerCertificate.into()))
        }),
        ("unknown device", Closed(ErrorCode::UnknownDevice, false), |s| {
            Box::pin(s.lie(Binding::TlsExporter, |hello| hello.device = vec![0x55; 16].into()))
        }),
        ("device id of 15 bytes", Closed(ErrorCode::MalformedFrame, false), |s| {
            Box::pin(s.lie(Binding::TlsExporter, |hello| hello.device = vec![0x55; 15].into()))
        }),
        ("hello with a position above the head", PositionIgnored, |s| {
            let above = Position::end_of(LogEpoch::new(1).unwrap(), Seq::new(1 << 30).unwrap());
            Box::pin(s.committed(above))
        }),
        ("hello with a position in an unknown epoch", PositionIgnored, |s| {
            let unknown = Position::end_of(LogEpoch::new(99).unwrap(), Seq::new(1).unwrap());
            Box::pin(s.committed(unknown))
        }),
    ]
}

/// Acks, sends and receipts.
fn messages() -> Vec<Row> {
    vec![
        ("ack above what was sent", Ignored, |s| Box::pin(async { acked(s, true).await })),
        ("ack below", Ignored, |s| Box::pin(async { acked(s, false).await })),
        ("wrong MLS epoch", Refused(ErrorCode::WrongEpoch), |s| Box::pin(s.sent(|send| send.epoch = 7))),
        ("epoch not open", Refused(ErrorCode::EpochNotOpen), |s| {
            s.rig.conversations.groups.lock().unwrap().entry(conversation(9)).or_default().current = 5;
            Box::pin(s.sent(|send| {
                send.conversation = vec![9; 16].into();
                send.epoch = 5;
            }))
        }),
        ("unknown conversation", Refused(ErrorCode::UnknownConversation), |s| {
            Box::pin(s.sent(|send| send.conversation = vec![0xEE; 16].into()))
        }),
        ("not a member", Refused(ErrorCode::UnknownConversation), |s| {
            Box::pin(s.sent(|send| send.conversation = vec![2; 16].into()))
        }),
        ("65 KiB envelope", Refused(ErrorCode::EnvelopeTooLarge), |s| {
            Box::pin(s.sent(|send| send.body = vec![1; 65 * 1024].into()))
        }),
        ("empty envelope", Refused(ErrorCode::EnvelopeEmpty), |s| Box::pin(s.sent(|send| send.body = Bytes::new()))),
        ("expired envelope", Refused(ErrorCode::EnvelopeExpired), |s| {
            Box::pin(s.sent(|send| send.expires_at_ms = 1_000))
        }),
        ("life of a year", Refused(ErrorCode::ExpiryTooFar), |s| {
            Box::pin(s.sent(|send| send.expires_at_ms += 365 * 24 * 3_600_000))
        }),
        ("no class", Refused(ErrorCode::BadRequest), |s| Box::pin(s.sent(|send| send.class = 0))),
        ("unknown class", Refused(ErrorCode::BadRequest), |s| Box::pin(s.sent(|send| send.class = 77))),
        ("send id of 3 bytes", Refused(ErrorCode::BadRequest), |s| {
            Box::pin(s.sent(|send| send.send_id = vec![1; 3].into()))
        }),
        ("the same send id again, same bytes", Taken, |s| Box::pin(again(s, b"hello"))),
        ("the same send id again, other bytes", Taken, |s| Box::pin(again(s, b"sealed in a newer epoch"))),
        ("forged receipt", Receipt(ErrorCode::BadReceipt), |s| Box::pin(s.receipt(Bytes::from_static(b"forged")))),
        ("forged receipt, shard that is none", Receipt(ErrorCode::BadReceipt), |s| {
            Box::pin(s.receipt(forged(4_000_000, 5, 16)))
        }),
        ("forged receipt, entry of 3 bytes", Receipt(ErrorCode::BadReceipt), |s| Box::pin(s.receipt(forged(0, 5, 3)))),
        ("forged receipt, two parts of one shard", Receipt(ErrorCode::BadReceipt), |s| {
            Box::pin(s.receipt([forged(0, 5, 16), forged(0, 6, 16)].concat().into()))
        }),
        ("forged receipt, well formed", Ignored, |s| Box::pin(s.receipt(forged(0, 1 << 39, 16)))),
    ]
}

/// What services refuse, and what sessions may not call.
fn calls() -> Vec<Row> {
    vec![
        ("a commit that lies about its tree", Reply(ErrorCode::CommitInvalid), |s| {
            Box::pin(s.called("/pli.conversations.v1.Conversations/Commit", ErrorCode::CommitInvalid, Vec::new()))
        }),
        ("a group of 1,001 devices", Reply(ErrorCode::GroupTooLarge), |s| {
            Box::pin(s.called("/pli.conversations.v1.Conversations/Commit", ErrorCode::GroupTooLarge, Vec::new()))
        }),
        ("a tree with duplicate keys", Reply(ErrorCode::CommitInvalid), |s| {
            Box::pin(s.called("/pli.conversations.v1.Conversations/Commit", ErrorCode::CommitInvalid, Vec::new()))
        }),
        ("a commit by a non-member", Reply(ErrorCode::UnknownConversation), |s| {
            Box::pin(s.called("/pli.conversations.v1.Conversations/Commit", ErrorCode::UnknownConversation, Vec::new()))
        }),
        ("a welcome for somebody else", Reply(ErrorCode::CommitInvalid), |s| {
            Box::pin(s.called("/pli.conversations.v1.Conversations/Commit", ErrorCode::CommitInvalid, Vec::new()))
        }),
        ("key packages exhausted", Reply(ErrorCode::KeyPackagesExhausted), |s| {
            let claim = "/pli.directory.v1.Directory/ClaimKeyPackages";
            Box::pin(s.called(claim, ErrorCode::KeyPackagesExhausted, Vec::new()))
        }),
        ("handle taken", Reply(ErrorCode::HandleTaken), |s| {
            Box::pin(s.called(REGISTER, ErrorCode::HandleTaken, handle("alice")))
        }),
        ("handle malformed, empty", Reply(ErrorCode::HandleMalformed), |s| {
            Box::pin(s.called(REGISTER, ErrorCode::HandleMalformed, handle("")))
        }),
        // No frame holds it: it does not get as far as the directory.
        ("handle malformed, 1 MB", Closed(ErrorCode::FrameTooLarge, false), |s| {
            let call = edge::Call { id: 1, method: REGISTER.into(), body: handle(&"a".repeat(1 << 20)).into() };
            Box::pin(s.said(edge::ClientFrame { frame: Some(client_frame::Frame::Call(call)) }.encode_to_vec()))
        }),
        ("handle malformed, bidi", Reply(ErrorCode::HandleMalformed), |s| {
            Box::pin(s.called(REGISTER, ErrorCode::HandleMalformed, handle("\u{202e}ecila")))
        }),
        ("device list with an old version", Reply(ErrorCode::DeviceListVersion), |s| {
            Box::pin(s.called("/pli.directory.v1.Directory/PutDeviceList", ErrorCode::DeviceListVersion, Vec::new()))
        }),
        ("device list with a bad signature", Reply(ErrorCode::DeviceListInvalid), |s| {
            Box::pin(s.called("/pli.directory.v1.Directory/PutDeviceList", ErrorCode::DeviceListInvalid, Vec::new()))
        }),
        ("request that is no message", Reply(ErrorCode::BadRequest), |s| {
            Box::pin(s.called(REGISTER, ErrorCode::HandleTaken, vec![0xFF; 9]))
        }),
        ("method of another kind", Reply(ErrorCode::UnknownMethod), |s| {
            let key = "/pli.directory.v1.Directory/GetDeviceKey";
            Box::pin(s.called(key, ErrorCode::NotFound, Vec::new()))
        }),
    ]
}

fn forged(shard: u32, seq: u64, entry: usize) -> Bytes {
    let part = pli_api::delivery::ReceiptPart { shard, seq, entry: vec![4; entry].into(), log_epoch: 1 };
    pli_api::delivery::QueryReceipts { parts: vec![part] }.encode_to_vec().into()
}

/// Two sends under one id: both are accepted, the receiving client removes the duplicate.
async fn again(stage: &Stage, second: &'static [u8]) -> Answer {
    let mut client = stage.logged_in().await;
    let first = client.message(200, b"hello");
    let second = client.message(200, second);
    let both = client.send_one(first).await.is_ok() && client.send_one(second).await.is_ok();
    if both && alive(&mut client).await { Taken } else { Ignored }
}

/// An ack that must not reach the owner.
async fn acked(stage: &Stage, above: bool) -> Answer {
    let mut client = stage.logged_in().await;
    let other = Client::over(stage.carrier, &stage.door, 3, stage.clock()).await;
    let mut other = other.log_in(&stage.door.trust).await;
    let sent = other.message(1, b"to be acknowledged");
    other.send_one(sent).await.unwrap();
    let delivered = client.delivery().await;
    let wrong = if above { delivered.position + 5_000 } else { 1 };
    client.ack(delivered.position).await;
    client.ack(wrong).await;
    assert!(alive(&mut client).await);
    let mine = device(1).device;
    stage.rig.until("the good ack", |owners| owners.acks.contains(&(mine, delivered.position))).await;
    let reached = stage.rig.owners.lock().acks.contains(&(mine, wrong));
    if reached { Taken } else { Ignored }
}

/// Two who talk in conversation 2, over a carrier each, and count what arrives.
async fn bystanders(stage: &Stage, count: Arc<AtomicU64>) -> tokio::task::JoinHandle<()> {
    stage.rig.group(2, &[4, 5]);
    let trust = &stage.door.trust;
    let mut sender = Client::over(CarrierName::WebSocket, &stage.door, 4, stage.clock()).await.log_in(trust).await;
    let mut receiver = Client::over(CarrierName::Quic, &stage.door, 5, stage.clock()).await.log_in(trust).await;
    tokio::spawn(async move {
        for n in 0u64.. {
            let mut send = sender.message(0, &n.to_be_bytes());
            send.send_id = [n.to_be_bytes(); 2].concat().into();
            send.conversation = vec![2; 16].into();
            sender.send_one(send).await.unwrap();
            let delivered = receiver.delivery().await;
            assert_eq!(body(&delivered), n.to_be_bytes().as_slice());
            receiver.ack(delivered.position).await;
            count.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
}

async fn stage(session: SessionConfig, carrier: CarrierName) -> Stage {
    let limits = LimitsConfig { quic_unproven_max: UNPROVEN_MAX, ..LimitsConfig::default() };
    let rig = Rig::new(Config { session, limits, ..Config::default() }).await;
    let door = rig.listen().await;
    Stage { rig, door, carrier }
}

/// Every row of a carrier: one list for all, and what it alone can be asked.
fn rows(carrier: CarrierName) -> Vec<Row> {
    let own = if carrier == CarrierName::Quic { crate::quic::rows() } else { websocket() };
    [transport(), identity(), messages(), calls(), own].into_iter().flatten().collect()
}

/// Whether the protocol's page names the answer.
fn is_documented(answer: &Answer) -> bool {
    let word = match answer {
        Closed(code, _) | Refused(code) | Reply(code) | Receipt(code) | StreamRefused(code) => {
            code.as_str_name().trim_start_matches("ERROR_CODE_")
        }
        Quic(word) => word,
        Taken | Ignored | PositionIgnored => return true,
    };
    DOCS.contains(&format!("| `{word}` |"))
}

async fn every_row_is_answered(carrier: CarrierName) -> BTreeSet<&'static str> {
    let short = SessionConfig { hello_ms: 1_500, frame_ms: 2_500, idle_ms: 3_000, ..SessionConfig::default() };
    let stage = stage(short, carrier).await;
    let heard = Arc::new(AtomicU64::new(0));
    let talk = bystanders(&stage, heard.clone()).await;
    let mut names = BTreeSet::new();
    for (name, expected, run) in rows(carrier) {
        let before = heard.load(Ordering::Relaxed);
        let answer = tokio::time::timeout(Duration::from_secs(30), run(&stage)).await;
        assert_eq!(answer.unwrap_or_else(|_| panic!("{name}: no answer")), expected, "{name} over {carrier:?}");
        assert!(is_documented(&expected), "{name}: {expected:?} is not documented");
        let wait = async {
            while heard.load(Ordering::Relaxed) == before {
                assert!(!talk.is_finished(), "{name}: the bystanders stopped talking");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("{name}: silence"));
        assert!(names.insert(name), "{name} stands twice");
    }
    talk.abort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_input_gets_its_answer_over_websocket_while_others_talk() {
    let names = every_row_is_answered(CarrierName::WebSocket).await;
    let missing: Vec<_> = LISTED.iter().filter(|name| !names.contains(*name)).collect();
    assert!(missing.is_empty(), "rows are missing: {missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_input_gets_its_answer_over_quic_while_others_talk() {
    let names = every_row_is_answered(CarrierName::Quic).await;
    let missing: Vec<_> = LISTED.iter().chain(LISTED_FOR_QUIC).filter(|name| !names.contains(*name)).collect();
    assert!(missing.is_empty(), "rows are missing: {missing:?}");
}

#[tokio::test]
async fn a_nonce_that_is_too_old_is_refused() {
    for carrier in [CarrierName::WebSocket, CarrierName::Quic] {
        let stage = stage(SessionConfig { nonce_ms: 0, ..SessionConfig::default() }, carrier).await;
        assert_eq!(stage.lie(Binding::TlsExporter, |_| ()).await, Closed(ErrorCode::BadNonce, true));
    }
}
