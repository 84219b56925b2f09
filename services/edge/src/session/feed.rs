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
        self.gap(self.sent, floor, out);
    }

    /// Something may have been missed (a lost doorbell, a full inbox, a reconnected bus): read again.
    pub fn doubt(&mut self) {
        self.dirty = true;
    }

    /// A doorbell. `previous` is the last position addressed to the device before it, none where the owner does not
    /// know; `body` is absent where it was too large to ring with; `room` says whether the delivery window has room.
    pub fn doorbell<B>(
        &mut self,
        previous: Option<Position>,
        position: Position,
        body: Option<B>,
        room: bool,
        out: &mut Vec<Tell<B>>,
    ) -> Rung {
        if position <= self.sent {
            return Rung::Dropped;
        }
        let whole = previous.is_some_and(|p| p <= self.sent) && self.registered && !self.reading && !self.dirty && room;
        match body {
            Some(body) if whole => {
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
