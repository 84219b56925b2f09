// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client whose server lies: it hears what it once really heard, until frames are changed, lost, doubled, put elsewhere
//! or made up. Whatever that is, the client does not panic, shows what people really wrote and nothing else, each
//! once and in order, keeps within its bounds, and what it has committed can be loaded again.

pub(crate) mod seeds;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use pli_api::edge::{Deliver, Reply, ServerFrame, reply, server_frame};
use pli_client_core::content::Kind;
use pli_client_core::{ConversationView, Core, Effects, Event, IncomingMessage};
use pli_domain::limits::{FRAME_BYTES_MAX, QUEUE_BYTES_MAX};
use pli_domain::{ConversationId, DeviceAddress, DeviceId, SendId, UnixMillis};
use prost::Message;

use crate::mutate::{Change, MEMORY_MAX as MUTATING_MAX, mutated};
use crate::person::{Life, Rows, Step, call, commit, greet, load};
use crate::strangers::answers;
use crate::tape::{Tape, tape};

/// Most lies of one run.
const LIES_MAX: usize = 24;
/// Most frames that one step may make, and most bytes that it may commit: far above what any honest step needs.
const FRAMES_MAX: usize = 2_000;
const COMMITTED_MAX: usize = 8 * 1024 * 1024;
/// Questions that are remembered, more than a core asks at a time.
const ASKED_MAX: usize = 32;
/// Frames of a queue that may wait between two counts of its bytes.
const UNCOUNTED_MAX: usize = 64;
/// What a core and its rows are at first, and are loaded from once more.
const STATE_MAX: usize = 8 * 1024 * 1024;
/// Most memory of a run. A client keeps what waits in order, up to [`QUEUE_BYTES_MAX`] and what came since that was counted;
/// a step takes what it commits twice, as changes and as rows; the rest is the liar's: a frame for each lie that holds one
/// back, and the changes that are made.
pub(crate) const MEMORY_MAX: usize = QUEUE_BYTES_MAX
    + UNCOUNTED_MAX * FRAME_BYTES_MAX
    + 2 * COMMITTED_MAX
    + LIES_MAX * FRAME_BYTES_MAX
    + MUTATING_MAX
    + STATE_MAX;

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
    /// A question, counted from the one that was asked last, is answered first: with an answer that is valid for one of its
    /// kind, or that is about a stranger's group, changed.
    Answered { question: u8, answer: u8, changes: Vec<Change> },
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
    let _ = lived(data);
}

/// What the client asked for meanwhile.
fn lived(data: &[u8]) -> BTreeSet<String> {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return Default::default() };
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
    victim.ever_asked
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
    asked: VecDeque<(u64, String)>,
    ever_asked: BTreeSet<String>,
    /// Conversations of two that it was in when the life began.
    pairs: BTreeSet<ConversationId>,
    shown: BTreeSet<(DeviceId, SendId)>,
    newest: BTreeMap<(ConversationId, DeviceId), u64>,
}

