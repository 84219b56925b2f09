// SPDX-License-Identifier: MIT OR Apache-2.0
//! Drain and live, merged without a gap: the pure machine that decides what a session sends and when it reads.
//!
//! It keeps one integer (`sent`, up to which the session is complete), one flag (`dirty`: something may have been
//! missed, read again) and no buffer. Whatever order doorbells, pages and gaps come in, positions told to the client
//! strictly increase and nothing between two of them is skipped (Q4); no read starts before the registration is
//! confirmed (Q3).

use pli_domain::Position;
use pli_domain::mutant::{Mutant, broken};

/// One thing to tell the client, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell<B> {
    /// An envelope.
    Deliver {
        /// Its position.
        position: Position,
        /// The position told before it.
        previous: Position,
        /// The encoded envelope.
        body: B,
    },
    /// What lies above `from`, up to and including `to`, is gone.
    Gap {
        /// Exclusive.
        from: Position,
        /// Inclusive.
        to: Position,
    },
    /// Everything that waited at the hello was told.
    CaughtUp {
        /// Up to where.
        position: Position,
    },
}

/// One page of a device queue, as an owner answers it.
#[derive(Debug, Clone)]
pub struct PageRead<B> {
    /// Envelopes in increasing order.
    pub deliveries: Vec<(Position, B)>,
    /// Complete up to here.
    pub next: Position,
    /// Nothing above `next` is known.
    pub at_head: bool,
    /// Gaps (exclusive, inclusive) in increasing order; each is told before the deliveries above it.
    pub gaps: Vec<(Position, Position)>,
}

/// A doorbell, as an owner rings it.
#[derive(Debug, Clone)]
pub struct Bell<B> {
    /// The last position addressed to the device before this one; none where the owner does not know.
    pub previous: Option<Position>,
    /// The position rung for.
    pub position: Position,
    /// The encoded envelope; none where it was too large to ring with.
    pub body: Option<B>,
}

/// What became of a doorbell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// Told already.
    Dropped,
    /// Told now, from the doorbell itself.
    Inline,
    /// A read is due.
    Read,
}

/// The state of one session's feed.
#[derive(Debug, Clone)]
pub struct Feed {
    registered: bool,
    sent: Position,
    told: Position,
    dirty: bool,
    reading: bool,
    caught_up: bool,
    /// Nothing was told to the client yet.
    untouched: bool,
}

impl Feed {
    /// A session whose device has committed up to `committed`; reads nothing before [`Feed::registered`].
    pub fn new(committed: Position) -> Self {
        Self {
            registered: false,
            sent: committed,
            told: committed,
            dirty: true,
            reading: false,
            caught_up: false,
            untouched: true,
        }
    }

    /// The registration is confirmed: complete up to `from`, everything up to `floor` is gone. A repeated one only says
    /// that something may have been missed meanwhile.
    pub fn registered<B>(&mut self, from: Position, floor: Position, out: &mut Vec<Tell<B>>) {
        if !self.registered && self.untouched {
            // Nothing was told yet: the owner's view replaces the hello's, also where that was not believed.
            self.sent = from;
            self.told = from;
        }
        // The fault takes the early read for a read after the registration.
        self.dirty |= self.registered || !broken(Mutant::ReadBeforeRegistration);
        self.registered = true;
        self.floor(floor, out);
    }

    /// The device's floor rose to `floor`.
    pub fn floor<B>(&mut self, floor: Position, out: &mut Vec<Tell<B>>) {
        // Before `Ready` nothing is told. The registration and every page name the floor anew.
        if self.registered {
            self.gap(self.sent, floor, out);
        }
    }

    /// Something may have been missed (a lost doorbell, a full inbox, a reconnected bus): read again.
    pub fn doubt(&mut self) {
        self.dirty = true;
    }

    /// A doorbell; `room` says whether the delivery window has room.
    pub fn doorbell<B>(&mut self, bell: Bell<B>, room: bool, out: &mut Vec<Tell<B>>) -> Rung {
        let Bell { previous, position, body } = bell;
        if position <= self.sent {
            return Rung::Dropped;
        }
        let quiet = self.registered && !self.reading && !self.dirty && room;
        match body {
            Some(body) if quiet && previous.is_some_and(|previous| previous <= self.sent) => {
                self.deliver(position, body, out);
                Rung::Inline
            }
            _ => {
                self.dirty = true;
                Rung::Read
            }
        }
    }

