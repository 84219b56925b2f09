// SPDX-License-Identifier: MIT OR Apache-2.0
//! Judgement of what sessions are sent and senders are told: Q1, Q4, Q5, Q8.

use std::collections::BTreeSet;

use pli_domain::limits::SPILL_LIFE_MIN;
use pli_domain::{DeviceId, Position, UnixMillis};

use super::checks::Verdict;
use super::{DeviceTruth, Log, Name, Oracle};

/// What the present session of a device was sent.
#[derive(Debug)]
pub struct SessionTruth {
    pub sent: Position,
    pub names: BTreeSet<Name>,
}

impl Oracle {
    /// A session is ready and reads above `from`.
    pub fn ready(&mut self, id: DeviceId, from: Position, (log, now): (&Log, UnixMillis)) -> Verdict {
        let passes = self.passes(id, from, log, now);
        let device = self.device(id);
        let committed = device.committed.0;
        // `from` is the hello's own where the owner was not heard in time, and then may turn out lower: what is sent
        // tells.
        device.session = Some(SessionTruth { sent: Position::ZERO, names: BTreeSet::new() });
        if passes {
            return Err(format!("Q5: the session of {id:?} reads above {from}, but it committed {committed}"));
        }
        Ok(())
    }

    /// A delivery arrived.
    pub fn delivered(
        &mut self,
        id: DeviceId,
        (position, name): (Position, Name),
        log: &Log,
        now: UnixMillis,
    ) -> Verdict {
        let device = self.device(id);
        let Some(session) = device.session.as_mut() else { return Ok(()) };
        if position <= session.sent {
            return Err(format!("Q4: the session of {id:?} is sent {position} after {}", session.sent));
        }
        session.sent = position;
        session.names.insert(name);
        match self.passed_over(id, position, log, now) {
            Some(what) => Err(format!("Q1, Q4: the session of {id:?} is sent {position} over {what}")),
            None => Ok(()),
        }
    }

    /// A gap arrived: over what was acknowledged, or up to a floor, durable or about to be.
    pub fn gap(&mut self, id: DeviceId, (from, to): (Position, Position), log: &Log) -> Verdict {
        let queued = self.queued(id, log);
        let rows_max = self.rows_max;
        let device = self.device(id);
        device.gaps.push((from, to));
        if let Some(session) = device.session.as_mut() {
            session.sent = session.sent.max(to);
        }
        let (floor, committed) = (device.floor.0, device.committed.0);
        if to > floor.max(committed) && queued <= rows_max {
            return Err(format!(
                "Q8: {id:?} is told a gap to {to}; its floor is {floor}, its commit {committed}, its queue {queued}"
            ));
        }
        Ok(())
    }

    /// The first envelope below `position` that the session should have been sent before.
    fn passed_over(&self, id: DeviceId, position: Position, log: &Log, now: UnixMillis) -> Option<String> {
        let device = self.devices.get(&id)?;
        let session = device.session.as_ref()?;
        let shard = self.shards.get(self.shard_of.get(&id)?)?;
        let soon = now.after(SPILL_LIFE_MIN);
        let excused = |name: &Name, at: Position, expires_at: UnixMillis| {
            device.seen.contains(name)
                || session.names.contains(name)
                || expires_at <= soon
                || at <= device.floor.0
                || device.told(at)
        };
        for (at, row) in device.rows.range(..position).filter(|(_, row)| row.owed) {
            if !excused(&row.name, *at, row.expires_at) {
                return Some(format!("the row {at} ({})", row.name.1));
            }
        }
        if shard.fork_open {
            return None;
        }
        for (seq, entry) in log {
            for (index, item) in self.entries.get(entry).into_iter().flatten().enumerate() {
                let at = shard.position(*seq, index);
                if at < position && item.devices.contains(&id) && !excused(&item.name, at, item.expires_at) {
                    return Some(format!("{at} ({})", item.name.1));
                }
            }
        }
        None
    }

