// SPDX-License-Identifier: MIT OR Apache-2.0
//! Settling: rows for what is still un-acknowledged, then changed cursors, then the checkpoint, which is read back.

use std::time::Duration;

use bytes::Bytes;
use pli_domain::limits::{SETTLE_ROWS_MAX, SPILL_LIFE_MIN};
use pli_domain::mutant::{Mutant, broken};
use pli_domain::{Checkpoint, DeviceId, LogEpoch, Position, UnixMillis};
use pli_ports::{Aside, DeviceRegister, DeviceState, QueueRow, Retry, Settle, StoreError};
use pli_runtime::trail::HopKind;
use tokio::time::Instant;

use super::Context;
use super::live::{Done, Ended, Live};
use super::refetch::{Want, refetch};
use super::retry::{retried, retried_with_room};
use super::tail::{Body, TailEntry};

/// Entries in one settle; bounds a notice.
const ENTRIES_MAX: usize = 16_384;

/// Bytes of rows in one settle, the last entry not counted. Small steps: each lets the log be trimmed, so an engine whose
/// disk is full gets the room for the next one, and acknowledgements that arrive meanwhile spare rows.
const BYTES_MAX: usize = 2 * 1024 * 1024;

/// What the store has had room for lately. A plan that finds none is given up rather than tried again: what is
/// acknowledged meanwhile needs no row any more, and a smaller step may fit and lets the log be trimmed.
#[derive(Debug)]
pub(super) struct Room {
    /// Bytes of rows in the next settle, the last entry not counted.
    bytes: usize,
    /// No plan is made before.
    from: Option<Instant>,
}

impl Default for Room {
    fn default() -> Self {
        Self { bytes: BYTES_MAX, from: None }
    }
}

impl Room {
    fn missing(&mut self, wait: Duration) {
        self.bytes /= 4;
        self.from = Some(Instant::now() + wait);
    }
    fn found(&mut self) {
        self.bytes = (self.bytes * 2).clamp(1, BYTES_MAX);
        self.from = None;
    }
    fn may_try(&self) -> bool {
        self.from.is_none_or(|from| Instant::now() >= from)
    }
}

/// A snapshot to settle.
#[derive(Debug)]
pub(super) struct Plan {
    /// Entries below this ordinal are settled by it.
    through: u64,
    checkpoint: Option<Checkpoint>,
    aside: Vec<Aside>,
    rows: Vec<PlannedRow>,
    bytes: usize,
    /// More is due than one settle takes.
    more: bool,
    /// Devices of the rows whose registers were not read yet.
    unloaded: Vec<DeviceId>,
    registers: Vec<DeviceRegister>,
    /// When the plan was made; decides what is expired.
    now: UnixMillis,
}

#[derive(Debug)]
struct PlannedRow {
    want: Want,
    expires_at: UnixMillis,
    gap: bool,
}

impl Plan {
    fn new(through: u64, now: UnixMillis) -> Self {
        Self {
            through,
            checkpoint: None,
            aside: Vec::new(),
            rows: Vec::new(),
            bytes: 0,
            more: false,
            unloaded: Vec::new(),
            registers: Vec::new(),
            now,
        }
    }
}

/// What settling found.
#[derive(Debug, Default)]
pub(super) struct SettleEnd {
    /// A higher log epoch stands.
    fenced: bool,
    /// The log does not have what was to be written any more.
    lost: bool,
    /// The store had no room for all of it; only `written` stands.
    no_room: bool,
    states: Vec<(DeviceId, DeviceState)>,
    written: Vec<(DeviceId, Position, usize)>,
}

impl Live {
    /// Begins to settle what is due. False when nothing is, or a settle is under way.
    pub fn settle_on(&mut self) -> bool {
        if self.settling || !self.room.may_try() || (Instant::now() < self.settle_from && !self.over_half()) {
            return false;
        }
        let plan = self.plan();
        if plan.checkpoint.is_none() && plan.registers.is_empty() {
            return self.tidy_on();
        }
        self.settling = true;
        let (context, epoch) = (self.context.clone(), self.epoch.epoch);
        self.spawn(async move {
            let mut plan = plan;
            let end = settle(&context, &mut plan, epoch).await;
            Done::Settled(Box::new(plan), end)
        });
        true
    }

