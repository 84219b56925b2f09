// SPDX-License-Identifier: MIT OR Apache-2.0
//! The last hops of messages through this process, in a ring of fixed size: what `pli explain` asks for.
//!
//! A hop names its message by the first eight bytes of the send id, or by the place in a shard log: an owner learns both
//! when it reads an envelope, so one leads to the other. Cost: a counter, a lock that nobody else holds unless the ring
//! goes round meanwhile, and 48 bytes copied; no allocation. Bound: the size that was given, made once.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use pli_domain::UnixMillis;
use serde::{Deserialize, Serialize};

/// The shard of a hop before any was known.
pub const NOWHERE: u16 = u16::MAX;
/// Sequence and index of a position. The log epoch is left out: an edge that appends does not know it.
pub const PLACE_MASK: u64 = (1 << 50) - 1;
/// Most hops in one answer.
const ANSWER_MAX: usize = 1_024;

/// What happened. `first` and `second` of a [`Hop`] are said with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HopKind {
    /// The sender's edge has checked it and its roster. (send, 0)
    Admitted,
    /// The sender's edge has refused it. (send, error code)
    Refused,
    /// It is durable in the shard's log. (send, entry)
    Accepted,
    /// The shard's owner has read it into the tail. (send, entry)
    Read,
    /// The owner rang for it. (edge, session)
    Rung,
    /// The owner answered a page with it, from the tail. (0, session)
    PagedTail,
    /// The owner answered a page with it, from rows. (0, session)
    PagedRows,
    /// The recipient's edge heard the doorbell. (0, session)
    Bell,
    /// The recipient's edge sent it to the device. (send, session)
    Told,
    /// The device acknowledged up to here, and its edge heard it. (0, session)
    Acked,
    /// The owner heard the acknowledgement up to here. (0, session)
    Passed,
    /// A row was written, because nobody had acknowledged it. (0, 0)
    Spilled,
    /// It expired before it was acknowledged. (0, 0)
    Expired,
    /// The queue was too long, so it is gone and told as a gap. (0, 0)
    Gone,
    /// The floor of one queue came to stand here: its rows up to here are gone and told as a gap. Whose queue it is, is
    /// not said. (0, 0)
    Floor,
    /// The checkpoint came to stand here: nothing below depends on the log. (0, 0)
    Settled,
    /// The sender's edge told the sender that it is stored. (send, 0)
    Stored,
    /// The sender's edge told the sender to send it again. (send, 0)
    Resend,
}

impl HopKind {
    /// Whether `first` is a send.
    pub const fn names_send(self) -> bool {
        use HopKind::{Accepted, Admitted, Read, Refused, Resend, Stored, Told};
        matches!(self, Admitted | Refused | Accepted | Read | Told | Stored | Resend)
    }
    /// Whether it stands for every place up to its own.
    const fn covers_below(self) -> bool {
        matches!(self, Self::Acked | Self::Passed | Self::Floor | Self::Settled)
    }
    /// Whether `second` is a session.
    pub const fn names_session(self) -> bool {
        use HopKind::{Acked, Bell, PagedRows, PagedTail, Passed, Rung, Told};
        matches!(self, Rung | PagedTail | PagedRows | Bell | Told | Acked | Passed)
    }
}

/// One hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// By the process's clock, milliseconds since 1970.
    pub at_ms: u64,
    /// What happened.
    pub kind: HopKind,
    /// Where; [`NOWHERE`] before a shard was known.
    pub shard: u16,
    /// The position, without its log epoch where that is not known.
    pub place: u64,
    /// See [`HopKind`].
    pub first: u64,
    /// See [`HopKind`].
    pub second: u64,
}

impl Hop {
    /// A hop of a send that stands in no log.
    pub const fn of_send(kind: HopKind, at: UnixMillis, send: u64, second: u64) -> Self {
        Self { at_ms: at.0, kind, shard: NOWHERE, place: 0, first: send, second }
    }
}

/// The first eight bytes of a random id: enough to tell those of the last minutes apart.
pub fn tag(id: &[u8]) -> u64 {
    id.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// Which hops are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HopQuery {
    /// Those that name this send.
    Send(u64),
    /// Those of one envelope in a shard's log: sequence and index as in a position.
    Place(u16, u64),
}

impl HopQuery {
    /// From the query of a URL: `send=HEX` with 16 digits, or `shard=N&place=N`.
    pub fn parse(query: &str) -> Option<Self> {
        let value = |part: Option<&str>, name: &str| Some(part?.strip_prefix(name)?.strip_prefix('=')?.to_owned());
        let mut parts = query.split('&');
        let first = parts.next();
        if let Some(send) = value(first, "send") {
            let digits = send.len() == 16 && send.bytes().all(|digit| digit.is_ascii_hexdigit());
            return digits.then(|| u64::from_str_radix(&send, 16).ok()).flatten().map(Self::Send);
        }
        let shard = value(first, "shard")?.parse().ok()?;
        Some(Self::Place(shard, value(parts.next(), "place")?.parse::<u64>().ok()? & PLACE_MASK))
    }
}

