// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lies to begin with, made of what a server really answered: each life as it was, its answers damaged one field each,
//! answers of other lives and to other questions, and a stranger's group in place of one's own.

use bytes::Bytes;
use pli_api::edge::{ServerFrame, server_frame};
use prost::Message;

use super::LIES_MAX;
use crate::person::Step;
use crate::strangers::{COMMITS, GROUP_INFO, answers};
use crate::tape::tape;

/// Kinds of lies and of changes, in the order in which they are declared.
const LIES: u64 = 13;
const LOSE: u64 = 0;
const AGAIN: u64 = 1;
const CHANGED: u64 = 2;
const FOLLOWED: u64 = 3;
const FOREIGN: u64 = 4;
const WAIT: u64 = 9;
const RECONNECT: u64 = 10;
const ANSWERED: u64 = 12;
const CHANGES: u64 = 11;
const APPEND: u64 = 2;
const DROP: u64 = 3;
const GROW: u64 = 8;
const REPEAT: u64 = 4;
const STEP: u64 = 6;

/// What `arbitrary` reads as an input: before each element a byte that says that there is one.
pub(crate) struct Input(Vec<u8>);

impl Input {
    fn of(life: usize) -> Self {
        Self(vec![u8::try_from(life).unwrap_or(0)])
    }

    /// A number of `count` kinds is a fraction of 2^32.
    fn kind(&mut self, kind: u64, count: u64) {
        let fraction = ((kind << 32) / count).saturating_add(1);
        self.0.extend(u32::try_from(fraction).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn lie(&mut self, at: usize, kind: u64) -> &mut Self {
        self.0.push(1);
        self.0.extend(u16::try_from(at).unwrap_or(0).to_le_bytes());
        self.kind(kind, LIES);
        self
    }

    fn change(&mut self, kind: u64, fields: &[u8]) -> &mut Self {
        self.0.push(1);
        self.kind(kind, CHANGES);
        self.0.extend(fields);
        self
    }

    fn end(&mut self) {
        self.0.push(0);
    }

    fn foreign(&mut self, at: usize, (life, step): (usize, usize)) -> &mut Self {
        self.lie(at, FOREIGN).0.push(u8::try_from(life).unwrap_or(0));
        self.0.extend(u16::try_from(step).unwrap_or(0).to_le_bytes());
        self
    }

    fn answered(&mut self, at: usize, question: u8, answer: usize) -> &mut Self {
        self.lie(at, ANSWERED).0.extend([question, u8::try_from(answer).unwrap_or(0)]);
        self
    }

    fn wait(&mut self, at: usize, ms: u32) {
        self.lie(at, WAIT).0.extend(ms.to_le_bytes());
    }
}

/// Places of frames of a life.
fn steps(life: usize, is_it: impl Fn(server_frame::Frame) -> bool) -> Vec<usize> {
    let steps = tape().lives[life].steps.iter().enumerate();
    let frames = steps.filter_map(|(at, (_, step))| match step {
        Step::Frame(bytes) => Some((at, ServerFrame::decode(Bytes::clone(bytes)).ok()?.frame?)),
        _ => None,
    });
    frames.filter(|(_, frame)| is_it(frame.clone())).map(|(at, _)| at).collect()
}

fn replies(life: usize) -> Vec<usize> {
    steps(life, |frame| matches!(frame, server_frame::Frame::Reply(_)))
}

fn deliveries(life: usize) -> Vec<usize> {
    steps(life, |frame| matches!(frame, server_frame::Frame::Deliver(_)))
}

/// See the module.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new(), huge()];
    for life in 0..tape().lives.len() {
        seeds.push(Input::of(life).0);
        seeds.extend(damaged(life));
        seeds.extend(exchanged(life));
        seeds.extend(lost(life));
        seeds.extend(strange(life));
    }
    seeds
}

/// Valid answers that come changed, lacking a field, or twice.
fn damaged(life: usize) -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (n, some) in replies(life).chunks(LIES_MAX / 2).enumerate() {
        let mut input = Input::of(life);
        for (m, at) in some.iter().enumerate() {
            let field = u8::try_from(2 + (n + m) % 6).unwrap_or(0);
            match m % 4 {
                0 => input.lie(*at, CHANGED).change(DROP, &[field]).end(),
                1 => input.lie(*at, FOLLOWED).change(STEP, &[field, 1]).end(),
                2 => input.lie(*at, FOLLOWED).change(REPEAT, &[field, 3]).end(),
                _ => input.lie(*at, AGAIN).0.push(1),
            }
        }
        seeds.push(input.0);
    }
    seeds
}

/// What other lives were answered and brought, and each answer to whatever was asked last.
fn exchanged(life: usize) -> Vec<Vec<u8>> {
    let other = (life + 1) % tape().lives.len();
    let theirs = [replies(other), deliveries(other)].concat();
    let mut seeds = Vec::new();
    for some in theirs.chunks(LIES_MAX / 2) {
        let mut input = Input::of(life);
        for (at, step) in replies(life).into_iter().cycle().zip(some) {
            input.foreign(at, (other, *step)).end();
        }
        seeds.push(input.0);
    }
    for question in 0..3 {
        let mut input = Input::of(life);
        for (n, at) in replies(life).into_iter().take(LIES_MAX).enumerate() {
            // It is asked when the answer before has come.
            input.answered(at.saturating_sub(usize::from(question)), question, n % 4).end();
        }
        seeds.push(input.0);
    }
    seeds
}

/// Deliveries that do not come: what follows them has to be asked for.
fn lost(life: usize) -> Vec<Vec<u8>> {
    let all = deliveries(life);
    let seed = |some: &[usize]| {
        let mut input = Input::of(life);
        for at in some {
            input.lie(*at, LOSE);
        }
        input.lie(some.last().map_or(0, |at| at + 1), RECONNECT);
        input.0
    };
    all.chunks(4).map(seed).collect()
}

/// What is delivered is said to be of a later epoch; the commits up to it are gone, and what stands in the way of joining it again is
/// answered by a stranger.
fn strange(life: usize) -> Vec<Vec<u8>> {
    let strangers = |method: &str| answers(method).len().saturating_sub(1);
    let mut seeds = Vec::new();
    for (n, at) in deliveries(life).into_iter().step_by(3).enumerate() {
        for field in 4..12u8 {
            let mut input = Input::of(life);
            // One of these fields is the epoch.
            input.lie(at, CHANGED).change(STEP, &[field, 1]).end();
            for later in 1..4 {
                // `gone`, where commits were asked for, else this answer as it was.
                input
                    .answered(at + later, 0, strangers(COMMITS).saturating_sub(n))
                    .change(APPEND, &[1, 0x18, 1, 1, 0])
                    .end();
                input.answered(at + later, 0, strangers(GROUP_INFO).saturating_sub(n % 9)).end();
                input.wait(at + later, 20_000);
                input.answered(at + later, 0, strangers(GROUP_INFO).saturating_sub(9 + n % 9)).end();
                input.answered(at + later, 0, 0).end();
            }
            seeds.push(input.0);
        }
    }
    seeds
}

/// What was once found: one field grown and then repeated, in a frame that is far above what any carrier lets through.
pub(super) fn huge() -> Vec<u8> {
    let mut input = Input::of(1);
    let grown = [&[243][..], &90_000u32.to_le_bytes(), &[161]].concat();
    let foreign = input.foreign(3, (3, 1));
    foreign.change(GROW, &grown).change(REPEAT, &[0, 255]).change(REPEAT, &[85, 77]).end();
    input.0
}