    /// The oldest entries that are due: of which nothing is open, or which are older than `spill_after`, or which
    /// pass the budget.
    fn plan(&mut self) -> Plan {
        let mut plan = Plan::new(self.tail.first_ordinal(), self.context.ports.clock.now());
        let config = self.context.config.clone();
        let mut bytes_left = self.tail.bytes;
        for entry in self.tail.iter().take(ENTRIES_MAX) {
            let due = entry.open == 0
                || entry.read_at.elapsed() >= config.spill_after()
                || bytes_left > config.tail_bytes_max / 2;
            let room = plan.rows.len() + entry.open <= config.settle_rows_max.max(entry.open)
                && plan.bytes <= self.room.bytes.min(config.tail_bytes_max / 4);
            plan.more = due && !room;
            if !due || !room {
                break;
            }
            bytes_left -= entry.bytes;
            plan.through += 1;
            plan.checkpoint = Some(Checkpoint { position: entry.end, entry: Some(entry.entry.id) });
            plan.aside.extend(entry.aside.clone().map(|bytes| Aside { entry: entry.entry, bytes }));
            self.plan_rows(entry, &mut plan);
        }
        plan.rows.sort_by_key(|row| (row.want.device, row.want.position));
        plan.unloaded.sort_unstable();
        plan.unloaded.dedup();
        if broken(Mutant::CheckpointPassesUnacked) {
            plan.rows.clear();
        }
        self.plan_registers(&mut plan);
        plan
    }

    fn plan_rows(&self, entry: &TailEntry, plan: &mut Plan) {
        if entry.open == 0 {
            return;
        }
        for (id, index) in &entry.targets {
            let position = Position::new(entry.end.epoch(), entry.end.seq(), *index);
            let Some(device) = self.devices.get(*id) else { continue };
            let Ok(at) = device.slots.binary_search_by_key(&position, |slot| slot.position) else { continue };
            let slot = &device.slots[at];
            if slot.expires_at < plan.now.after(SPILL_LIFE_MIN) {
                continue;
            }
            if !device.loaded {
                plan.unloaded.push(*id);
            }
            let body = match &slot.body {
                Body::Held(envelope) => Some(envelope.clone()),
                Body::Gap => Some(Bytes::new()),
                Body::Dropped { .. } => None,
            };
            plan.bytes += Self::size_of(slot);
            let want = Want { device: *id, position, entry: entry.entry, body };
            plan.rows.push(PlannedRow { want, expires_at: slot.expires_at, gap: slot.body == Body::Gap });
        }
    }

    fn plan_registers(&mut self, plan: &mut Plan) {
        for id in self.devices.dirty.iter().take(self.context.config.settle_rows_max) {
            if let Some(device) = self.devices.get(*id) {
                let floor = None;
                plan.registers.push(DeviceRegister { device: *id, cursor: Some(device.cursor), floor });
            }
        }
    }

    /// Applies a finished settle: what it settled leaves the tail, edges are told, rows and log are trimmed.
    pub async fn settled(&mut self, plan: Plan, end: SettleEnd) {
        self.settling = false;
        if end.lost {
            self.end = Some(Ended::Fork);
            return;
        }
        for (device, state) in &end.states {
            self.merge(*device, *state).await;
        }
        if end.no_room {
            return self.settle_later(&end);
        }
        self.room.found();
        self.note_rows(&end);
        self.note_registers(&plan);
        if let Some(checkpoint) = plan.checkpoint {
            debug_assert!(checkpoint.position >= self.checkpoint.position, "a checkpoint never goes back");
            self.leave_tail(&plan);
            self.checkpoint = checkpoint;
            self.note_levels();
        }
        if end.fenced {
            self.context.counters.zombie_settles(1);
            tracing::warn!(shard = %self.context.shard, "a higher log epoch stands; starting again");
            self.end = Some(Ended::Fenced);
            return;
        }
        if plan.checkpoint.is_some() {
            self.context.counters.settles(1);
            self.context.hop(HopKind::Settled, self.checkpoint.position);
            self.note_settled(self.checkpoint.position.seq());
            self.notify().await;
        }
        let devices = end.written.iter().map(|(device, ..)| *device);
        for device in devices.chain(plan.registers.iter().map(|register| register.device)) {
            self.devices.release(device, self.context.config.idle_devices_max);
        }
        if !self.tidy_on() && (plan.more || self.context.config.spill_after_ms == 0 || self.over_half()) {
            self.settle_on();
        }
    }

