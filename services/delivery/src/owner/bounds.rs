// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bounds: what goes after a settle. Rows that are acknowledged, the log behind the checkpoint, the oldest of a
//! queue that is too long, and bodies when the database is down and the budget full.

use std::collections::VecDeque;
use std::time::Duration;

use pli_api::delivery::{FloorRaised, edge_signal};
use pli_domain::mutant::{Mutant, broken};
use pli_domain::{DeviceId, EntryRef, Position, Seq};
use pli_ports::{DeviceRegister, LogFate, Retry, Settle, StoreError, Usage, UsageBound};
use pli_runtime::trail::HopKind;
use tokio::time::Instant;

use super::Context;
use super::devices::Session;
use super::live::{Done, Live};
use super::retry::{retried, retried_with_room};
use super::tail::{Body, Slot};

/// Devices whose rows one tidying deletes.
const TRIMS_MAX: usize = 4_096;
/// Queues that one tidying measures.
const MEASURES_MAX: usize = 64;
/// Steps in which the log is trimmed behind the checkpoint.
const SETTLED_STEPS: u32 = 64;

/// Thousandths of the log's room above which it is trimmed before receipts are old.
const CROWDED: u16 = 700;
/// However full the log is, receipts are answered from it for so long: a sender that was away longer sends again.
const RECEIPTS_KEPT_LEAST: Duration = Duration::from_secs(10 * 60);
/// How often the owner asks how full the log is.
const FULLNESS_EVERY: Duration = Duration::from_secs(60);

/// How full the log was when it was asked last.
#[derive(Debug, Default)]
pub(super) struct Fullness {
    /// When it is asked next.
    due: Option<Instant>,
    /// It was over [`CROWDED`]; one answer is good for one trim.
    crowded: bool,
}

/// Settled sequences with the time. Bound: [`SETTLED_STEPS`] plus one.
pub(super) type Settled = VecDeque<(Instant, Seq)>;

/// What is done after a settle, in the order of the fields.
#[derive(Debug, Default)]
pub(super) struct TidyPlan {
    /// Floors, durable before a row goes.
    floors: Vec<(DeviceId, Position)>,
    trims: Vec<(DeviceId, Position)>,
    /// With the time when it was settled.
    log_through: Option<(Instant, Seq)>,
    measure: Vec<(DeviceId, Position)>,
    /// Whether the log is asked how full it is, and what it said.
    ask_fullness: bool,
    fullness: Option<u16>,
    /// What measuring found.
    usages: Vec<(DeviceId, Usage)>,
    /// The store had no room even for deleting.
    no_room: bool,
}

impl TidyPlan {
    fn is_empty(&self) -> bool {
        let nothing = self.floors.is_empty() && self.trims.is_empty() && self.measure.is_empty();
        nothing && self.log_through.is_none() && !self.ask_fullness
    }
}

impl Live {
    /// Begins what is due after a settle. False when nothing is.
    pub fn tidy_on(&mut self) -> bool {
        let plan = TidyPlan {
            trims: self.plan_trims(),
            log_through: self.plan_log_trim(),
            measure: self.plan_measures(),
            ask_fullness: self.plan_fullness(),
            ..TidyPlan::default()
        };
        self.tidy(plan)
    }

    fn tidy(&mut self, plan: TidyPlan) -> bool {
        if plan.is_empty() {
            return false;
        }
        self.settling = true;
        let context = self.context.clone();
        self.spawn(async move {
            let mut plan = plan;
            let tidied = tidy(&context, &mut plan).await;
            Done::Tidied(Box::new(plan), tidied)
        });
        true
    }

    /// Coalesced: at most once per `trim_acks` acknowledgements or `trim_after`, and only where rows exist.
    fn plan_trims(&mut self) -> Vec<(DeviceId, Position)> {
        let config = &self.context.config;
        let mut trims = Vec::new();
        for id in &self.devices.to_trim {
            let Some(device) = self.devices.get(*id) else { continue };
            let waited = device.trim_since.is_none_or(|since| since.elapsed() >= config.trim_after());
            if (waited || device.acks >= config.trim_acks) && trims.len() < TRIMS_MAX {
                // Durable: the cursor as written, the floor as every floor in memory but one being raised.
                trims.push((*id, device.cursor_durable));
            }
        }
        trims
    }

