// SPDX-License-Identifier: MIT OR Apache-2.0
//! Judgement of calls to the stores: Q2, Q5, Q7.

use std::collections::BTreeSet;

use pli_domain::limits::SPILL_LIFE_MIN;
use pli_domain::{Checkpoint, DeviceId, Position, Seq, ShardId, UnixMillis};
use pli_ports::{DeviceRegister, Settle};

use super::{Item, Log, Oracle, Row, ShardTruth, View, name_of};

/// Nothing, or a broken invariant in words.
pub type Verdict = Result<(), String>;

/// Who calls, for which shard, and what its log holds at that moment.
pub struct Call<'a> {
    pub owner: &'a str,
    pub shard: ShardId,
    pub log: &'a Log,
    pub now: UnixMillis,
}

/// Whether the settle itself writes the envelope's row, in whatever log epoch its owner stands, or a floor above it.
fn covered(settle: &Settle, device: DeviceId, position: Position) -> bool {
    let below = |r: &DeviceRegister| r.device == device && r.floor.is_some_and(|floor| position <= floor);
    let place = (position.seq(), position.index());
    let mut rows = settle.rows.iter().filter(|r| r.device == device);
    rows.any(|r| (r.position.seq(), r.position.index()) == place) || settle.registers.iter().any(below)
}