impl<'a> Victim<'a> {
    fn new(tape: &'a Tape, life: &Life) -> Self {
        let core = load(&life.rows, life.seed, life.began);
        let ready = core.conversations().into_iter().filter(|view| !view.members.is_empty());
        Self {
            tape,
            asked: VecDeque::new(),
            ever_asked: BTreeSet::new(),
            pairs: ready.map(|view| view.id).filter(|id| tape.pairs.contains_key(id)).collect(),
            core,
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
            Lie::Answered { question, answer, changes } => {
                let place = usize::from(question) % self.asked.len().max(1);
                let Some((id, method)) = self.asked.iter().rev().nth(place) else { return };
                let valid = answers(method);
                let valid = valid.get(usize::from(answer) % valid.len().max(1)).cloned().unwrap_or_default();
                let result = Some(reply::Result::Body(mutated(&valid, &changes).into()));
                let reply = server_frame::Frame::Reply(Reply { id: *id, result });
                self.hear(ServerFrame { frame: Some(reply) }.encode_to_vec().into());
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

    /// A driver ends the connection over bytes that are no frame, and reads none that is larger than the limit.
    fn hear(&mut self, bytes: Bytes) {
        match ServerFrame::decode(bytes.clone()) {
            Ok(frame) if bytes.len() <= FRAME_BYTES_MAX => {
                let effects = self.core.frame(frame, self.now);
                self.apply(effects);
            }
            _ => self.step(Core::disconnected),
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
        self.ever_asked.extend(effects.frames.iter().filter_map(call).map(|(_, method)| method));
        self.asked.extend(effects.frames.iter().filter_map(call));
        self.asked.drain(..self.asked.len().saturating_sub(ASKED_MAX));
        for event in &effects.events {
            if let Event::Message(message) | Event::OwnMessage(message) = event {
                self.judge(message);
            }
        }
        if !effects.events.is_empty() {
            self.judge_pairs();
        }
    }

    /// Whatever a server answers, also together with a stranger, a chat of two stays with the same person and has no other
    /// members.
    fn judge_pairs(&self) {
        for view in self.core.conversations() {
            check_pair(self.tape, &self.pairs, &view);
        }
    }

    fn judge(&mut self, message: &IncomingMessage) {
        let by = DeviceAddress { account: message.from.account, device: message.device };
        let written = self.tape.written.get(&(by, message.conversation));
        assert!(written.is_some_and(|texts| texts.contains(&message.text)), "nobody wrote {message:?}");
        assert!(self.shown.insert((message.device, message.send_id)), "shown twice: {message:?}");
        let newest = self.newest.entry((message.conversation, message.device)).or_default();
        assert!(message.late || message.lane_no > *newest, "out of order: {message:?} after {newest}");
        *newest = message.lane_no.max(*newest);
    }

    fn end(&mut self) {
        self.now = UnixMillis(self.now.0.saturating_add(60_000));
        self.step(Core::tick);
        self.judge_pairs();
        let _ = load(&self.rows, [9; 32], self.now);
    }
}

fn check_pair(tape: &Tape, known: &BTreeSet<ConversationId>, view: &ConversationView) {
    let Some(pair) = tape.pairs.get(&view.id).filter(|_| known.contains(&view.id)) else { return };
    assert_eq!(view.kind, Kind::Direct, "a chat of two others is shown as {view:?}");
    let other = view.members.iter().chain(&view.peer).find(|member| !pair.contains(&member.account));
    assert!(other.is_none(), "a chat of two others is shown as one with {other:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::{BOB, DAVE, identity};

    #[test]
    fn seeds_are_lies_about_every_kind_of_answer() {
        let inputs = seeds::seeds();
        let lies = |data: &Vec<u8>| Input::arbitrary_take_rest(Unstructured::new(data)).expect("an input").lies;
        let all: Vec<(u16, Lie)> = inputs.iter().flat_map(lies).collect();
        let has = |is_it: fn(&Lie) -> bool| all.iter().filter(|(_, lie)| is_it(lie)).count();
        assert!(has(|lie| matches!(lie, Lie::Answered { .. })) > 100);
        assert!(has(|lie| matches!(lie, Lie::Changed(changes) | Lie::Followed(changes) if changes.len() == 1)) > 20);
        assert!(has(|lie| matches!(lie, Lie::Foreign { changes, .. } if changes.is_empty())) > 20);
        assert!(has(|lie| matches!(lie, Lie::Lose)) > 20);
        assert!(has(|lie| matches!(lie, Lie::Reconnect)) > 4);
        assert!(has(|lie| matches!(lie, Lie::Wait(20_000))) > 20);
        assert_eq!(has(|lie| matches!(lie, Lie::MadeUp(_) | Lie::Late(_) | Lie::Restart)), 0, "as they were meant");
        let asked: BTreeSet<String> = inputs.iter().flat_map(|data| lived(data)).collect();
        for method in ["GetGroupInfo", "GetCommits", "ReportFailure", "ClaimKeyPackages", "GetDeviceLists", "Commit"] {
            assert!(asked.iter().any(|asked| asked.ends_with(&format!("/{method}"))), "{method}: {asked:?}");
        }
    }

    #[test]
    fn the_huge_frame_that_was_found_is_kept() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("found/client");
        let found = std::fs::read(folder.join("a-field-grown-and-repeated")).expect("kept");
        assert_eq!(hex::encode(found), hex::encode(seeds::huge()));
    }

    fn victim() -> Victim<'static> {
        Victim::new(tape(), tape().lives.last().expect("a few lives"))
    }

    fn hello_alice(conversation: ConversationId) -> IncomingMessage {
        let bob = identity(&tape().rows[BOB]).address();
        let view = victim().core.conversation(tape().chat.0).expect("she is in it");
        let from = view.members.iter().find(|member| member.account == bob.account).expect("he is in it").clone();
        let now = UnixMillis(1);
        IncomingMessage {
            conversation,
            from,
            device: bob.device,
            send_id: SendId::from_bytes([1; 16]),
            lane_no: 1,
            text: "hello alice".into(),
            sent_at: now,
            accepted_at: now,
            late: false,
            order: 1,
        }
    }

    #[test]
    fn what_was_written_is_taken_once() {
        victim().judge(&hello_alice(tape().chat.0));
    }

    #[test]
    #[should_panic(expected = "nobody wrote")]
    fn a_text_of_another_conversation_is_noticed() {
        victim().judge(&hello_alice(tape().group.0));
    }

    #[test]
    #[should_panic(expected = "nobody wrote")]
    fn a_text_under_another_account_is_noticed() {
        let mut message = hello_alice(tape().chat.0);
        message.from.account = identity(&tape().rows[DAVE]).address().account;
        victim().judge(&message);
    }

    #[test]
    #[should_panic(expected = "is shown as one with")]
    fn a_stranger_in_a_chat_of_two_is_noticed() {
        let (victim, dave) = (victim(), identity(&tape().rows[DAVE]).address().account);
        let mut view = victim.core.conversation(tape().chat.0).expect("she is in it");
        assert!(victim.pairs.contains(&view.id) && view.kind == Kind::Direct);
        check_pair(tape(), &victim.pairs, &view);
        view.members.last_mut().expect("it has members").account = dave;
        check_pair(tape(), &victim.pairs, &view);
    }
}
