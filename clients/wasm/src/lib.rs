// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client core for browsers: one object that takes and gives bytes.
//!
//! A page owns a WebSocket, a clock, a random source and a store. It gives [`Client`] what happened, and after every call
//! does three things in this order: commits what [`Client::save`] gives in one transaction, sends what [`Client::frames`]
//! gives, shows what [`Client::shown`] gives. Nothing else is needed to start anew from the store.
//!
//! A page may append what is saved to what it has. Keys that are used up stand in that until it is compacted, and open
//! whatever somebody recorded of what was sent: [`Client::is_stale`] says when a page is to put [`Client::compacted`] in the
//! place of everything that it has stored, in one transaction; within a second, as other clients do, and once when it starts.
//! What a browser or a disk keeps of overwritten values is beyond a page.
//!
//! Times are milliseconds since 1970, as `Date.now()` gives them.

mod saved;

use bytes::Bytes;
use pli_api::edge::{Binding, ServerFrame, server_frame};
use pli_client_core::{ChangeSet, Command, Core, Effects, Event, SessionAdvice};
use pli_domain::{ConversationId, UnixMillis};
use prost::Message;
use wasm_bindgen::prelude::{JsError, wasm_bindgen};

/// A device of an account.
#[wasm_bindgen]
pub struct Client {
    core: Core,
    changes: ChangeSet,
    frames: Vec<Vec<u8>>,
    shown: Vec<String>,
    reconnect_after_ms: Option<f64>,
    /// What was saved since the store was last compacted.
    is_stale: bool,
}

#[wasm_bindgen]
impl Client {
    /// The first device of a new account, which registers this handle when it joins. `seed`: 32 fresh random bytes.
    #[wasm_bindgen(constructor)]
    pub fn new(handle: &str, seed: &[u8], now_ms: f64) -> Result<Client, JsError> {
        let (core, changes) = Core::create(handle.parse()?, seed_of(seed)?, time(now_ms));
        Ok(Self { changes, ..Self::of(core) })
    }

    /// The device that the saved bytes describe, all that [`Client::save`] ever gave one behind the other. `seed`: 32 fresh
    /// random bytes.
    pub fn load(saved: &[u8], seed: &[u8], now_ms: f64) -> Result<Client, JsError> {
        let core = Core::load(seed_of(seed)?, saved::rows(saved)?, time(now_ms))?;
        Ok(Self { is_stale: true, ..Self::of(core) })
    }

    /// Makes a group of this name with these people, whose handles are separated by blanks. Answers its id, 16 bytes.
    pub fn create(&mut self, name: &str, handles: &str, now_ms: f64) -> Result<Vec<u8>, JsError> {
        let handles = handles.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let effects = self.core.command(Command::CreateGroup { name: name.into(), handles }, time(now_ms))?;
        let made = effects.outcome.conversation;
        self.take(effects);
        made.map(|id| id.as_bytes().to_vec()).ok_or_else(|| JsError::new("no group was made"))
    }

    /// Joins the server with the first frame of a new connection, its hello. `origin` is the page's, which the answer is
    /// bound to; `host` what the connection went to, with its port where that is not 443.
    pub fn join(&mut self, hello: &[u8], host: &str, origin: &str, now_ms: f64) -> Result<(), JsError> {
        let frame = ServerFrame::decode(hello)?.frame;
        let Some(server_frame::Frame::Hello(hello)) = frame else { return Err(JsError::new("not a server's hello")) };
        let binding = (Binding::Origin, origin.as_bytes());
        let answer = self.core.handshake(&hello, host, binding, time(now_ms))?;
        self.reconnect_after_ms = None;
        self.frames.push(answer.encode_to_vec());
        Ok(())
    }

    /// Says something in a conversation.
    pub fn send(&mut self, conversation: &[u8], text: &str, now_ms: f64) -> Result<(), JsError> {
        let conversation = ConversationId::try_from(conversation).map_err(|_| JsError::new("an id has 16 bytes"))?;
        let effects = self.core.command(Command::SendText { conversation, text: text.into() }, time(now_ms))?;
        self.take(effects);
        Ok(())
    }

    /// Takes in a frame of the server.
    pub fn receive(&mut self, frame: &[u8], now_ms: f64) -> Result<(), JsError> {
        let frame = ServerFrame::decode(Bytes::copy_from_slice(frame))?;
        let effects = self.core.frame(frame, time(now_ms));
        self.take(effects);
        Ok(())
    }

    /// It is [`Client::due_ms`], or later.
    pub fn tick(&mut self, now_ms: f64) {
        let effects = self.core.tick(time(now_ms));
        self.take(effects);
    }

    /// The connection is gone.
    pub fn disconnected(&mut self, now_ms: f64) {
        let effects = self.core.disconnected(time(now_ms));
        self.take(effects);
    }

    /// When [`Client::tick`] is to be called; none while nothing is due.
    pub fn due_ms(&self) -> Option<f64> {
        self.core.next_deadline().map(|at| at.0 as f64)
    }

    /// How long after the call that says so to connect anew, until [`Client::join`]; none while the connection is to be
    /// kept, infinity where the user has to act first.
    pub fn reconnect_after_ms(&self) -> Option<f64> {
        self.reconnect_after_ms
    }

    /// What is to be committed since this was last called, before anything leaves. Empty where nothing is.
    pub fn save(&mut self) -> Vec<u8> {
        let changes = std::mem::take(&mut self.changes);
        self.is_stale |= !changes.0.is_empty();
        saved::bytes(changes)
    }

