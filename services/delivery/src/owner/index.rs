// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes entries from the log into the tail and rings for them.

use pli_domain::mutant::{Mutant, broken};
use pli_domain::{DeviceId, EntryRef, Position};
use pli_ports::{LogEntry, LogFate};
use tokio::time::Instant;

use super::entry::{Header, Target, header};
use super::follow::{Checks, Followed, RECENT_MAX};
use super::live::{Done, Ended, Live};
use super::sessions::Doorbells;
use super::tail::{Body, Slot, TailEntry};

/// Entries that a planted fault rings before they can be read; otherwise always empty.
pub(super) type Unindexed = Vec<(LogEntry, Header)>;

impl Live {
    /// Follows on unless a bound says to wait.
    pub fn follow_on(&mut self) {
        if self.stopped_following || self.tail.slots > self.context.config.tail_slots_max {
            return;
        }
        let Some(follower) = self.follower.take() else { return };
        let recent = self.recent.iter().copied().collect();
        let checks = Checks { next: self.next, last: self.last, recent, mark: self.mark, checkpoint: self.checkpoint };
        let context = self.context.clone();
        self.spawn(async move {
            let (follower, followed) = follower.follow(context, checks).await;
            Done::Followed(Box::new(follower), followed)
        });
    }

    pub async fn followed(&mut self, followed: Followed) {
        match followed {
            Followed::Interrupted => {}
            Followed::Fork => self.end = Some(Ended::Fork),
            Followed::Overtaken => self.end = Some(Ended::Fenced),
            Followed::Entries(_, Some(checkpoint)) if checkpoint > self.checkpoint.position => {
                self.end = Some(Ended::Fenced);
            }
            Followed::Entries(entries, _) => self.take(entries).await,
        }
    }

    async fn take(&mut self, entries: Vec<LogEntry>) {
        self.index_unindexed();
        let mut bells = Doorbells::default();
        for entry in entries {
            debug_assert!(entry.seq >= self.next, "a reader yields every entry once, in order");
            if entry.seq < self.next {
                continue;
            }
            let header = header(&entry.bytes);
            if header.undecodable && !self.keep_aside(&entry) {
                break;
            }
            if !self.mark_holds(&entry) {
                break;
            }
            if broken(Mutant::RingBeforeReadable) {
                self.ring_unread(entry, header, &mut bells);
            } else {
                self.index(entry, header, Some(&mut bells));
            }
        }
        self.ring(bells).await;
        if self.tail.slots > self.context.config.tail_slots_max {
            self.context.counters.follow_stopped(1);
            tracing::warn!(shard = %self.context.shard, "too much is un-acknowledged and unsettled; following waits");
        }
        self.keep_budget();
        self.note_levels();
        if self.context.config.spill_after_ms == 0 || self.over_half() {
            self.settle_on();
        }
    }

    /// Whether the entry, which cannot be decoded, may be kept aside. Above the bound the owner stops following.
    fn keep_aside(&mut self, entry: &LogEntry) -> bool {
        if self.aside >= self.context.config.aside_entries_max {
            self.stopped_following = true;
            self.context.counters.follow_stopped(1);
            tracing::error!(
                shard = %self.context.shard, seq = entry.seq.get(), kept = self.aside,
                "too many entries cannot be decoded; the shard stands still until they are looked at"
            );
            return false;
        }
        self.aside += 1;
        self.context.counters.aside(1);
        tracing::error!(shard = %self.context.shard, seq = entry.seq.get(), "an entry cannot be decoded; kept aside");
        true
    }

    /// Whether the inherited mark's entry is where it was.
    fn mark_holds(&mut self, entry: &LogEntry) -> bool {
        let Some(mark) = self.mark else { return true };
        if entry.seq < mark.seq {
            return true;
        }
        self.mark = None;
        let holds = entry.id == mark.id && entry.seq == mark.seq;
        if holds || self.context.ports.log.fate() == LogFate::OneTransaction {
            return true;
        }
        self.context.counters.forks_above_checkpoint(1);
        tracing::error!(shard = %self.context.shard, seq = mark.seq.get(), "the marked entry is gone from the log");
        self.end = Some(Ended::Fork);
        false
    }