    /// There was no room for the plan; another is made at a later tick. Rows of its first calls may stand.
    fn settle_later(&mut self, end: &SettleEnd) {
        self.give_up();
        for (id, position, _) in &end.written {
            let device = self.devices.entry(*id);
            device.suppose_rows(*position);
            if device.cursor >= *position {
                device.trim_since.get_or_insert_with(Instant::now);
                self.devices.dirty.insert(*id);
            }
        }
        self.tidy_on();
    }

    /// A plan found no room.
    pub fn give_up(&mut self) {
        self.context.counters.settles_without_room(1);
        tracing::debug!(shard = %self.context.shard, "the store has no room; what is due is planned again later");
        self.room.missing(self.context.config.settle_every());
    }

    fn note_rows(&mut self, end: &SettleEnd) {
        let counters = self.context.counters.clone();
        for (id, position, bytes) in &end.written {
            counters.rows_written(1);
            self.context.hop(HopKind::Spilled, *position);
            counters.row_bytes_written(*bytes);
            let device = self.devices.entry(*id);
            device.note_row(*position, *bytes);
            let passed = device.cursor >= *position;
            if passed {
                // Acknowledged while its row was written, and counted then.
                if let Some(rows) = &mut device.rows {
                    rows.count -= 1;
                    rows.bytes -= bytes;
                }
                device.trim_since.get_or_insert_with(Instant::now);
                self.devices.dirty.insert(*id);
            }
            let live = self.devices.get(*id).is_some_and(|device| !device.sessions.is_empty());
            counters.spills_met_live(usize::from(live));
            self.measure_if_large(*id);
        }
    }

    fn note_registers(&mut self, plan: &Plan) {
        self.context.counters.registers_written(plan.registers.len());
        for register in &plan.registers {
            let Some(device) = self.devices.get_mut(register.device) else { continue };
            device.cursor_durable = device.cursor_durable.max(register.cursor.unwrap_or(Position::ZERO));
            if device.cursor_durable >= device.cursor {
                self.devices.dirty.remove(&register.device);
            }
            self.devices.to_trim.insert(register.device);
        }
    }

    /// Takes the settled entries out of the tail, and of each device what still stood in them.
    fn leave_tail(&mut self, plan: &Plan) {
        let soon = plan.now.after(SPILL_LIFE_MIN);
        while self.tail.first_ordinal() < plan.through {
            let ordinal = self.tail.first_ordinal();
            let Some(entry) = self.tail.get_mut(ordinal) else { return };
            let (end, open) = (entry.end, entry.open);
            let targets = std::mem::take(&mut entry.targets);
            for (id, _) in targets.iter().filter(|_| open > 0) {
                self.take_slots(*id, end, soon);
            }
            let Some(entry) = self.tail.pop() else { return };
            debug_assert_eq!(entry.open, 0, "nothing of a settled entry stays in a queue of the tail");
            if let Some(origin) = entry.origin {
                self.notices.settled(origin, entry.entry.id);
            }
        }
    }

    fn take_slots(&mut self, id: DeviceId, through: Position, soon: UnixMillis) {
        let Some(device) = self.devices.get_mut(id) else { return };
        while let Some(slot) = device.slots.pop_front_if(|slot| slot.position <= through) {
            if slot.expires_at < soon {
                self.context.counters.expired(1);
                self.context.hop(HopKind::Expired, slot.position);
            }
            self.tail.close(slot.ordinal);
        }
        self.devices.release(id, self.context.config.idle_devices_max);
    }

    /// Merges registers read from the database.
    pub async fn merge(&mut self, id: DeviceId, state: DeviceState) {
        let known = self.devices.get(id).map_or(Position::ZERO, |device| device.floor);
        let floor = self.devices.merge(id, state).floor;
        self.pass(id);
        if floor > known {
            self.tell_floor(id, floor).await;
        }
    }
}

