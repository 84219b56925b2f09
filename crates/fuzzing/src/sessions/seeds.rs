// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions to begin with: everybody opens one and says everything that is valid, some frames at a time, while the two talk.

use crate::templates::templates;

/// Frames of one seed: with what stands around them fewer than the acts of a run.
const FRAMES_EACH: usize = 16;
/// Kinds of acts and of people, in the order in which they are declared.
const ACTS: u64 = 10;
const PEOPLE: u64 = 6;
const MUTATED: u64 = 3;

/// Acts as `arbitrary` reads them: before each a byte that says that there is one, then its kind, then its fields.
#[derive(Default)]
struct Acts(Vec<u8>);

impl Acts {
    /// A number of `count` kinds is a fraction of 2^32.
    fn kind(&mut self, kind: u64, count: u64) {
        let fraction = ((kind << 32) / count).saturating_add(1);
        self.0.extend(u32::try_from(fraction).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn act(&mut self, kind: u64) {
        self.0.push(1);
        self.kind(kind, ACTS);
    }

    fn open(&mut self, who: u64) {
        self.act(0);
        self.kind(who, PEOPLE);
        if who == MUTATED {
            // No changes.
            self.0.push(0);
        }
    }

    fn say(&mut self, frame: usize) {
        self.act(1);
        self.0.push(0);
        self.0.extend(u16::try_from(frame).unwrap_or(0).to_le_bytes());
        self.0.push(0);
    }

    fn wait(&mut self, ms: u16) {
        self.act(8);
        self.0.extend(ms.to_le_bytes());
    }

    fn talk(&mut self) {
        self.act(9);
    }
}

/// See the module.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let frames: Vec<usize> = (0..templates().len()).collect();
    let mut seeds = Vec::new();
    for (n, frames) in frames.chunks(FRAMES_EACH).enumerate() {
        // A member of another group says everything; the others take turns.
        for who in [0, 1 + n as u64 % (PEOPLE - 1)] {
            let mut acts = Acts::default();
            acts.open(who);
            acts.wait(1_000);
            frames.iter().for_each(|frame| acts.say(*frame));
            acts.wait(1_000);
            acts.talk();
            seeds.push(acts.0);
        }
    }
    seeds
}
