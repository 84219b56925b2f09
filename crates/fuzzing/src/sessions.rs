// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server with whoever comes: members and strangers whose sessions are valid until they are mutated, connections that say
//! nothing sensible, and beside them two people. Whatever the others do, nothing panics, the two stay connected, their
//! messages arrive, and what is in their conversation goes to nobody else.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use pli_api::edge::server_frame::Frame;
use pli_api::edge::{Ack, Call, ClientFrame, Send, SendBatch, client_frame, reply, send_result};
use pli_api::log::{Class, Envelope, envelope};
use pli_client_core::identity::Identity;
use prost::Message;

use crate::cluster::{Cluster, runtime};
use crate::mutate::{Change, mutated};
use crate::tape::{ALICE, BOB, DAVE, MALLORY, Tape, identity, tape};
use crate::templates::templates;
use crate::wire::Wire;

/// Most steps of one run, and most connections at a time.
const ACTS_MAX: usize = 40;
const OPEN_MAX: usize = 6;
/// Most frames of one step that plays.
const PLAYED_MAX: u8 = 64;
/// Longest pause of one step.
const PAUSE_MAX_MS: u16 = 5_000;

/// Who a connection says it is.
#[derive(Debug, Clone, Arbitrary)]
enum Who {
    /// A member of a group with the two.
    Mallory,
    /// An account without conversations.
    Dave,
    /// An anonymous session.
    Nobody,
    /// A hello of a member, changed.
    Mutated(Vec<Change>),
    /// Somebody who says that it is Alice, with a key of its own.
    Impostor,
    /// No hello.
    Silent,
}

#[derive(Debug, Clone, Arbitrary)]
enum Act {
    /// Connects.
    Open(Who),
    /// Sends a frame that was valid, changed.
    Say { on: u8, frame: u16, changes: Vec<Change> },
    /// Sends frames that were valid, in the order in which they were recorded.
    Play { on: u8, from: u16, count: u8 },
    /// Sends a frame so many times.
    Flood { on: u8, frame: u16, times: u8 },
    /// Sends bytes.
    Bytes { on: u8, bytes: Vec<u8> },
    /// Acknowledges what was delivered.
    Acknowledge(u8),
    /// Reads nothing any more.
    Deafen(u8),
    /// Hangs up.
    Close(u8),
    /// Lets time pass.
    Wait(u16),
    /// The two talk meanwhile.
    Talk,
}

struct Connection {
    wire: Wire,
    deaf: bool,
    delivered: u64,
}

/// Runs one input.
///
/// # Panics
/// When the server does what it must not.
pub fn sessions(data: &[u8]) {
    let Ok(acts) = Vec::<Act>::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let tape = tape();
    runtime().block_on(async {
        let mut stage = Stage::set_up(tape).await;
        for act in acts.into_iter().take(ACTS_MAX) {
            stage.act(act).await;
            tokio::task::yield_now().await;
            stage.look();
        }
        stage.talk().await;
        stage.talk().await;
        stage.look();
    });
}

struct Stage {
    cluster: Cluster,
    tape: &'static Tape,
    identities: Vec<Identity>,
    others: Vec<Connection>,
    alice: Wire,
    bob: Wire,
    said: u8,
}