impl Oracle {
    /// Q5 and Q7 of a settle that is about to be written.
    pub fn judge_settle(&self, call: &Call<'_>, settle: &Settle) -> Verdict {
        for register in &settle.registers {
            self.judge_register(call, register)?;
        }
        let (Some(checkpoint), Some(truth)) = (settle.checkpoint, self.shards.get(&call.shard)) else { return Ok(()) };
        if truth.checkpoint > Some(checkpoint) {
            // It changes nothing: the register holds more, durably.
            return Ok(());
        }
        let own = (checkpoint.position.seq(), checkpoint.entry);
        let stands = match own.1 {
            Some(id) => call.log.contains(&(own.0, id)),
            None => call.log.first().is_none_or(|(seq, _)| *seq > own.0),
        };
        if truth.forked && !stands {
            // Its own entry went with the end of the log: whoever reads it next begins a log epoch below it.
            return Ok(());
        }
        for (seq, id) in call.log.iter().filter(|(seq, _)| *seq <= own.0) {
            for (index, item) in self.entries.get(id).into_iter().flatten().enumerate() {
                if let Some(device) = self.unsettled(truth, call, (*seq, index, item), settle) {
                    let (owner, shard, to) = (call.owner, call.shard, checkpoint.position);
                    let at = truth.position(*seq, index);
                    return Err(format!(
                        "Q7: {owner} moves the checkpoint of {shard:?} to {to} past {at} of {device:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The first device for which the envelope is not settled once rows and floors of the call are durable.
    fn unsettled(
        &self,
        truth: &ShardTruth,
        call: &Call<'_>,
        (seq, index, item): (Seq, usize, &Item),
        settle: &Settle,
    ) -> Option<DeviceId> {
        if item.expires_at <= call.now.after(SPILL_LIFE_MIN) {
            return None;
        }
        let epoch = truth.views.get(call.owner).and_then(|view| view.epoch);
        let at = truth.position_in(epoch, seq, index);
        let settled = |device: &&DeviceId| {
            let Some(known) = self.devices.get(device) else { return true };
            known.removed
                || known.seen.contains(&item.name)
                || known.has_row(item.name)
                || at <= known.floor.0
                || known.told(at)
                || covered(settle, **device, at)
        };
        item.devices.iter().find(|device| !settled(device)).copied()
    }

    fn judge_register(&self, call: &Call<'_>, register: &DeviceRegister) -> Verdict {
        let Some(known) = self.devices.get(&register.device) else { return Ok(()) };
        let (device, committed) = (register.device, known.committed.0);
        if let Some(cursor) = register.cursor.filter(|c| self.passes(device, *c, call.log, call.now)) {
            return Err(format!("Q5: the cursor of {device:?} is stored as {cursor} above its commit {committed}"));
        }
        if let Some(floor) = register.floor.filter(|f| *f > known.floor.0) {
            let queued = self.queued(device, call.log);
            if queued <= self.rows_max {
                return Err(format!("Q8: the floor of {device:?} rises to {floor} with {queued} envelopes queued"));
            }
        }
        Ok(())
    }

    /// How many envelopes wait for a device at most, in rows and in the log; a copy counts.
    pub fn queued(&self, device: DeviceId, log: &Log) -> usize {
        let rows = self.devices.get(&device).into_iter().flat_map(|known| &known.tried);
        let of_rows: BTreeSet<_> = rows.clone().map(|p| (p.seq(), usize::from(p.index()))).collect();
        let mut waiting = rows.count();
        for (seq, id) in log {
            let items = self.entries.get(id).into_iter().flatten().enumerate();
            let more = items.filter(|(n, item)| item.devices.contains(&device) && !of_rows.contains(&(*seq, *n)));
            waiting += more.count();
        }
        waiting
    }

    /// A settle was acknowledged.
    pub fn settled(&mut self, shard: ShardId, settle: &Settle) {
        for row in &settle.rows {
            if let Some(name) = name_of(&row.envelope) {
                let new = Row { name, expires_at: row.expires_at, owed: false };
                self.device(row.device).rows.entry(row.position).or_insert(new);
            }
        }
        for register in &settle.registers {
            let device = self.device(register.device);
            device.floor.raise(register.floor.unwrap_or(Position::ZERO));
        }
        if let Some(checkpoint) = settle.checkpoint {
            self.checkpoint_is(shard, checkpoint);
        }
    }

    /// A settle is on its way: if its checkpoint is read, all of it is durable, whatever its caller hears.
    pub fn settling(&mut self, shard: ShardId, settle: &Settle) {
        for row in &settle.rows {
            self.device(row.device).tried.insert(row.position);
        }
        if settle.checkpoint.is_some() {
            self.shard(shard).unheard.push(settle.clone());
        }
    }

    /// A floor was read.
    pub fn floor_read(&mut self, device: DeviceId, floor: Position) {
        self.device(device).floor.raise(floor);
    }

    /// A checkpoint was read.
    pub fn checkpoint_read(&mut self, shard: ShardId, checkpoint: Checkpoint) {
        let unheard = std::mem::take(&mut self.shard(shard).unheard);
        let (durable, rest): (Vec<_>, Vec<_>) = unheard.into_iter().partition(|s| s.checkpoint == Some(checkpoint));
        self.shard(shard).unheard = rest;
        durable.iter().for_each(|settle| self.settled(shard, settle));
        self.checkpoint_is(shard, checkpoint);
    }

    /// The shard's checkpoint is known to be at least this: nothing else holds the rows up to it any more.
    fn checkpoint_is(&mut self, shard: ShardId, checkpoint: Checkpoint) {
        let truth = self.shard(shard);
        if truth.checkpoint >= Some(checkpoint) {
            return;
        }
        truth.checkpoint = Some(checkpoint);
        let epoch = checkpoint.position.epoch();
        let of: Vec<DeviceId> = self.shard_of.iter().filter(|(_, s)| **s == shard).map(|(d, _)| *d).collect();
        for device in of {
            for (position, row) in self.device(device).rows.range_mut(..=checkpoint.position) {
                row.owed |= position.epoch() == epoch;
            }
        }
    }

    /// Q7 of a trim of the log. Who began a log epoch below what another owner was settling puts a checkpoint in its place
    /// that names a lower entry; what the other one has settled until then is in rows below both.
    pub fn judge_log_trim(&self, owner: &str, shard: ShardId, through: Seq) -> Verdict {
        let truth = self.shards.get(&shard);
        let checkpoint = truth.and_then(|shard| shard.checkpoint).unwrap_or(Checkpoint::ZERO).position;
        let own = truth.filter(|shard| !shard.forked).and_then(|shard| shard.views.get(owner)).map(View::settled);
        if through > checkpoint.seq().max(own.unwrap_or(Seq::ZERO)) {
            let through = through.get();
            return Err(format!(
                "Q7: {owner} trims the log of {shard:?} to {through} above its checkpoint {checkpoint}"
            ));
        }
        Ok(())
    }

    /// Q5 of a trim of a queue.
    pub fn judge_queue_trim(
        &self,
        owner: &str,
        (device, through): (DeviceId, Position),
        log: &Log,
        now: UnixMillis,
    ) -> Verdict {
        let Some(known) = self.devices.get(&device) else { return Ok(()) };
        let (committed, floor) = (known.committed.0, known.floor.0);
        if !known.removed && self.passes(device, through, log, now) {
            return Err(format!(
                "Q5: {owner} deletes rows of {device:?} to {through} above its commit {committed} and floor {floor}"
            ));
        }
        Ok(())
    }

    /// Whether a cursor or trim passes what the device neither committed nor was told to be gone. What expired may be
    /// passed.
    pub fn passes(&self, id: DeviceId, to: Position, log: &Log, now: UnixMillis) -> bool {
        let Some(known) = self.devices.get(&id) else { return false };
        let from = known.committed.0.max(known.floor.0);
        if to <= from {
            return false;
        }
        let soon = now.after(SPILL_LIFE_MIN);
        let waits = |name, expires_at: UnixMillis| expires_at > soon && !known.seen.contains(&name);
        let Some(truth) = self.shard_of.get(&id).and_then(|shard| self.shards.get(shard)) else { return true };
        let in_log = log.iter().any(|(seq, entry)| {
            let items = self.entries.get(entry).into_iter().flatten().enumerate();
            let mut mine = items.filter(|(_, item)| item.devices.contains(&id));
            mine.any(|(n, item)| {
                (from.next()..=to).contains(&truth.position(*seq, n)) && waits(item.name, item.expires_at)
            })
        });
        let expired_only = known.rows.range(from.next()..=to).all(|(_, row)| !waits(row.name, row.expires_at));
        in_log || !expired_only || !self.stood(id, from, to)
    }

    /// Whether anything was ever addressed to the device between two positions: if not, the higher one was made up.
    fn stood(&self, id: DeviceId, from: Position, to: Position) -> bool {
        let Some(shard) = self.shard_of.get(&id) else { return false };
        let mut mine = self.placed.iter().filter(|((of, name), _)| {
            of == shard && self.recipients.get(name).is_some_and(|devices| devices.contains(&id))
        });
        mine.any(|(_, positions)| positions.range(from.next()..=to).next().is_some())
    }

    /// Q2: what is rung for is durable in the log, or was when its owner read it.
    pub fn judge_ring(&self, call: &Call<'_>, position: Position) -> Verdict {
        let seq = position.seq();
        let read = self
            .shards
            .get(&call.shard)
            .and_then(|s| s.views.get(call.owner))
            .is_some_and(|v| v.read.contains_key(&seq));
        if !read && !call.log.iter().any(|(s, _)| *s == seq) {
            return Err(format!(
                "Q2: {} rings for {position} of {:?}, which is not in the log",
                call.owner, call.shard
            ));
        }
        Ok(())
    }

    /// `owner` settles: it has taken in what it was answered before.
    pub fn settles_again(&mut self, owner: &str, shard: ShardId) {
        let view = self.shard(shard).views.entry(owner.into()).or_default();
        for settle in std::mem::take(&mut view.heard) {
            for register in &settle.registers {
                let known = view.cursors.entry(register.device).or_insert(Position::ZERO);
                *known = register.cursor.unwrap_or(Position::ZERO).max(*known);
            }
            let checkpoint = settle.checkpoint.map_or(Position::ZERO, |checkpoint| checkpoint.position);
            view.checkpoint.raise(checkpoint);
        }
    }

    /// Q5 of a registration that `owner` answers: never below a stored cursor that it knows. Above its checkpoint an
    /// owner may forget cursors: it forgets only those below which it holds nothing.
    pub fn judge_registered(&self, owner: &str, device: DeviceId, from: Position) -> Verdict {
        let Some(truth) = self.shard_of.get(&device).and_then(|shard| self.shards.get(shard)) else { return Ok(()) };
        let Some(view) = truth.views.get(owner) else { return Ok(()) };
        match view.cursors.get(&device) {
            Some(known) if from < *known && *known <= view.checkpoint.0 => {
                Err(format!("Q5: {owner} moves the cursor of {device:?} from {known} back to {from}"))
            }
            _ => Ok(()),
        }
    }
}