    fn plan_measures(&mut self) -> Vec<(DeviceId, Position)> {
        let ids: Vec<DeviceId> = self.devices.to_measure.iter().take(MEASURES_MAX).copied().collect();
        let above = |id: &DeviceId| self.devices.get(*id).map_or(Position::ZERO, |device| device.settled_to());
        ids.iter().map(|id| (*id, above(id))).collect()
    }

    /// Whether the log is to be asked how full it is. Shards of one worker ask at different moments.
    fn plan_fullness(&mut self) -> bool {
        if self.context.ports.log.fate() == LogFate::OneTransaction {
            return false;
        }
        let now = Instant::now();
        let first = || now + FULLNESS_EVERY.mul_f64(f64::from(self.context.shard.get() % 64) / 64.0);
        let due = *self.fullness.due.get_or_insert_with(first) <= now;
        if due {
            self.fullness.due = Some(now + FULLNESS_EVERY);
        }
        due
    }

    /// Takes what is settled and old enough; where the log is crowded, half of what is older than
    /// [`RECEIPTS_KEPT_LEAST`] too.
    fn settled_through(&mut self, kept: Duration) -> Option<(Instant, Seq)> {
        let mut through = None;
        while let Some(settled) = self.settled.pop_front_if(|(at, _)| at.elapsed() >= kept) {
            through = Some(settled);
        }
        if !std::mem::take(&mut self.fullness.crowded) {
            return through;
        }
        let older = self.settled.iter().take_while(|(at, _)| at.elapsed() >= RECEIPTS_KEPT_LEAST).count();
        let half = older.div_ceil(2);
        let early = self.settled.drain(..half).next_back();
        self.context.counters.log_trims_early(usize::from(early.is_some()));
        early.or(through)
    }

    /// How far the log may go: right up to the checkpoint where log and tables are one, else as far as receipts are
    /// old, and never the checkpoint's own entry.
    fn plan_log_trim(&mut self) -> Option<(Instant, Seq)> {
        let checkpoint = self.checkpoint.position.seq();
        let kept = match self.context.ports.log.fate() {
            LogFate::OneTransaction => Duration::ZERO,
            LogFate::OwnSystem => self.context.config.receipts_kept(),
        };
        let through = self.settled_through(kept);
        let most = match self.context.ports.log.fate() {
            LogFate::OneTransaction => checkpoint,
            LogFate::OwnSystem => checkpoint.prev(),
        };
        let (at, through) = through.map(|(at, seq)| (at, seq.min(most))).filter(|(_, seq)| *seq > Seq::ZERO)?;
        if broken(Mutant::TrimAboveCheckpoint) {
            return Some((at, self.head.seq()));
        }
        debug_assert!(through <= checkpoint, "the log is never trimmed above the checkpoint (Q7)");
        Some((at, through))
    }

    /// Remembers when a sequence was settled.
    pub fn note_settled(&mut self, seq: Seq) {
        let step = match self.context.ports.log.fate() {
            LogFate::OneTransaction => Duration::ZERO,
            LogFate::OwnSystem => self.context.config.receipts_kept() / SETTLED_STEPS,
        };
        if self.settled.back().is_none_or(|(at, _)| at.elapsed() >= step) {
            self.settled.push_back((Instant::now(), seq));
        }
    }

    /// Marks a queue for measuring when it may be too long, or when nobody knows.
    pub fn measure_if_large(&mut self, id: DeviceId) {
        let config = &self.context.config;
        let rows = self.devices.get(id).and_then(|device| device.rows);
        let large = |rows: super::devices::Rows| {
            !rows.counted || rows.count > config.queue_rows_max || rows.bytes > config.queue_bytes_max
        };
        if rows.is_some_and(large) {
            self.devices.to_measure.insert(id);
        }
    }