    /// Whether a read is due and allowed; then it counts as under way, above the position returned.
    pub fn begin_read(&mut self, room: bool) -> Option<Position> {
        let confirmed = self.registered || broken(Mutant::ReadBeforeRegistration);
        if !self.dirty || self.reading || !room || !confirmed {
            return None;
        }
        self.dirty = false;
        self.reading = true;
        Some(self.sent)
    }

    /// The read under way has answered.
    pub fn page<B>(&mut self, page: PageRead<B>, out: &mut Vec<Tell<B>>) {
        self.reading = false;
        let mut gaps = page.gaps.into_iter().peekable();
        for (position, body) in page.deliveries {
            while let Some((from, to)) = gaps.next_if(|gap| gap.1 < position) {
                self.gap(from, to, out);
            }
            if position > self.sent {
                self.deliver(position, body, out);
            }
        }
        for (from, to) in gaps {
            self.gap(from, to, out);
        }
        self.sent = self.sent.max(page.next);
        if !page.at_head {
            self.dirty = true;
        } else if !self.caught_up {
            self.caught_up = true;
            out.push(Tell::CaughtUp { position: self.sent });
        }
    }

    /// The read under way failed; it is due again.
    pub fn read_failed(&mut self) {
        self.reading = false;
        self.dirty = true;
    }

    /// The position up to which the session is complete.
    pub fn sent(&self) -> Position {
        self.sent
    }

    /// The highest position that the client was told; it can acknowledge nothing above.
    pub fn told(&self) -> Position {
        self.told
    }

    /// Whether everything that waited at the hello was told.
    pub fn caught_up(&self) -> bool {
        self.caught_up
    }

    /// Whether a registration was confirmed.
    pub fn is_registered(&self) -> bool {
        self.registered
    }

    fn deliver<B>(&mut self, position: Position, body: B, out: &mut Vec<Tell<B>>) {
        out.push(Tell::Deliver { position, previous: self.told, body });
        self.sent = position;
        self.told = position;
        self.untouched = false;
    }

    fn gap<B>(&mut self, from: Position, to: Position, out: &mut Vec<Tell<B>>) {
        if to <= self.sent {
            return;
        }
        out.push(Tell::Gap { from: from.max(self.told), to });
        self.sent = to;
        self.told = to;
        self.untouched = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u64) -> Position {
        Position::from_u64(n).expect("small")
    }
    fn page(deliveries: &[u64], next: u64, at_head: bool) -> PageRead<u64> {
        let deliveries = deliveries.iter().map(|n| (at(*n), *n)).collect();
        PageRead { deliveries, next: at(next), at_head, gaps: Vec::new() }
    }
    fn bell(previous: Option<u64>, position: u64, body: Option<u64>) -> Bell<u64> {
        Bell { previous: previous.map(at), position: at(position), body }
    }
    fn ready(from: u64) -> (Feed, Vec<Tell<u64>>) {
        let (mut feed, mut out) = (Feed::new(at(from)), Vec::new());
        feed.registered(at(from), Position::ZERO, &mut out);
        assert_eq!(feed.begin_read(true), Some(at(from)));
        feed.page(page(&[], from, true), &mut out);
        assert_eq!(out, [Tell::CaughtUp { position: at(from) }]);
        out.clear();
        (feed, out)
    }

    #[test]
    fn nothing_is_read_before_the_registration_is_confirmed() {
        let mut feed = Feed::new(at(5));
        assert_eq!(feed.begin_read(true), None);
        feed.registered::<u64>(at(9), Position::ZERO, &mut Vec::new());
        assert_eq!(feed.begin_read(true), Some(at(9)));
        assert_eq!(feed.begin_read(true), None, "one read at a time");
    }