/// Writes the plan in order and reads the checkpoint back.
async fn settle(context: &Context, plan: &mut Plan, epoch: LogEpoch) -> Result<SettleEnd, StoreError> {
    let mut end = SettleEnd::default();
    if !plan.unloaded.is_empty() {
        context.counters.register_reads(plan.unloaded.len());
        let states = retried(context, || context.ports.queues.device_states(&plan.unloaded)).await?;
        end.states = plan.unloaded.iter().copied().zip(states).collect();
        drop_settled_rows(plan, &end.states);
    }
    if !fetch_bodies(context, plan).await? {
        end.lost = true;
        return Ok(end);
    }
    let rows: Vec<QueueRow> = std::mem::take(&mut plan.rows).into_iter().filter_map(queue_row).collect();
    match write(context, plan, rows, &mut end.written).await {
        Err(error) if error.retry == Retry::Room => {
            end.no_room = true;
            return Ok(end);
        }
        other => other?,
    }
    if plan.checkpoint.is_some() && !broken(Mutant::NoCheckpointReadBack) {
        let state = retried(context, || context.ports.queues.shard_state(context.shard)).await?;
        end.fenced = state.log_epoch.epoch > epoch || state.checkpoint.position.epoch() > epoch;
    }
    Ok(end)
}

/// What the database knows to be acknowledged or below a floor needs no row.
fn drop_settled_rows(plan: &mut Plan, states: &[(DeviceId, DeviceState)]) {
    plan.rows.retain(|row| {
        let found = states.binary_search_by_key(&row.want.device, |(device, _)| *device);
        found.map_or(true, |at| row.want.position > states[at].1.cursor.max(states[at].1.floor))
    });
}

/// Reads dropped bodies from the log again, until it can tell. False when the log does not have them.
async fn fetch_bodies(context: &Context, plan: &mut Plan) -> Result<bool, StoreError> {
    let dropped = plan.rows.iter().filter(|row| row.want.body.is_none());
    let mut wants: Vec<Want> = dropped.map(|row| row.want.clone()).collect();
    if wants.is_empty() {
        return Ok(true);
    }
    wants.sort_by_key(|want| (want.position, want.device));
    let mut backoff = context.backoff();
    let mut tries = 0;
    loop {
        match refetch(context, &mut wants).await {
            Ok(true) => break,
            Ok(false) if tries == 2 => {
                tracing::error!(shard = %context.shard, "the log lost bodies that were read from it");
                return Ok(false);
            }
            Ok(false) => tries += 1,
            Err(error) if error.retry == Retry::Never => return Err(error),
            Err(error) => {
                tracing::info!(shard = %context.shard, error = &error as &dyn std::error::Error, "reading bodies again");
            }
        }
        backoff.wait().await;
    }
    wants.sort_by_key(|want| (want.device, want.position));
    for row in plan.rows.iter_mut().filter(|row| row.want.body.is_none()) {
        let key = (row.want.device, row.want.position);
        let found = wants.binary_search_by_key(&key, |want| (want.device, want.position));
        row.want.body = found.ok().and_then(|at| wants[at].body.clone());
    }
    Ok(true)
}

fn queue_row(row: PlannedRow) -> Option<QueueRow> {
    let PlannedRow { want: Want { device, position, body, .. }, expires_at, gap } = row;
    let envelope = body?;
    debug_assert_eq!(envelope.is_empty(), gap, "an empty row tells a gap");
    Some(QueueRow { device, position, expires_at, envelope })
}

type Written = Vec<(DeviceId, Position, usize)>;

/// Rows in calls of at most 4,096; registers and the checkpoint with the last. Notes in `written` which rows stand.
async fn write(
    context: &Context,
    plan: &Plan,
    mut rows: Vec<QueueRow>,
    written: &mut Written,
) -> Result<(), StoreError> {
    let mut aside = plan.aside.clone();
    while rows.len() > SETTLE_ROWS_MAX {
        let rest = rows.split_off(SETTLE_ROWS_MAX);
        let call = Settle { aside: std::mem::take(&mut aside), rows, ..Settle::default() };
        write_some(context, call, written).await?;
        rows = rest;
    }
    let call = Settle { aside, rows, registers: plan.registers.clone(), checkpoint: plan.checkpoint };
    write_some(context, call, written).await
}

async fn write_some(context: &Context, call: Settle, written: &mut Written) -> Result<(), StoreError> {
    retried_with_room(context, || context.ports.queues.settle(context.shard, call.clone())).await?;
    written.extend(call.rows.iter().map(|row| (row.device, row.position, row.envelope.len())));
    Ok(())
}
