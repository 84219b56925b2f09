// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client whose server lies: it hears what it once really heard, until frames are changed, lost, doubled, put elsewhere
//! or made up. Whatever that is, the client does not panic, shows what people really wrote and nothing else, each
//! once and in order, keeps within its bounds, and what it has committed can be loaded again.

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use pli_api::edge::{Deliver, ServerFrame, server_frame};
use pli_client_core::{Core, Effects, Event, IncomingMessage};
use pli_domain::{ConversationId, DeviceId, SendId, UnixMillis};
use prost::Message;

use crate::mutate::{Change, mutated};
use crate::person::{Life, Rows, Step, commit, greet, load};
use crate::tape::{Tape, tape};

/// Most lies of one run.
const LIES_MAX: usize = 24;
/// Most frames that one step may make, and most bytes that it may commit: far above what any honest step needs.
const FRAMES_MAX: usize = 2_000;
const COMMITTED_MAX: usize = 8 * 1024 * 1024;

/// What is wrong at one step of a life.
#[derive(Debug, Clone, Arbitrary)]
enum Lie {
    /// The frame does not come.
    Lose,
    /// It comes so many times more.
    Again(u8),
    /// It comes changed.
    Changed(Vec<Change>),
    /// It comes, and then a changed copy of it.
    Followed(Vec<Change>),
    /// A frame of any life comes first, changed.
    Foreign { life: u8, step: u16, changes: Vec<Change> },
    /// It comes so many steps later.
    Late(u8),
    /// What it delivers and what a later one delivers come in each other's place in the queue.
    Exchanged(u8),
    /// Behind it comes again, at a new place in the queue, what an earlier one delivered.
    Replayed(u8),
    /// Bytes that nobody sent come first.
    MadeUp(Vec<u8>),
    /// Time passes first, in milliseconds.
    Wait(u32),
    /// The connection is lost, and there is a new one, which begins with the hello that was heard last.
    Reconnect,
    /// The program ends and is started again from what it committed.
    Restart,
}

#[derive(Debug, Arbitrary)]
struct Input {
    life: u8,
    lies: Vec<(u16, Lie)>,
}

/// Runs one input.
///
/// # Panics
/// When the client does what it must not.
pub fn client(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let tape = tape();
    let life = &tape.lives[usize::from(input.life) % tape.lives.len()];
    let mut lies: BTreeMap<usize, Vec<Lie>> = BTreeMap::new();
    for (at, lie) in input.lies.into_iter().take(LIES_MAX) {
        lies.entry(usize::from(at) % life.steps.len().max(1)).or_default().push(lie);
    }
    let mut victim = Victim::new(tape, life);
    let mut steps = life.steps.clone();
    let mut at = 0;
    while at < steps.len() {
        let lies = lies.remove(&at).unwrap_or_default();
        rearrange(&mut steps, at, &lies);
        let (when, step) = steps[at].clone();
        victim.live(at, when, &step, lies);
        at += 1;
    }
    victim.end();
}

/// What a frame delivers.
fn delivery(step: &Step) -> Option<Deliver> {
    let Step::Frame(bytes) = step else { return None };
    match ServerFrame::decode(bytes.clone()).ok()?.frame? {
        server_frame::Frame::Deliver(deliver) => Some(deliver),
        _ => None,
    }
}

fn delivers(deliver: Deliver) -> Step {
    Step::Frame(ServerFrame { frame: Some(server_frame::Frame::Deliver(deliver)) }.encode_to_vec().into())
}

/// The lies that are about the queue as a whole.
fn rearrange(steps: &mut Vec<(UnixMillis, Step)>, at: usize, lies: &[Lie]) {
    for lie in lies {
        let Some(mut here) = delivery(&steps[at].1) else { return };
        match lie {
            Lie::Exchanged(n) => {
                let later = steps[at + 1..].iter().enumerate();
                let later = later.filter_map(|(n, (_, step))| Some((at + 1 + n, delivery(step)?)));
                if let Some((there, mut other)) = later.take(usize::from(*n) + 1).last() {
                    std::mem::swap(&mut here.envelope, &mut other.envelope);
                    steps[at].1 = delivers(here);
                    steps[there].1 = delivers(other);
                }
            }
            Lie::Replayed(n) => {
                let earlier = steps[..=at].iter().rev().filter_map(|(_, step)| delivery(step));
                if let Some(other) = earlier.take(usize::from(*n) + 1).last() {
                    here = Deliver { position: here.position + 1, previous: here.position, ..other };
                    steps.insert(at + 1, (steps[at].0, delivers(here)));
                }
            }
            _ => {}
        }
    }
}

struct Victim<'a> {
    tape: &'a Tape,
    core: Core,
    rows: Rows,
    now: UnixMillis,
    /// What was waited for besides what the recording did.
    waited: u64,
    seed: [u8; 32],
    hello: Bytes,
    late: Vec<(usize, Bytes)>,
    shown: BTreeSet<(DeviceId, SendId)>,
    newest: BTreeMap<(ConversationId, DeviceId), u64>,
}