    #[test]
    fn a_doorbell_whose_predecessor_was_sent_goes_out_at_once() {
        let (mut feed, mut out) = ready(10);
        assert_eq!(feed.doorbell(bell(Some(7), 12, Some(12)), true, &mut out), Rung::Inline);
        assert_eq!(feed.doorbell(bell(Some(12), 15, Some(15)), true, &mut out), Rung::Inline);
        assert_eq!(feed.doorbell(bell(Some(7), 12, Some(12)), true, &mut out), Rung::Dropped);
        let deliver =
            |position, previous| Tell::Deliver { position: at(position), previous: at(previous), body: position };
        assert_eq!(out, [deliver(12, 10), deliver(15, 12)]);
    }

    #[test]
    fn every_other_doorbell_means_read() {
        let cases =
            [(Some(12), Some(15), true), (None, Some(15), true), (Some(9), None, true), (Some(9), Some(15), false)];
        for (previous, body, room) in cases {
            let (mut feed, mut out) = ready(10);
            assert_eq!(feed.doorbell(bell(previous, 15, body), room, &mut out), Rung::Read);
            assert!(out.is_empty());
            assert_eq!(feed.begin_read(true), Some(at(10)));
            assert_eq!(feed.doorbell(bell(Some(9), 15, Some(15)), true, &mut out), Rung::Read, "a read is under way");
            feed.page(page(&[15], 15, true), &mut out);
            assert_eq!(feed.begin_read(true), Some(at(15)), "what came during the read is looked for");
        }
    }

    #[test]
    fn gaps_and_deliveries_of_a_page_are_told_in_order() {
        let (mut feed, mut out) = ready(10);
        feed.doubt();
        feed.begin_read(true);
        let mut page = page(&[12, 30], 30, true);
        page.gaps = vec![(at(19), at(20)), (at(30), at(40))];
        feed.page(page, &mut out);
        let told: Vec<u64> = out
            .iter()
            .map(|tell| match tell {
                Tell::Deliver { position, .. } => position.get(),
                Tell::Gap { to, .. } => to.get(),
                Tell::CaughtUp { position } => position.get(),
            })
            .collect();
        assert_eq!(told, [12, 20, 30, 40]);
    }

    #[test]
    fn a_failed_read_is_due_again_and_a_full_window_reads_nothing() {
        let (mut feed, _) = ready(10);
        feed.doubt();
        assert_eq!(feed.begin_read(false), None);
        assert_eq!(feed.begin_read(true), Some(at(10)));
        feed.read_failed();
        assert_eq!(feed.begin_read(true), Some(at(10)));
    }

    mod property {
        use std::collections::BTreeSet;

        use proptest::prelude::*;

        use super::*;

        #[derive(Debug, Clone)]
        enum Step {
            /// Something for the device; rung at once, late, twice, or never, with or without predecessor and body.
            Append {
                rung: u8,
                knows: bool,
                body: bool,
            },
            /// A late doorbell arrives.
            Late(usize),
            /// A read begins, and is answered or fails after more steps.
            Read,
            Answer {
                rows: usize,
                fails: bool,
            },
            /// The floor rises over the oldest.
            Floor(usize),
            Window(bool),
            Doubt,
        }

        fn step() -> impl Strategy<Value = Step> {
            prop_oneof![
                4 => (0u8..4, any::<bool>(), any::<bool>()).prop_map(|(rung, knows, body)| Step::Append { rung, knows, body }),
                2 => (0usize..8).prop_map(Step::Late),
                3 => Just(Step::Read),
                3 => (1usize..5, prop::bool::weighted(0.2)).prop_map(|(rows, fails)| Step::Answer { rows, fails }),
                1 => (0usize..6).prop_map(Step::Floor),
                1 => any::<bool>().prop_map(Step::Window),
                1 => Just(Step::Doubt),
            ]
        }

        /// An owner with one device's queue, and the client's view of one session.
        struct World {
            feed: Feed,
            queue: Vec<u64>,
            head: u64,
            floor: u64,
            late: Vec<(Option<u64>, u64, Option<u64>)>,
            asked: Option<u64>,
            room: bool,
            told: u64,
            gone: BTreeSet<u64>,
            got: BTreeSet<u64>,
        }