    /// Whether something was saved since the store was last compacted, or this client loaded: it may hold keys that are used
    /// up.
    pub fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// What is to stand in the place of `saved`, all that is stored: the same without anything that was replaced or
    /// deleted. [`Client::is_stale`] is false from here on, until more is saved.
    pub fn compacted(&mut self, saved: &[u8]) -> Result<Vec<u8>, JsError> {
        let compacted = saved::compacted(saved)?;
        self.is_stale = false;
        Ok(compacted)
    }

    /// The next frame to send, once what was saved is durable.
    pub fn frames(&mut self) -> Option<Vec<u8>> {
        (!self.frames.is_empty()).then(|| self.frames.remove(0))
    }

    /// The next line to show, once what was saved is durable.
    pub fn shown(&mut self) -> Option<String> {
        (!self.shown.is_empty()).then(|| self.shown.remove(0))
    }
}

impl Client {
    fn of(core: Core) -> Self {
        let changes = ChangeSet::default();
        Self { core, changes, frames: Vec::new(), shown: Vec::new(), reconnect_after_ms: None, is_stale: false }
    }

    fn take(&mut self, effects: Effects) {
        self.changes.0.extend(effects.changes.0);
        self.frames.extend(effects.frames.iter().map(Message::encode_to_vec));
        self.shown.extend(effects.events.iter().filter_map(line));
        let reconnect_after_ms = match effects.session {
            SessionAdvice::Keep => return,
            SessionAdvice::Reconnect { after, .. } => after.as_secs_f64() * 1e3,
            SessionAdvice::Stop { .. } => f64::INFINITY,
        };
        // They were for the connection that ends.
        self.frames.clear();
        self.reconnect_after_ms = Some(reconnect_after_ms);
    }
}

fn line(event: &Event) -> Option<String> {
    let who = |handle: &Option<pli_domain::Handle>| handle.as_ref().map(ToString::to_string).unwrap_or_default();
    match event {
        Event::Message(message) => Some(format!("{}: {}", who(&message.from.handle), message.text)),
        Event::OwnMessage(message) => Some(format!("me: {}", message.text)),
        Event::Registered { handle } => Some(format!("registered as {handle}")),
        Event::ConversationReady { name, .. } => Some(format!("ready: {}", name.clone().unwrap_or_default())),
        _ => None,
    }
}

fn seed_of(seed: &[u8]) -> Result<[u8; 32], JsError> {
    seed.try_into().map_err(|_| JsError::new("a seed has 32 bytes"))
}

fn time(now_ms: f64) -> UnixMillis {
    // From a float `as` is saturating, and no clock is before 1970.
    UnixMillis(now_ms as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: f64 = 1_000_000.0;

    fn new() -> Client {
        Client::new("alice", &[1; 32], NOW).unwrap_or_else(|_| panic!("a handle and a seed"))
    }

    #[test]
    fn a_client_starts_anew_from_what_it_saved() {
        let mut client = new();
        let mut saved = client.save();
        let group = client.create("team", "bob carol", NOW).unwrap_or_else(|_| panic!("a group"));
        saved.extend(client.save());
        assert!(client.save().is_empty(), "all of it was given");
        let again = Client::load(&saved, &[2; 32], NOW).unwrap_or_else(|_| panic!("it was saved"));
        assert_eq!(again.core.address(), client.core.address());
        let id = ConversationId::try_from(group.as_slice()).expect("an id");
        assert_eq!(again.core.conversation(id).expect("saved").label, "team");
    }

    #[test]
    fn a_compacted_store_is_the_same_client_and_stale_when_more_is_saved() {
        let mut client = new();
        let mut saved = client.save();
        for n in 0..20 {
            assert!(client.create(&format!("team {n}"), "bob", NOW).is_ok());
            saved.extend(client.save());
        }
        assert!(client.is_stale());
        let compacted = client.compacted(&saved).unwrap_or_else(|_| panic!("it was saved"));
        assert!(!client.is_stale() && compacted.len() <= saved.len(), "{} of {}", compacted.len(), saved.len());
        let mut again = Client::load(&compacted, &[2; 32], NOW).unwrap_or_else(|_| panic!("it was saved"));
        assert!(again.is_stale(), "whoever stored it may not have come to that");
        assert_eq!(again.core.conversations().len(), client.core.conversations().len());
        let same = again.compacted(&compacted).unwrap_or_else(|_| panic!("it was saved"));
        assert!(same == compacted && !again.is_stale());
        again.tick(NOW + 1.0);
        assert!(client.create("one more", "bob", NOW).is_ok());
        assert!(!client.is_stale() && !client.save().is_empty() && client.is_stale());
    }

    #[test]
    fn a_lost_connection_says_when_to_come_back_until_the_next_one() {
        let mut client = new();
        client.disconnected(NOW);
        assert!(client.reconnect_after_ms().is_some_and(|after| after <= 5_000.0));
        let hello = pli_api::edge::ServerHello { nonce: vec![5; 32].into(), versions: vec![1], now_ms: 0 };
        let hello = ServerFrame { frame: Some(server_frame::Frame::Hello(hello)) }.encode_to_vec();
        assert!(client.join(&hello, "localhost", "https://localhost", NOW).is_ok());
        assert!(client.reconnect_after_ms().is_none() && client.frames().is_some() && client.frames().is_none());
    }
}