    /// Whether more waits to be spread to many shards than a queue may hold. Edges that hear of it refuse such messages
    /// for a while.
    pub fn fan_out_is_full(&self) -> bool {
        let config = &self.context.config;
        let too_many = |rows: super::devices::Rows| {
            rows.counted && (rows.count > config.queue_rows_max || rows.bytes > config.queue_bytes_max)
        };
        let queue = self.devices.get(DeviceId::fan_out(self.context.shard));
        queue.and_then(|queue| queue.rows).is_some_and(too_many)
    }

    /// Applies a finished tidying; queues found too long get their floors raised by another.
    pub async fn tidied(&mut self, plan: TidyPlan) {
        self.settling = false;
        if plan.no_room {
            return self.tidy_later(plan);
        }
        self.fullness.crowded |= plan.fullness.is_some_and(|fullness| fullness > CROWDED);
        for (id, position) in &plan.trims {
            self.trimmed(*id, *position);
        }
        let mut floors = Vec::new();
        for (id, usage) in &plan.usages {
            floors.extend(self.measured(*id, *usage).await);
        }
        let next = TidyPlan { trims: floors.clone(), floors, ..TidyPlan::default() };
        if !self.tidy(next) && (self.context.config.spill_after_ms == 0 || self.over_half()) {
            self.settle_on();
        }
    }

    /// There was no room for deleting; what is not deleted stays due. Meanwhile the owner settles, which may need less.
    fn tidy_later(&mut self, plan: TidyPlan) {
        self.give_up();
        if let Some(settled) = plan.log_through {
            self.settled.push_front(settled);
        }
    }

    fn trimmed(&mut self, id: DeviceId, position: Position) {
        let Some(device) = self.devices.get_mut(id) else { return };
        device.trimmed = device.trimmed.max(position);
        device.acks = 0;
        device.trim_since = None;
        if device.rows.is_some_and(|rows| rows.high <= device.trimmed) {
            device.rows = None;
        }
        let has_rows = device.rows.is_some();
        if !has_rows || device.cursor_durable <= device.trimmed {
            self.devices.to_trim.remove(&id);
        }
        if has_rows && id.is_reserved() && self.fan_out_is_full() {
            self.devices.to_measure.insert(id);
        }
        self.devices.release(id, self.context.config.idle_devices_max);
    }

    /// Takes a queue's size; a floor that must rise is in force in memory before it is durable and before a row goes,
    /// so that a page read meanwhile tells the gap.
    async fn measured(&mut self, id: DeviceId, usage: Usage) -> Option<(DeviceId, Position)> {
        self.devices.to_measure.remove(&id);
        let device = self.devices.get_mut(id)?;
        let Some(known) = device.rows.as_mut() else {
            self.devices.release(id, self.context.config.idle_devices_max);
            return None;
        };
        let before = known.count;
        self.context.counters.levels.queue_rows(usage.rows);
        (known.count, known.bytes, known.counted) = (usage.rows, usage.bytes, true);
        // What waits to be spread was accepted for others and stays; edges are told to wait.
        let excess = usage.excess.filter(|_| !id.is_reserved());
        let Some(floor) = excess.filter(|floor| *floor > device.cursor.max(device.floor)) else {
            self.devices.release(id, self.context.config.idle_devices_max);
            return None;
        };
        let config = &self.context.config;
        known.count = usage.rows.min(config.queue_rows_max);
        known.bytes = usage.bytes.min(config.queue_bytes_max);
        let gone = before.max(usage.rows).saturating_sub(known.count).max(1);
        device.floor = floor;
        self.context.counters.gapped(gone);
        self.context.counters.floors_raised(1);
        // What of it stands in rows has no slot that could say so of itself.
        self.context.hop(HopKind::Floor, floor);
        self.pass(id);
        self.tell_floor(id, floor).await;
        Some((id, floor))
    }

    pub async fn tell_floor(&mut self, id: DeviceId, floor: Position) {
        let sessions: Vec<Session> = self.devices.get(id).map(|device| device.sessions.clone()).unwrap_or_default();
        for session in sessions {
            let session_bytes = bytes::Bytes::copy_from_slice(session.id.as_bytes());
            let raised = FloorRaised { session: session_bytes, floor: floor.get() };
            self.context.tell(session.edge, edge_signal::Signal::FloorRaised(raised)).await;
        }
    }