        impl World {
            fn take(&mut self, out: Vec<Tell<u64>>) {
                for tell in out {
                    match tell {
                        Tell::Deliver { position, previous, body } => {
                            assert_eq!((position.get(), previous.get()), (body, self.told));
                            self.up_to(position.get(), false);
                            self.got.insert(body);
                        }
                        Tell::Gap { to, .. } => self.up_to(to.get(), true),
                        Tell::CaughtUp { position } => assert!(position.get() >= self.told),
                    }
                }
            }
            /// Q4: strictly increasing, and nothing between is skipped untold.
            fn up_to(&mut self, position: u64, gap: bool) {
                assert!(position > self.told, "{position} after {}", self.told);
                for skipped in self.queue.iter().filter(|p| **p > self.told && **p < position) {
                    assert!(gap, "{skipped} was skipped");
                    self.gone.insert(*skipped);
                }
                self.told = position;
            }
            fn ring(&mut self, bell: (Option<u64>, u64, Option<u64>)) {
                let mut out = Vec::new();
                self.feed.doorbell(super::bell(bell.0, bell.1, bell.2), self.room, &mut out);
                self.take(out);
            }
            fn answer(&mut self, rows: usize, fails: bool) {
                let Some(after) = self.asked.take() else { return };
                if fails {
                    return self.feed.read_failed();
                }
                let gaps = (self.floor > after).then_some((at(after), at(self.floor)));
                let above = self.queue.iter().copied().filter(|p| *p > after.max(self.floor));
                let all: Vec<u64> = above.collect();
                let page = &all[..all.len().min(rows)];
                let at_head = page.len() == all.len();
                let next = if at_head { self.head } else { *page.last().expect("not all") };
                let mut read = super::page(page, next, at_head);
                read.gaps = gaps.into_iter().collect();
                let mut out = Vec::new();
                self.feed.page(read, &mut out);
                self.take(out);
            }
            fn step(&mut self, step: Step) {
                match step {
                    Step::Append { rung, knows, body } => {
                        let previous = self.queue.last().copied().unwrap_or(0);
                        self.head += 3;
                        self.queue.push(self.head);
                        let bell = (knows.then_some(previous), self.head, body.then_some(self.head));
                        match rung {
                            0 => self.ring(bell),
                            1 => self.late.push(bell),
                            2 => {
                                self.ring(bell);
                                self.late.push(bell);
                            }
                            _ => {}
                        }
                    }
                    Step::Late(n) if !self.late.is_empty() => {
                        let bell = self.late.remove(n % self.late.len());
                        self.ring(bell);
                    }
                    Step::Late(_) => {}
                    Step::Read => {
                        if let Some(after) = self.feed.begin_read(self.room) {
                            self.asked = Some(after.get());
                        }
                    }
                    Step::Answer { rows, fails } => self.answer(rows, fails),
                    Step::Floor(n) => {
                        if let Some(floor) = self.queue.get(n).copied().filter(|floor| *floor > self.floor) {
                            self.floor = floor;
                            let mut out = Vec::new();
                            self.feed.floor(at(floor), &mut out);
                            self.take(out);
                        }
                    }
                    Step::Window(room) => self.room = room,
                    Step::Doubt => self.feed.doubt(),
                }
            }
        }

        proptest! {
            #[test]
            fn whatever_comes_in_whatever_order_nothing_is_skipped_and_all_arrives(
                waiting in 0usize..6, steps in prop::collection::vec(step(), 0..80)
            ) {
                let mut world = World {
                    feed: Feed::new(Position::ZERO),
                    queue: (1..=waiting as u64).map(|n| n * 3).collect(),
                    head: waiting as u64 * 3,
                    floor: 0,
                    late: Vec::new(),
                    asked: None,
                    room: true,
                    told: 0,
                    gone: BTreeSet::new(),
                    got: BTreeSet::new(),
                };
                world.feed.registered::<u64>(Position::ZERO, Position::ZERO, &mut Vec::new());
                steps.into_iter().for_each(|step| world.step(step));
                // Quiet at last: the re-check of an idle session finds what no doorbell brought.
                world.room = true;
                world.answer(4, false);
                world.feed.doubt();
                while let Some(after) = world.feed.begin_read(true) {
                    world.asked = Some(after.get());
                    world.answer(2, false);
                }
                for position in &world.queue {
                    prop_assert!(world.got.contains(position) || *position <= world.floor, "{position} never came");
                }
            }
        }
    }
}