    /// The sender was told that its message is stored: nothing depends on the sender any more (Q8).
    pub fn stored(&self, name: Name, now: UnixMillis) -> Verdict {
        if self.waits_to_be_spread(name) {
            return Ok(());
        }
        for id in self.recipients.get(&name).into_iter().flatten() {
            let Some(device) = self.devices.get(id) else { continue };
            let held = device.removed || device.seen.contains(&name) || device.has_row(name);
            if !held && !self.is_excused(*id, name, now) {
                let at = self.shard_of.get(id).and_then(|shard| self.placed.get(&(*shard, name)));
                let (floor, committed) = (device.floor.0, device.committed.0);
                return Err(format!(
                    "Q8: {} is called stored, but nothing holds it for {id:?}; floor {floor}, commit {committed}, read at {at:?}",
                    name.1
                ));
            }
        }
        Ok(())
    }

    /// Whether a durable row holds the content for a fan-out worker.
    fn waits_to_be_spread(&self, name: Name) -> bool {
        let mut workers = self.recipients.get(&name).into_iter().flatten().filter(|id| id.is_reserved());
        workers.any(|id| self.devices.get(id).is_some_and(|worker| worker.has_row(name)))
    }

    /// A fan-out worker acknowledges: nothing depends on its queue any more (Q8).
    pub fn spread(&mut self, id: DeviceId, to: Position, log: &Log, now: UnixMillis) -> Verdict {
        let from = self.device(id).committed.0;
        if to <= from {
            return Ok(());
        }
        let (rows, logged) = (self.rows_between(id, (from, to)), self.logged_between(id, (from, to), log));
        self.device(id).committed.raise(to);
        self.device(id).seen.extend(rows.iter().chain(&logged));
        // While the log has lost its end and nobody noticed, what stands in it may be named anew.
        let is_sure = self.shard_of.get(&id).and_then(|shard| self.shards.get(shard)).is_some_and(|s| !s.fork_open);
        for name in rows.iter().chain(logged.iter().filter(|_| is_sure)) {
            let acknowledged = format_args!("(acknowledged by a fan-out worker, {from} to {to})");
            self.stored(*name, now).map_err(|broken| format!("{broken} {acknowledged}"))?;
        }
        Ok(())
    }

    /// What stands for a device in rows between two positions.
    fn rows_between(&self, id: DeviceId, (from, to): (Position, Position)) -> BTreeSet<Name> {
        let rows = self.devices.get(&id).into_iter().flat_map(|device| device.rows.range(from.next()..=to));
        rows.map(|(_, row)| row.name).collect()
    }

    /// What stands for a device in the log between two positions, as an owner read it. A position counts no more once a
    /// newer log epoch gives its entry another one.
    fn logged_between(&self, id: DeviceId, (from, to): (Position, Position), log: &Log) -> BTreeSet<Name> {
        let mut names = BTreeSet::new();
        let Some((shard, truth)) = self.shard_of.get(&id).and_then(|id| Some((*id, self.shards.get(id)?))) else {
            return names;
        };
        for (seq, entry) in log {
            for (index, item) in self.entries.get(entry).into_iter().flatten().enumerate() {
                let at = truth.position(*seq, index);
                let was_read = || self.placed.get(&(shard, item.name)).is_some_and(|placed| placed.contains(&at));
                if item.devices.contains(&id) && (from.next()..=to).contains(&at) && was_read() {
                    names.insert(item.name);
                }
            }
        }
        names
    }

    /// Expired, or gone under a floor from where an owner read it, whether or not the device was told.
    fn is_excused(&self, id: DeviceId, name: Name, now: UnixMillis) -> bool {
        self.is_expired(name, now) || self.stands(id, name, |device, at| at <= device.floor.0 || device.told(at))
    }

    /// Whether nothing has to happen any more: the device committed it, it expired, or it was told a gap over it.
    pub fn is_done(&self, id: DeviceId, name: Name, now: UnixMillis) -> bool {
        let seen = self.devices.get(&id).is_none_or(|device| device.removed || device.seen.contains(&name));
        seen || self.is_expired(name, now) || self.stands(id, name, DeviceTruth::told)
    }

    fn is_expired(&self, name: Name, now: UnixMillis) -> bool {
        self.expires_at.get(&name).is_some_and(|at| *at <= now.after(SPILL_LIFE_MIN))
    }

    /// Whether a position at which an owner read the content is as asked.
    fn stands(&self, id: DeviceId, name: Name, so: impl Fn(&DeviceTruth, Position) -> bool) -> bool {
        let (Some(device), Some(shard)) = (self.devices.get(&id), self.shard_of.get(&id)) else { return true };
        self.placed.get(&(*shard, name)).into_iter().flatten().any(|at| so(device, *at))
    }
}
