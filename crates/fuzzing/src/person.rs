// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device with the real client core and a store in memory, driven as a driver does it; it remembers what it heard and
//! said, which is what others are fuzzed with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use pli_api::edge::{Binding, ClientFrame, Reply, ServerFrame, client_frame, reply, server_frame};
use pli_client_core::{ChangeSet, Command, Core, Effects, Event, Outcome, SessionAdvice, Table};
use pli_domain::{DeviceId, SendId, UnixMillis};
use prost::Message;
use tokio::sync::mpsc::error::TryRecvError;

use crate::cluster::{Cluster, EXPORTER, HOST};
use crate::line::Line;

/// What a core keeps.
pub type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Something that happened to a core.
#[derive(Debug, Clone)]
pub enum Step {
    /// The first frame of a connection.
    Hello(Bytes),
    /// A later one.
    Frame(Bytes),
    /// Time passed.
    Tick,
    /// The user wanted something.
    Command(Command),
    /// The connection was lost.
    Lost,
}

/// Begins with a program's start: what it loaded, and what happened until its end.
#[derive(Debug, Clone)]
pub struct Life {
    /// Of its core.
    pub seed: [u8; 32],
    /// When it began.
    pub began: UnixMillis,
    /// What it loaded.
    pub rows: Rows,
    /// Messages that were shown before it.
    pub shown: BTreeSet<(DeviceId, SendId)>,
    /// What happened, and when.
    pub steps: Vec<(UnixMillis, Step)>,
}

/// See the module.
pub struct Person {
    /// The client.
    pub core: Core,
    /// What it committed.
    pub rows: Rows,
    /// What it showed.
    pub events: Vec<Event>,
    /// Every frame that it sent, each with its place among those of all people of the cluster.
    pub sent: Vec<(u64, Bytes)>,
    /// What its calls were answered: the method and the encoded answer.
    pub answers: Vec<(String, Bytes)>,
    /// Its lives since the first restart.
    pub lives: Vec<Life>,
    address: u8,
    link: Option<Line>,
    greeted: bool,
    waiting: VecDeque<Bytes>,
    asked: BTreeMap<u64, String>,
    connect_at: Option<UnixMillis>,
}

/// Carries out the changes of a step.
pub fn commit(rows: &mut Rows, changes: ChangeSet) {
    for change in changes.0 {
        match change.value {
            Some(value) => drop(rows.insert((change.table, change.key), value)),
            None => drop(rows.remove(&(change.table, change.key))),
        }
    }
}

/// The core that these rows describe.
///
/// # Panics
/// When they describe none: whatever happened to a core, what it committed is one.
pub fn load(rows: &Rows, seed: [u8; 32], now: UnixMillis) -> Core {
    let all = rows.iter().map(|((table, key), value)| (*table, key.clone(), value.clone()));
    Core::load(seed, all, now).expect("what a core committed is a core")
}

impl Person {
    /// Nobody knows the handle yet; connects at once.
    ///
    /// # Panics
    /// When `name` is no handle.
    pub fn new(name: &str, number: u8, now: UnixMillis) -> Self {
        let (core, changes) = Core::create(name.parse().expect("a handle"), [number; 32], now);
        let mut rows = Rows::new();
        commit(&mut rows, changes);
        Self {
            core,
            rows,
            events: Vec::new(),
            sent: Vec::new(),
            answers: Vec::new(),
            lives: Vec::new(),
            address: number,
            link: None,
            greeted: false,
            waiting: VecDeque::new(),
            asked: BTreeMap::new(),
            connect_at: Some(now),
        }
    }

    /// Ends the program and starts it again; a new life begins, which connects at once.
    pub fn restart(&mut self, seed: u8, now: UnixMillis) {
        let shown = self.events.iter().filter_map(|event| match event {
            Event::Message(message) | Event::OwnMessage(message) => Some((message.device, message.send_id)),
            _ => None,
        });
        let shown = shown.collect();
        let life = Life { seed: [seed; 32], began: now, rows: self.rows.clone(), shown, steps: Vec::new() };
        self.core = load(&life.rows, life.seed, now);
        self.lives.push(life);
        self.drop_link();
        self.connect_at = Some(now);
    }

    /// Loses the connection; there is a new one when the core wants it.
    pub fn lose(&mut self, now: UnixMillis) {
        self.remember(now, Step::Lost);
        self.drop_link();
        let effects = self.core.disconnected(now);
        self.apply(effects, now);
    }

    fn drop_link(&mut self) {
        self.link = None;
        self.greeted = false;
        self.waiting.clear();
        self.asked.clear();
    }

