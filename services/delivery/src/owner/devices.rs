// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an owner knows of devices: loaded on demand, forgotten when nothing depends on it.

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use pli_domain::{DeviceId, EdgeId, Position, SessionId};
use pli_ports::DeviceState;
use tokio::time::Instant;

use super::tail::Slot;

/// A session that is rung.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub id: SessionId,
    pub edge: EdgeId,
    /// The session's and the device's id as doorbells carry them, shared by all of them.
    pub wire: (Bytes, Bytes),
    /// When anything was heard of it.
    pub seen: Instant,
}

/// What is known of a device's rows; a device without has none that this owner knows of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    /// The highest row.
    pub high: Position,
    /// How many rows there are at most, as far as is known.
    pub count: usize,
    /// Their bytes at most.
    pub bytes: usize,
    /// Whether the database was asked how many there are.
    pub counted: bool,
}

/// One device.
#[derive(Debug)]
pub(super) struct Device {
    /// Highest position known to be acknowledged. Never goes back (Q5).
    pub cursor: Position,
    /// Highest cursor known to be durable.
    pub cursor_durable: Position,
    /// What lies above the cursor and at or below this is gone.
    pub floor: Position,
    /// Whether the registers were read from the database.
    pub loaded: bool,
    /// The last position addressed to it; none when this owner does not know.
    pub last_addressed: Option<Position>,
    /// Un-acknowledged envelopes in the tail, by position.
    pub slots: VecDeque<Slot>,
    pub rows: Option<Rows>,
    /// Acknowledgements since its rows were deleted last.
    pub acks: u32,
    /// When rows could first have been deleted again.
    pub trim_since: Option<Instant>,
    /// Rows are deleted up to here.
    pub trimmed: Position,
    /// At most `sessions_per_device_max`, oldest first.
    pub sessions: Vec<Session>,
    /// Whether it stands in the list of idle devices.
    idle: bool,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            cursor: Position::ZERO,
            cursor_durable: Position::ZERO,
            floor: Position::ZERO,
            loaded: false,
            last_addressed: None,
            slots: VecDeque::new(),
            rows: None,
            acks: 0,
            trim_since: None,
            trimmed: Position::ZERO,
            sessions: Vec::new(),
            idle: false,
        }
    }
}

impl Device {
    /// Where a read begins at the earliest.
    pub fn settled_to(&self) -> Position {
        self.cursor.max(self.floor)
    }
    /// Rows up to and including `position` exist.
    pub fn note_row(&mut self, position: Position, bytes: usize) {
        let rows = self.rows.get_or_insert(Rows { high: position, count: 0, bytes: 0, counted: false });
        rows.high = rows.high.max(position);
        rows.count += 1;
        rows.bytes += bytes;
    }
    /// Rows may exist up to here, nobody knows how many.
    pub fn suppose_rows(&mut self, high: Position) {
        let rows = self.rows.get_or_insert(Rows { high, count: 0, bytes: 0, counted: false });
        rows.high = rows.high.max(high);
    }
    fn forgettable(&self) -> bool {
        self.sessions.is_empty() && self.slots.is_empty()
    }
}

/// The devices of a shard. The map is never iterated.
#[derive(Debug, Default)]
pub(super) struct Devices {
    map: HashMap<DeviceId, Device>,
    /// Devices whose durable cursor lags and matters because they have rows. Bound: devices with rows.
    pub dirty: BTreeSet<DeviceId>,
    /// Devices of which rows can be deleted. Bound: devices with rows.
    pub to_trim: BTreeSet<DeviceId>,
    /// Devices whose queue is to be measured. Bound: devices with rows.
    pub to_measure: BTreeSet<DeviceId>,
    idle: VecDeque<DeviceId>,
}

impl Devices {
    pub fn get(&self, device: DeviceId) -> Option<&Device> {
        self.map.get(&device)
    }
    pub fn get_mut(&mut self, device: DeviceId) -> Option<&mut Device> {
        self.map.get_mut(&device)
    }
    pub fn entry(&mut self, device: DeviceId) -> &mut Device {
        self.map.entry(device).or_default()
    }
    pub fn remove(&mut self, device: DeviceId) -> Option<Device> {
        self.dirty.remove(&device);
        self.to_trim.remove(&device);
        self.to_measure.remove(&device);
        self.map.remove(&device)
    }
    /// The database's registers are merged in: the larger values stand.
    pub fn merge(&mut self, device: DeviceId, state: DeviceState) -> &mut Device {
        let known = self.map.entry(device).or_default();
        known.loaded = true;
        known.cursor = known.cursor.max(state.cursor);
        known.cursor_durable = known.cursor_durable.max(state.cursor);
        known.floor = known.floor.max(state.floor);
        known
    }
    /// Forgets the device when nothing depends on it. Of one with rows the queue size is remembered, for at most
    /// `idle_max` devices.
    pub fn release(&mut self, device: DeviceId, idle_max: usize) {
        let busy = self.dirty.contains(&device) || self.to_trim.contains(&device) || self.to_measure.contains(&device);
        let Some(known) = self.map.get_mut(&device) else { return };
        if busy || !known.forgettable() {
            return;
        }
        if known.rows.is_none() {
            self.map.remove(&device);
            return;
        }
        if !known.idle {
            known.idle = true;
            self.idle.push_back(device);
        }
        while self.idle.len() > idle_max {
            let Some(oldest) = self.idle.pop_front() else { return };
            self.forget_idle(oldest);
        }
    }
    fn forget_idle(&mut self, device: DeviceId) {
        let busy = self.dirty.contains(&device) || self.to_trim.contains(&device) || self.to_measure.contains(&device);
        if let Some(known) = self.map.get_mut(&device) {
            known.idle = false;
            if !busy && known.forgettable() {
                self.map.remove(&device);
            }
        }
    }
}