    /// Makes an entry readable and rings for it.
    fn index(&mut self, entry: LogEntry, header: Header, mut bells: Option<&mut Doorbells>) {
        let ordinal = self.tail.next_ordinal();
        let now = self.context.ports.clock.now();
        let mut targets = Vec::with_capacity(header.targets.len());
        let (mut open, mut noted) = (0, None);
        self.context.counters.entries(1);
        for target in header.targets {
            let position = Position::new(self.epoch.epoch, entry.seq, target.index);
            let prev = self.devices.get(target.device).and_then(|device| device.last_addressed);
            if prev == Some(position) {
                continue;
            }
            if noted.replace(target.index) != Some(target.index) {
                self.note_read(&entry, position, &target.envelope, now);
            }
            self.context.counters.addressed(1);
            targets.push((target.device, target.index));
            let (device, fresh) = (target.device, target.expires_at > now);
            if !self.address(target, position, ordinal) {
                continue;
            }
            open += 1;
            if let (Some(bells), true) = (bells.as_deref_mut(), fresh) {
                self.bell(device, prev, position, bells);
            }
        }
        self.push_entry(entry, (header.origin, header.undecodable), targets, open);
    }

    /// Gives the device a slot unless it has passed the position already.
    fn address(&mut self, target: Target, position: Position, ordinal: u64) -> bool {
        let device = self.devices.entry(target.device);
        device.last_addressed = Some(position);
        if position <= device.settled_to() {
            let acked = position <= device.cursor;
            self.context.counters.acked(usize::from(acked));
            self.context.counters.gapped(usize::from(!acked));
            self.devices.release(target.device, self.context.config.idle_devices_max);
            return false;
        }
        debug_assert!(device.slots.back().is_none_or(|slot| slot.position < position), "positions rise");
        let body = if target.envelope.is_empty() { Body::Gap } else { Body::Held(target.envelope) };
        if body == Body::Gap {
            self.context.counters.aside_gaps(1);
        }
        device.slots.push_back(Slot { position, expires_at: target.expires_at, ordinal, body });
        true
    }

    fn push_entry(
        &mut self,
        entry: LogEntry,
        (origin, undecodable): (Option<pli_domain::EdgeId>, bool),
        targets: Vec<(DeviceId, u16)>,
        open: usize,
    ) {
        let end = Position::end_of(self.epoch.epoch, entry.seq);
        if let Some(origin) = origin {
            self.notices.seen(origin, Instant::now(), self.context.config.edges_max);
        }
        self.tail.push(TailEntry {
            entry: EntryRef { seq: entry.seq, id: entry.id },
            end,
            read_at: Instant::now(),
            origin,
            targets,
            open,
            bytes: if open > 0 { entry.bytes.len() } else { 0 },
            aside: undecodable.then_some(entry.bytes),
        });
        self.read_to(entry.seq, entry.id);
    }

    fn read_to(&mut self, seq: pli_domain::Seq, id: pli_domain::EntryId) {
        self.head = self.head.max(Position::end_of(self.epoch.epoch, seq));
        if seq >= self.next {
            self.last = (seq, Some(id));
            self.next = seq.next();
            if self.recent.len() >= RECENT_MAX {
                self.recent.pop_front();
            }
            self.recent.push_back(EntryRef { seq, id });
        }
    }

    /// The planted fault: rings, and lets reads pass the entry, before it can be read.
    fn ring_unread(&mut self, entry: LogEntry, header: Header, bells: &mut Doorbells) {
        for target in &header.targets {
            let position = Position::new(self.epoch.epoch, entry.seq, target.index);
            let prev = self.devices.get(target.device).and_then(|device| device.last_addressed);
            self.bell(target.device, prev, position, bells);
        }
        self.read_to(entry.seq, entry.id);
        self.unindexed.push((entry, header));
    }

    pub fn index_unindexed(&mut self) {
        for (entry, header) in std::mem::take(&mut self.unindexed) {
            self.index(entry, header, None);
        }
    }
}