    /// Gives a command.
    ///
    /// # Panics
    /// When it is refused.
    pub fn command(&mut self, command: Command, now: UnixMillis) -> Outcome {
        self.remember(now, Step::Command(command.clone()));
        let effects = self.core.command(command, now).expect("the command is taken");
        let outcome = effects.outcome;
        self.apply(effects, now);
        outcome
    }

    fn remember(&mut self, now: UnixMillis, step: Step) {
        if let Some(life) = self.lives.last_mut() {
            life.steps.push((now, step));
        }
    }

    fn apply(&mut self, effects: Effects, now: UnixMillis) {
        commit(&mut self.rows, effects.changes);
        if self.link.is_some() {
            self.asked.extend(effects.frames.iter().filter_map(call));
            self.waiting.extend(effects.frames.iter().map(|frame| Bytes::from(frame.encode_to_vec())));
        }
        self.events.extend(effects.events);
        match effects.session {
            SessionAdvice::Keep => {}
            SessionAdvice::Reconnect { after, .. } => {
                self.drop_link();
                self.connect_at = Some(now.after(after));
            }
            SessionAdvice::Stop { .. } => self.drop_link(),
        }
    }

    /// Moves on as far as it can; whether anything happened.
    pub fn step(&mut self, cluster: &Cluster) -> bool {
        let now = cluster.now();
        let mut moved = false;
        if self.link.is_none() && self.connect_at.is_some_and(|at| at <= now) && cluster.is_quiet() {
            self.connect_at = None;
            self.link = Some(cluster.connect(self.address));
            moved = true;
        }
        moved |= self.hear(now);
        if self.core.next_deadline().is_some_and(|at| at <= now) {
            self.remember(now, Step::Tick);
            let effects = self.core.tick(now);
            self.apply(effects, now);
            moved = true;
        }
        if let Some(line) = &self.link {
            while let Some(frame) = self.waiting.front() {
                if !cluster.is_quiet() || !line.say(frame.clone()) {
                    break;
                }
                self.sent.extend(self.waiting.pop_front().map(|frame| (cluster.next(), frame)));
                moved = true;
            }
        }
        moved
    }

    /// Takes what came.
    fn hear(&mut self, now: UnixMillis) -> bool {
        let Some(line) = &mut self.link else { return false };
        match line.try_hear() {
            Ok(frame) => {
                self.take(frame, now);
                true
            }
            Err(TryRecvError::Empty) => false,
            Err(TryRecvError::Disconnected) => {
                self.lose(now);
                true
            }
        }
    }

    fn note_answer(&mut self, frame: &ServerFrame) {
        let Some(server_frame::Frame::Reply(Reply { id, result: Some(reply::Result::Body(body)) })) = &frame.frame
        else {
            return;
        };
        self.answers.extend(self.asked.remove(id).map(|method| (method, body.clone())));
    }

    fn take(&mut self, bytes: Bytes, now: UnixMillis) {
        let frame = ServerFrame::decode(bytes.clone()).expect("the edge sends frames");
        if self.greeted {
            self.note_answer(&frame);
            self.remember(now, Step::Frame(bytes));
            let effects = self.core.frame(frame, now);
            return self.apply(effects, now);
        }
        self.remember(now, Step::Hello(bytes));
        self.greeted = true;
        if let Some(answer) = greet(&mut self.core, frame, now) {
            self.waiting.push_back(answer.encode_to_vec().into());
        }
    }
}

/// Id and method, where it is a call.
pub fn call(frame: &ClientFrame) -> Option<(u64, String)> {
    match &frame.frame {
        Some(client_frame::Frame::Call(call)) => Some((call.id, call.method.clone())),
        _ => None,
    }
}

/// The answer of a core to the first frame of a connection, where there is one.
pub fn greet(core: &mut Core, frame: ServerFrame, now: UnixMillis) -> Option<ClientFrame> {
    let Some(server_frame::Frame::Hello(hello)) = frame.frame else { return None };
    core.handshake(&hello, HOST, (Binding::TlsExporter, &EXPORTER), now).ok()
}

/// Lets everybody move until `done`, at most so long; whether that came about.
pub async fn play(
    people: &mut [Person],
    cluster: &Cluster,
    most: Duration,
    mut done: impl FnMut(&[Person]) -> bool,
) -> bool {
    let end = cluster.now().after(most);
    while !done(people) {
        let mut moved = false;
        for person in people.iter_mut() {
            moved |= person.step(cluster);
        }
        if cluster.now() > end {
            return false;
        }
        if moved {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    true
}