/// A role of the process and the first eight bytes of the id that it drew when it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduced {
    /// `edge` or `delivery`.
    pub role: String,
    /// See there.
    pub id: u64,
}

/// What a process answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopsReport {
    /// Roles that note hops here.
    pub roles: Vec<Introduced>,
    /// Hops that fit; 0: the process keeps none.
    pub size: usize,
    /// Hops noted since the start.
    pub noted: u64,
    /// Since when the process notes hops: it knows of nothing before, whether or not the ring has gone round since.
    #[serde(default)]
    pub started_ms: u64,
    /// When the oldest one that is left was noted: so far back the ring reaches; 0 when nothing was.
    pub oldest_ms: u64,
    /// In the order noted; the first 1,024.
    pub hops: Vec<Hop>,
}

struct Ring {
    slots: Box<[Mutex<Option<Hop>>]>,
    next: AtomicU64,
    started_ms: u64,
    roles: Mutex<Vec<Introduced>>,
}

/// The ring. Clones are the same one; the default has no room and notes nothing.
#[derive(Clone, Default)]
pub struct Hops(Option<Arc<Ring>>);

impl std::fmt::Debug for Hops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hops({})", self.0.as_ref().map_or(0, |ring| ring.slots.len()))
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hops {
    /// A ring for so many hops; none for 0.
    pub fn new(size: usize) -> Self {
        let make = || {
            let slots = (0..size).map(|_| Mutex::new(None)).collect();
            // The clock of the process, not of a port: it is only told to people.
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let started_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            Arc::new(Ring { slots, next: AtomicU64::new(0), started_ms, roles: Mutex::default() })
        };
        Self((size > 0).then(make))
    }

    /// Whether hops are noted.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Says which role works here under which id. At most a few, once each.
    pub fn introduce(&self, role: &str, id: &[u8; 16]) {
        if let Some(ring) = &self.0 {
            lock(&ring.roles).push(Introduced { role: role.to_owned(), id: tag(id) });
        }
    }

    /// Notes a hop over the oldest one.
    pub fn note(&self, hop: Hop) {
        let Some(ring) = &self.0 else { return };
        let turn = ring.next.fetch_add(1, Ordering::Relaxed);
        *lock(&ring.slots[ring.at(turn)]) = Some(hop);
    }

    /// Everything that is known of what is asked for. Reads the whole ring: milliseconds for a large one.
    pub fn report(&self, query: HopQuery) -> HopsReport {
        let Some(ring) = &self.0 else {
            return HopsReport::default();
        };
        let noted = ring.next.load(Ordering::Relaxed);
        let oldest_ms = ring.in_order(noted).next().map_or(0, |hop| hop.at_ms);
        let hops = match query {
            HopQuery::Send(send) => {
                let named = ring.in_order(noted).filter(|hop| hop.kind.names_send() && hop.first == send);
                named.take(ANSWER_MAX).collect()
            }
            HopQuery::Place(shard, place) => ring.of_place(noted, shard, place),
        };
        let (roles, size) = (lock(&ring.roles).clone(), ring.slots.len());
        HopsReport { roles, size, noted, started_ms: ring.started_ms, oldest_ms, hops }
    }
}

impl Ring {
    fn at(&self, turn: u64) -> usize {
        // The remainder is smaller than the length.
        usize::try_from(turn % self.slots.len() as u64).unwrap_or(0)
    }

