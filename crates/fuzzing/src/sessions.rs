// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server with whoever comes: members and strangers whose sessions are valid until they are mutated, connections that say
//! nothing sensible, and beside them two people. Whatever the others do, nothing panics, the two stay connected, their
//! messages arrive, and what is in their conversation goes to nobody else; what one of them has uploaded stays as it was put
//! and goes to nobody else.

mod seeds;

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use pli_api::edge::server_frame::Frame;
use pli_api::edge::{Ack, Call, ClientFrame, Reply, Send, SendBatch, client_frame, reply, send_result};
use pli_api::log::{Class, Envelope, envelope};
use pli_api::media::{GetPartRequest, GetPartResponse};
use pli_client_core::identity::Identity;
use pli_domain::DeviceId;
use prost::Message;

use crate::cluster::{Cluster, runtime};
use crate::mutate::{Change, mutated};
use crate::tape::{ALICE, BOB, DAVE, MALLORY, Tape, identity, tape};
use crate::templates::{UPLOAD, templates, upload_calls};
use crate::wire::Wire;
pub(crate) use seeds::seeds;

/// Most steps of one run, and most connections at a time.
const ACTS_MAX: usize = 40;
const OPEN_MAX: usize = 6;
/// Most frames of one step that plays.
const PLAYED_MAX: u8 = 64;
/// What Alice has uploaded.
const UPLOADED: [u8; 48] = *b"sealed by alice for another one of her devices..";
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
        // Whoever read nothing was sent something all the same.
        stage.others.iter_mut().for_each(|connection| connection.deaf = false);
        stage.look();
        stage.read_back().await;
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
        this.upload().await;
        this.talk().await;
        this
    }

    /// Alice uploads something by the name that everybody uses.
    async fn upload(&mut self) {
        for (method, body) in upload_calls(&UPLOADED) {
            self.ask(method, body).await;
        }
    }

    /// What she has uploaded is there.
    async fn read_back(&mut self) {
        let request = GetPartRequest { upload: UPLOAD.to_vec().into(), number: 1 };
        let body = self.ask("/pli.media.v1.Media/GetPart", request.encode_to_vec()).await;
        let read = GetPartResponse::decode(body).expect("media answers what it says");
        assert_eq!(read.part.as_ref(), UPLOADED, "as it was put");
    }

    /// A call of Alice, which is answered.
    async fn ask(&mut self, method: &str, body: Vec<u8>) -> Bytes {
        let call = Call { id: 1 << 20, method: method.into(), body: body.into() };
        match self.alice.call(call).await.result {
            Some(reply::Result::Body(body)) => body,
            refused => panic!("an honest call is answered: {method} {refused:?}"),
        }
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
                    acknowledge(&connection.wire, connection.delivered);
                }
            }
            Act::Deafen(on) => {
                if let Some(connection) = self.on(on) {
                    connection.deaf = true;
                }
            }
            Act::Close(on) => {
                self.look();
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

    /// What the others were sent: nothing of the two's conversation, nothing of what Alice has uploaded.
    fn look(&mut self) {
        let chat = self.tape.chat.0;
        for connection in self.others.iter_mut().filter(|connection| !connection.deaf) {
            for frame in connection.wire.at_hand() {
                match frame {
                    Frame::Deliver(deliver) => {
                        connection.delivered = deliver.position;
                        let envelope = Envelope::decode(deliver.envelope).expect("an owner gives out envelopes");
                        let told = envelope.conversation == chat.as_bytes().as_slice();
                        assert!(!told, "told to somebody else: {envelope:?}");
                    }
                    Frame::Reply(Reply { result: Some(reply::Result::Body(body)), .. }) => {
                        let holds = body.windows(UPLOADED.len()).any(|part| part == UPLOADED);
                        assert!(!holds, "read by somebody else: {body:?}");
                    }
                    _ => {}
                }
            }
        }
    }

    /// Each of the two says something, which the server takes and the other one gets.
    async fn talk(&mut self) {
        let (id, epoch) = self.tape.chat;
        let two = [ALICE, BOB].map(|n| self.identities[n].address().device);
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
            say_and_hear(from, to, (send, two)).await;
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

fn acknowledge(wire: &Wire, position: u64) {
    wire.say(ClientFrame { frame: Some(client_frame::Frame::Ack(Ack { position })) });
}

/// Sends and acknowledges as an honest client does.
async fn say_and_hear(from: &mut Wire, to: &mut Wire, (send, two): (Send, [DeviceId; 2])) {
    let chat = send.conversation.clone();
    let (id, body) = (send.send_id.clone(), send.body.clone());
    from.say(ClientFrame { frame: Some(client_frame::Frame::Send(SendBatch { sends: vec![send] })) });
    let result = loop {
        match from.next().await.expect("an honest send is answered") {
            Frame::SendResults(results) => {
                if let Some(of) = results.results.into_iter().find(|result| result.send_id == id) {
                    break of.result;
                }
            }
            // What is not acknowledged fills the window, and nothing comes any more.
            Frame::Deliver(deliver) => acknowledge(from, deliver.position),
            _ => {}
        }
    };
    assert!(matches!(result, Some(send_result::Result::Accepted(_))), "an honest send is accepted: {result:?}");
    loop {
        let deliver = to.until(|frame| if let Frame::Deliver(deliver) = frame { Some(deliver) } else { None }).await;
        let deliver = deliver.expect("an accepted message arrives");
        acknowledge(to, deliver.position);
        let envelope = Envelope::decode(deliver.envelope).expect("an owner gives out envelopes");
        let by = envelope.sender.as_ref().and_then(|sender| DeviceId::try_from(sender.device.as_ref()).ok());
        let by_one_of_them = by.is_some_and(|by| two.contains(&by));
        assert!(envelope.conversation != chat || by_one_of_them, "said by somebody else: {envelope:?}");
        if envelope.send_id == id {
            assert_eq!(envelope.body_or_ref, Some(envelope::BodyOrRef::Body(body)), "as it was sent");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use pli_api::media::DeleteUploadRequest;

    use super::*;

    #[test]
    fn the_seeds_open_every_kind_of_session_and_say_every_frame() {
        let (mut who, mut said) = (HashSet::new(), HashSet::new());
        for seed in seeds() {
            let acts = Vec::<Act>::arbitrary_take_rest(Unstructured::new(&seed)).expect("acts");
            assert!(acts.len() <= ACTS_MAX && matches!(acts.last(), Some(Act::Talk)), "{acts:?}");
            for act in acts {
                match act {
                    Act::Open(of) => drop(who.insert(std::mem::discriminant(&of))),
                    Act::Say { frame, .. } => drop(said.insert(usize::from(frame))),
                    _ => {}
                }
            }
        }
        assert_eq!((who.len(), said.len()), (6, templates().len()));
    }

    #[test]
    #[should_panic(expected = "told to somebody else")]
    fn what_the_two_say_and_somebody_else_is_told_is_noticed() {
        crate::prepare();
        runtime().block_on(async {
            let mut stage = Stage::set_up(tape()).await;
            // As if Bob's session were somebody else's.
            let bob = std::mem::replace(&mut stage.bob, Wire::open(&stage.cluster, 8));
            stage.others.push(Connection { wire: bob, deaf: false, delivered: 0 });
            let (id, epoch) = stage.tape.chat;
            let send = Send {
                send_id: vec![99; 16].into(),
                conversation: Bytes::copy_from_slice(id.as_bytes()),
                epoch,
                class: Class::Message.into(),
                expires_at_ms: stage.cluster.now().after(Duration::from_secs(3_600)).0,
                body: vec![9; 40].into(),
            };
            stage.alice.say(ClientFrame { frame: Some(client_frame::Frame::Send(SendBatch { sends: vec![send] })) });
            tokio::time::sleep(Duration::from_secs(5)).await;
            stage.look();
        });
    }

    #[test]
    #[should_panic(expected = "said by somebody else")]
    fn what_somebody_else_says_to_the_two_is_noticed() {
        crate::prepare();
        runtime().block_on(async {
            let mut stage = Stage::set_up(tape()).await;
            // As if Alice had been somebody else all the time.
            stage.identities.swap(ALICE, MALLORY);
            stage.talk().await;
        });
    }

    #[test]
    #[should_panic(expected = "read by somebody else")]
    fn what_somebody_else_reads_of_an_upload_is_noticed() {
        crate::prepare();
        runtime().block_on(async {
            let mut stage = Stage::set_up(tape()).await;
            stage.open(Who::Dave).await;
            // The same bytes, as if they were hers.
            let read = GetPartRequest { upload: UPLOAD.to_vec().into(), number: 1 };
            let mut calls = upload_calls(&UPLOADED);
            calls.push(("/pli.media.v1.Media/GetPart", read.encode_to_vec()));
            for (id, (method, body)) in (1..).zip(calls) {
                let call = client_frame::Frame::Call(Call { id, method: method.into(), body: body.into() });
                stage.others[0].wire.say(ClientFrame { frame: Some(call) });
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            stage.look();
        });
    }

    #[test]
    #[should_panic(expected = "an honest call is answered: /pli.media.v1.Media/GetPart")]
    fn an_upload_that_is_gone_is_noticed() {
        crate::prepare();
        runtime().block_on(async {
            let mut stage = Stage::set_up(tape()).await;
            let request = DeleteUploadRequest { upload: UPLOAD.to_vec().into() };
            stage.ask("/pli.media.v1.Media/DeleteUpload", request.encode_to_vec()).await;
            stage.read_back().await;
        });
    }
}