impl Stage {
    /// The accounts and conversations that the recording made, and a session of Alice and of Bob.
    async fn set_up(tape: &'static Tape) -> Self {
        let cluster = Cluster::start();
        let identities: Vec<Identity> = tape.rows.iter().map(identity).collect();
        let mut wires: Vec<Option<Wire>> = identities.iter().map(|_| None).collect();
        for (n, frame) in templates().setup() {
            let Some(client_frame::Frame::Call(call)) = frame.frame.clone() else { continue };
            set_up_call(&cluster, &identities, &mut wires, (*n, call)).await;
        }
        let alice = Wire::session(&cluster, 1, Some(&identities[ALICE])).await;
        let bob = Wire::session(&cluster, 2, Some(&identities[BOB])).await;
        let mut this = Self { cluster, tape, identities, others: Vec::new(), alice, bob, said: 0 };
        this.talk().await;
        this
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::Open(who) if self.others.len() < OPEN_MAX => self.open(who).await,
            Act::Open(_) => {}
            Act::Say { on, frame, changes } => {
                let bytes = mutated(templates().frame(frame), &changes);
                self.say(on, bytes.into(), 1);
            }
            Act::Play { on, from, count } => {
                for n in 0..u16::from(count % PLAYED_MAX) {
                    self.say(on, templates().frame(from.wrapping_add(n)).clone(), 1);
                    tokio::task::yield_now().await;
                }
            }
            Act::Flood { on, frame, times } => self.say(on, templates().frame(frame).clone(), times),
            Act::Bytes { on, bytes } => self.say(on, bytes.into(), 1),
            Act::Acknowledge(on) => {
                if let Some(connection) = self.on(on) {
                    let ack = client_frame::Frame::Ack(Ack { position: connection.delivered });
                    connection.wire.say(ClientFrame { frame: Some(ack) });
                }
            }
            Act::Deafen(on) => {
                if let Some(connection) = self.on(on) {
                    connection.deaf = true;
                }
            }
            Act::Close(on) => {
                if !self.others.is_empty() {
                    let at = usize::from(on) % self.others.len();
                    self.others.remove(at);
                }
            }
            Act::Wait(time) => {
                tokio::time::sleep(Duration::from_millis((time % PAUSE_MAX_MS).into())).await;
            }
            Act::Talk => self.talk().await,
        }
    }

    fn on(&mut self, on: u8) -> Option<&mut Connection> {
        let count = self.others.len().max(1);
        self.others.get_mut(usize::from(on) % count)
    }

    fn say(&mut self, on: u8, bytes: Bytes, times: u8) {
        // A carrier lets nothing larger through.
        if bytes.len() > pli_domain::limits::FRAME_BYTES_MAX {
            return;
        }
        if let Some(connection) = self.on(on) {
            for _ in 0..times {
                connection.wire.say_bytes(bytes.clone());
            }
        }
    }

    async fn open(&mut self, who: Who) {
        let mut wire = Wire::open(&self.cluster, 9);
        let hello = match who {
            Who::Mallory => wire.hello(Some(&self.identities[MALLORY])).await,
            Who::Dave => wire.hello(Some(&self.identities[DAVE])).await,
            Who::Nobody => wire.hello(None).await,
            Who::Silent => None,
            Who::Impostor => wire.hello(Some(&self.identities[MALLORY])).await.map(|hello| self.as_alice(hello)),
            Who::Mutated(changes) => {
                if let Some(hello) = wire.hello(Some(&self.identities[MALLORY])).await {
                    let bytes = mutated(&hello.encode_to_vec(), &changes);
                    if bytes.len() <= pli_domain::limits::FRAME_BYTES_MAX {
                        wire.say_bytes(bytes.into());
                    }
                }
                None
            }
        };
        if let Some(hello) = hello {
            wire.say(hello);
        }
        self.others.push(Connection { wire, deaf: false, delivered: 0 });
    }

    fn as_alice(&self, mut hello: ClientFrame) -> ClientFrame {
        if let Some(client_frame::Frame::Hello(hello)) = &mut hello.frame {
            let address = self.identities[ALICE].address();
            hello.account = Bytes::copy_from_slice(address.account.as_bytes());
            hello.device = Bytes::copy_from_slice(address.device.as_bytes());
        }
        hello
    }

    /// What the others were sent: nothing of the two's conversation.
    fn look(&mut self) {
        let chat = self.tape.chat.0;
        for connection in self.others.iter_mut().filter(|connection| !connection.deaf) {
            for frame in connection.wire.at_hand() {
                let Frame::Deliver(deliver) = frame else { continue };
                connection.delivered = deliver.position;
                let envelope = Envelope::decode(deliver.envelope).expect("an owner gives out envelopes");
                assert!(envelope.conversation != chat.as_bytes().as_slice(), "told to somebody else: {envelope:?}");
            }
        }
    }

    /// Each of the two says something, which the server takes and the other one gets.
    async fn talk(&mut self) {
        let (id, epoch) = self.tape.chat;
        for alice_speaks in [true, false] {
            self.said += 1;
            let body = Bytes::from(vec![self.said; 40]);
            let send = Send {
                send_id: vec![self.said; 16].into(),
                conversation: Bytes::copy_from_slice(id.as_bytes()),
                epoch,
                class: Class::Message.into(),
                expires_at_ms: self.cluster.now().after(Duration::from_secs(3_600)).0,
                body: body.clone(),
            };
            let (from, to) = match alice_speaks {
                true => (&mut self.alice, &mut self.bob),
                false => (&mut self.bob, &mut self.alice),
            };
            say_and_hear(from, to, send).await;
        }
    }
}

/// One call of the recording, by whom it was made.
async fn set_up_call(cluster: &Cluster, identities: &[Identity], wires: &mut [Option<Wire>], (n, call): (usize, Call)) {
    let address = u8::try_from(n + 1).expect("a few people");
    let registers = call.method.ends_with("/Register");
    if wires[n].is_none() {
        let identity = (!registers).then(|| &identities[n]);
        wires[n] = Some(Wire::session(cluster, address, identity).await);
    }
    let Some(wire) = &mut wires[n] else { return };
    let method = call.method.clone();
    let result = wire.call(call).await.result;
    assert!(matches!(result, Some(reply::Result::Body(_))), "the recording can be played again: {method} {result:?}");
    if registers {
        wires[n] = None;
    }
}

/// Sends and acknowledges as an honest client does.
async fn say_and_hear(from: &mut Wire, to: &mut Wire, send: Send) {
    let (id, body) = (send.send_id.clone(), send.body.clone());
    from.say(ClientFrame { frame: Some(client_frame::Frame::Send(SendBatch { sends: vec![send] })) });
    let result = from.until(|frame| match frame {
        Frame::SendResults(results) => results.results.into_iter().find(|result| result.send_id == id),
        _ => None,
    });
    let result = result.await.expect("an honest send is answered").result;
    assert!(matches!(result, Some(send_result::Result::Accepted(_))), "an honest send is accepted: {result:?}");
    loop {
        let deliver = to.until(|frame| if let Frame::Deliver(deliver) = frame { Some(deliver) } else { None }).await;
        let deliver = deliver.expect("an accepted message arrives");
        to.say(ClientFrame { frame: Some(client_frame::Frame::Ack(Ack { position: deliver.position })) });
        let envelope = Envelope::decode(deliver.envelope).expect("an owner gives out envelopes");
        if envelope.send_id == id {
            assert_eq!(envelope.body_or_ref, Some(envelope::BodyOrRef::Body(body)), "as it was sent");
            return;
        }
    }
}