    fn in_order(&self, noted: u64) -> impl Iterator<Item = Hop> + '_ {
        let first = noted.saturating_sub(self.slots.len() as u64);
        (first..noted).filter_map(|turn| *lock(&self.slots[self.at(turn)]))
    }

    /// Hops at the place, and of those that stand for every place below their own the first above: of each session that
    /// was told or rung here, of a floor, and of the checkpoint. One look at each hop of the ring.
    fn of_place(&self, noted: u64, shard: u16, place: u64) -> Vec<Hop> {
        let mut found: Vec<Hop> = Vec::new();
        let mut sessions: HashSet<u64> = HashSet::new();
        let mut covered: HashSet<(HopKind, u64)> = HashSet::new();
        for hop in self.in_order(noted).filter(|hop| hop.shard == shard) {
            let there = hop.place & PLACE_MASK;
            if there < place || found.len() == ANSWER_MAX {
                continue;
            }
            if hop.kind.covers_below() {
                let begun = if hop.kind.names_session() { sessions.contains(&hop.second) } else { !found.is_empty() };
                if !begun || !covered.insert((hop.kind, hop.second)) {
                    continue;
                }
            } else if there != place {
                continue;
            } else if hop.kind.names_session() {
                sessions.insert(hop.second);
            }
            found.push(hop);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(kind: HopKind, place: u64, first: u64, second: u64) -> Hop {
        Hop { at_ms: place, kind, shard: 3, place, first, second }
    }

    #[test]
    fn a_ring_keeps_the_newest_and_says_how_far_back_it_reaches() {
        let hops = Hops::new(4);
        hops.introduce("edge", &[1; 16]);
        for n in 1..=6 {
            hops.note(hop(HopKind::Accepted, n, 7, n));
        }
        let report = hops.report(HopQuery::Send(7));
        assert_eq!(report.hops.iter().map(|hop| hop.place).collect::<Vec<_>>(), [3, 4, 5, 6]);
        assert_eq!((report.size, report.noted, report.oldest_ms), (4, 6, 3));
        assert!(report.started_ms > 0 && report.started_ms == hops.report(HopQuery::Send(8)).started_ms);
        assert_eq!(report.roles, [Introduced { role: "edge".into(), id: 0x0101_0101_0101_0101 }]);
        assert_eq!(hops.report(HopQuery::Send(8)).hops, []);
    }

    #[test]
    fn no_room_notes_nothing() {
        let hops = Hops::new(0);
        hops.introduce("edge", &[1; 16]);
        hops.note(hop(HopKind::Accepted, 1, 7, 1));
        let report = hops.report(HopQuery::Send(7));
        assert_eq!((report.size, report.noted, report.hops.len(), report.roles.len()), (0, 0, 0, 0));
    }

    #[test]
    fn a_place_is_followed_to_the_acknowledgement_of_its_own_sessions_and_to_the_checkpoint() {
        let hops = Hops::new(64);
        let (mine, other, epoch) = (1, 2, 9 << 50);
        let noted = [
            hop(HopKind::Settled, 49, 0, 0),
            hop(HopKind::Read, 50 | epoch, 7, 8),
            hop(HopKind::Rung, 50 | epoch, 5, mine),
            hop(HopKind::Rung, 51, 5, other),
            hop(HopKind::Passed, 49, 0, mine),
            hop(HopKind::Passed, 60, 0, other),
            hop(HopKind::Passed, 52, 0, mine),
            hop(HopKind::Passed, 53, 0, mine),
            hop(HopKind::Spilled, 51, 0, 0),
            hop(HopKind::Floor, 49, 0, 0),
            hop(HopKind::Floor, 54, 0, 0),
            hop(HopKind::Floor, 57, 0, 0),
            hop(HopKind::Settled, 55, 0, 0),
            hop(HopKind::Settled, 56, 0, 0),
        ];
        noted.into_iter().for_each(|hop| hops.note(hop));
        hops.note(Hop { shard: 4, ..hop(HopKind::Read, 50, 7, 8) });
        let found = hops.report(HopQuery::Place(3, 50)).hops;
        let kinds: Vec<_> = found.iter().map(|hop| (hop.kind, hop.place & PLACE_MASK)).collect();
        let expected = [
            (HopKind::Read, 50),
            (HopKind::Rung, 50),
            (HopKind::Passed, 52),
            (HopKind::Floor, 54),
            (HopKind::Settled, 55),
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn an_answer_is_bounded_and_a_full_ring_is_looked_at_once() {
        let hops = Hops::new(100_000);
        for n in 0..50_000 {
            hops.note(hop(HopKind::Rung, 50, 5, n));
            hops.note(hop(HopKind::Passed, 60, 0, n));
        }
        let found = hops.report(HopQuery::Place(3, 50)).hops;
        assert_eq!(found.len(), ANSWER_MAX);
        assert_eq!(
            found[..2].iter().map(|hop| (hop.kind, hop.second)).collect::<Vec<_>>(),
            [(HopKind::Rung, 0), (HopKind::Passed, 0)]
        );
    }

    #[test]
    fn queries_that_say_nothing_are_none() {
        assert_eq!(HopQuery::parse("send=00000000000000ff"), Some(HopQuery::Send(255)));
        assert_eq!(HopQuery::parse("shard=3&place=1029"), Some(HopQuery::Place(3, 1029)));
        for bad in [
            "",
            "send=",
            "send=ff",
            "send=00000000000000fg",
            "send=+0000000000000ff",
            "shard=3",
            "place=3",
            "shard=70000&place=1",
        ] {
            assert_eq!(HopQuery::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn many_threads_note_at_once_and_nothing_is_torn() {
        let hops = Hops::new(128);
        std::thread::scope(|scope| {
            for n in 0..4u64 {
                let hops = hops.clone();
                scope.spawn(move || (0..5_000).for_each(|_| hops.note(hop(HopKind::Told, n, n, n))));
            }
        });
        for n in 0..4 {
            let found = hops.report(HopQuery::Send(n)).hops;
            assert!(found.iter().all(|hop| (hop.place, hop.second) == (n, n)), "{found:?}");
        }
        assert_eq!(hops.report(HopQuery::Send(0)).noted, 20_000);
    }
}