impl<'a> Victim<'a> {
    fn new(tape: &'a Tape, life: &Life) -> Self {
        Self {
            tape,
            core: load(&life.rows, life.seed, life.began),
            rows: life.rows.clone(),
            now: life.began,
            waited: 0,
            seed: life.seed,
            hello: Bytes::new(),
            late: Vec::new(),
            shown: life.shown.clone(),
            newest: BTreeMap::new(),
        }
    }

    /// One step, with what is wrong about it.
    fn live(&mut self, at: usize, when: UnixMillis, step: &Step, lies: Vec<Lie>) {
        self.now = UnixMillis(when.0.saturating_add(self.waited));
        let (mut copies, mut frame) = (1, None);
        if let Step::Frame(bytes) = step {
            frame = Some(bytes.clone());
        }
        let mut after = Vec::new();
        for lie in lies {
            match lie {
                Lie::Lose => copies = 0,
                Lie::Again(times) => copies += usize::from(times),
                Lie::Changed(changes) => frame = frame.map(|bytes| mutated(&bytes, &changes).into()),
                Lie::Followed(changes) => after.extend(frame.as_ref().map(|bytes| mutated(bytes, &changes).into())),
                Lie::Late(steps) => self.late.extend(frame.take().map(|bytes| (at + usize::from(steps), bytes))),
                other => self.lie(other),
            }
        }
        match step {
            Step::Frame(_) => {
                for bytes in std::iter::repeat_n(frame, copies).flatten().chain(after) {
                    self.hear(bytes);
                }
            }
            Step::Hello(bytes) => {
                self.hello = bytes.clone();
                self.greet(bytes.clone());
            }
            Step::Tick => self.step(Core::tick),
            Step::Lost => self.step(Core::disconnected),
            Step::Command(command) => {
                // After a lie it may be refused.
                if let Ok(effects) = self.core.command(command.clone(), self.now) {
                    self.apply(effects);
                }
            }
        }
        let (due, late) = std::mem::take(&mut self.late).into_iter().partition(|(due, _)| *due <= at);
        self.late = late;
        let due: Vec<(usize, Bytes)> = due;
        due.into_iter().for_each(|(_, bytes)| self.hear(bytes));
    }

    /// What is wrong besides the frame itself.
    fn lie(&mut self, lie: Lie) {
        match lie {
            Lie::Foreign { life, step, changes } => {
                let steps = &self.tape.lives[usize::from(life) % self.tape.lives.len()].steps;
                if let Some((_, Step::Frame(bytes) | Step::Hello(bytes))) = steps.get(usize::from(step) % steps.len()) {
                    self.hear(mutated(bytes, &changes).into());
                }
            }
            Lie::MadeUp(bytes) => self.hear(bytes.into()),
            Lie::Wait(time) => {
                self.waited += u64::from(time);
                self.now = UnixMillis(self.now.0.saturating_add(time.into()));
                self.step(Core::tick);
            }
            Lie::Reconnect => {
                self.step(Core::disconnected);
                self.greet(self.hello.clone());
            }
            Lie::Restart => {
                self.seed[0] ^= 0x80;
                self.core = load(&self.rows, self.seed, self.now);
                self.greet(self.hello.clone());
            }
            _ => {}
        }
    }

    fn greet(&mut self, bytes: Bytes) {
        if let Ok(frame) = ServerFrame::decode(bytes) {
            let _ = greet(&mut self.core, frame, self.now);
        }
    }

    /// A driver ends the connection over bytes that are no frame.
    fn hear(&mut self, bytes: Bytes) {
        match ServerFrame::decode(bytes) {
            Ok(frame) => {
                let effects = self.core.frame(frame, self.now);
                self.apply(effects);
            }
            Err(_) => self.step(Core::disconnected),
        }
    }

    fn step(&mut self, step: impl FnOnce(&mut Core, UnixMillis) -> Effects) {
        let effects = step(&mut self.core, self.now);
        self.apply(effects);
    }

    fn apply(&mut self, effects: Effects) {
        assert!(effects.frames.len() <= FRAMES_MAX, "{} frames in one step", effects.frames.len());
        let committed: usize = effects.changes.0.iter().filter_map(|c| c.value.as_ref()).map(Vec::len).sum();
        assert!(committed <= COMMITTED_MAX, "{committed} bytes in one step");
        commit(&mut self.rows, effects.changes);
        for event in &effects.events {
            if let Event::Message(message) | Event::OwnMessage(message) = event {
                self.judge(message);
            }
        }
    }

    fn judge(&mut self, message: &IncomingMessage) {
        let written = self.tape.written.get(&message.device);
        assert!(written.is_some_and(|texts| texts.contains(&message.text)), "nobody wrote {message:?}");
        assert!(self.shown.insert((message.device, message.send_id)), "shown twice: {message:?}");
        let newest = self.newest.entry((message.conversation, message.device)).or_default();
        assert!(message.late || message.lane_no > *newest, "out of order: {message:?} after {newest}");
        *newest = message.lane_no.max(*newest);
    }

    fn end(mut self) {
        self.now = UnixMillis(self.now.0.saturating_add(60_000));
        self.step(Core::tick);
        let _ = load(&self.rows, [9; 32], self.now);
    }
}