    /// Above half of the byte budget the oldest part is spilled at once.
    pub fn over_half(&self) -> bool {
        self.tail.bytes > self.context.config.tail_bytes_max / 2
    }

    /// Above the whole budget, which needs a database that does not answer, bodies are dropped, oldest first.
    pub fn keep_budget(&mut self) {
        let mut ordinal = self.tail.first_ordinal();
        while self.tail.bytes > self.context.config.tail_bytes_max && ordinal < self.tail.next_ordinal() {
            self.drop_bodies(ordinal);
            ordinal += 1;
        }
    }

    fn drop_bodies(&mut self, ordinal: u64) {
        let Some(entry) = self.tail.get(ordinal).filter(|entry| entry.bytes > 0) else { return };
        let mut dropped = 0;
        for (id, index) in &entry.targets {
            let position = Position::new(entry.end.epoch(), entry.end.seq(), *index);
            let Some(device) = self.devices.get_mut(*id) else { continue };
            if let Ok(at) = device.slots.binary_search_by_key(&position, |slot| slot.position)
                && let Body::Held(envelope) = &device.slots[at].body
            {
                device.slots[at].body = Body::Dropped { bytes: envelope.len() };
                dropped += 1;
            }
        }
        self.context.counters.bodies_dropped(dropped);
        self.tail.forget_bytes(ordinal);
    }

    /// The entry that a slot of the device stands in.
    pub fn entry_of(&self, id: DeviceId, position: Position) -> Option<EntryRef> {
        let slots = &self.devices.get(id)?.slots;
        let at = slots.binary_search_by_key(&position, |slot| slot.position).ok()?;
        self.tail.get(slots[at].ordinal).map(|entry| entry.entry)
    }

    /// How much of a page the slot takes.
    pub fn size_of(slot: &Slot) -> usize {
        match &slot.body {
            Body::Held(envelope) => envelope.len(),
            Body::Dropped { bytes } => *bytes,
            Body::Gap => 0,
        }
    }
}

async fn tidy(context: &Context, plan: &mut TidyPlan) -> Result<(), StoreError> {
    let (queues, shard) = (&context.ports.queues, context.shard);
    if !plan.floors.is_empty() {
        let register = |(device, floor): &(DeviceId, Position)| DeviceRegister {
            device: *device,
            cursor: None,
            floor: Some(*floor),
        };
        let call = Settle { registers: plan.floors.iter().map(register).collect(), ..Settle::default() };
        retried(context, || queues.settle(shard, call.clone())).await?;
        context.counters.registers_written(plan.floors.len());
    }
    match delete(context, plan).await {
        // Only what is planned anew by itself is given up; a floor that rose is not.
        Err(error) if error.retry == Retry::Room && plan.floors.is_empty() => {
            plan.no_room = true;
            return Ok(());
        }
        other => other?,
    }
    if plan.ask_fullness {
        // Asked again in a minute whatever went wrong.
        let fullness = context.ports.log.fullness(shard).await;
        plan.fullness =
            fullness.inspect_err(|error| tracing::debug!(%shard, %error, "the log does not say how full it is")).ok();
    }
    let bound = UsageBound { rows_max: context.config.queue_rows_max, bytes_max: context.config.queue_bytes_max };
    for (device, above) in &plan.measure {
        let now = context.ports.clock.now();
        let usage = retried(context, || queues.usage(*device, *above, bound, now)).await?;
        plan.usages.push((*device, usage));
    }
    Ok(())
}

/// Deletes rows, then entries of the log.
async fn delete(context: &Context, plan: &TidyPlan) -> Result<(), StoreError> {
    let (queues, shard) = (&context.ports.queues, context.shard);
    if !plan.trims.is_empty() && plan.floors.is_empty() {
        retried_with_room(context, || queues.trim(plan.trims.clone())).await?;
    } else if !plan.trims.is_empty() {
        retried(context, || queues.trim(plan.trims.clone())).await?;
    }
    context.counters.row_trims(plan.trims.len());
    if let Some((_, through)) = plan.log_through {
        retried_with_room(context, || context.ports.log.trim(shard, through)).await?;
        context.counters.log_trims(1);
    }
    Ok(())
}
