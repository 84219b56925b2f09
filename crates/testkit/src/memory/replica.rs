// SPDX-License-Identifier: MIT OR Apache-2.0
//! One of the three replicas of queues and registers. Every write commutes and may be repeated: rows are immutable,
//! registers only grow, a trim hides what lies below it whenever that is written.

use std::collections::BTreeMap;

use bytes::Bytes;
use pli_domain::{Checkpoint, DeviceId, EntryRef, Position, ShardId};
use pli_ports::{Aside, DeviceRegister, DeviceState, QueueRow};

/// Most rows below a trim that a replica keeps per device for the day its tombstone is forgotten.
const GHOSTS_MAX: usize = 1_024;

/// One write as it travels to a replica.
#[derive(Clone)]
pub(super) enum Write {
    Aside(ShardId, Aside),
    Row(QueueRow),
    Register(DeviceRegister),
    Checkpoint(ShardId, Checkpoint),
    Trim(DeviceId, Position),
    Remove(DeviceId),
}

#[derive(Default)]
pub(super) struct Replica {
    devices: BTreeMap<DeviceId, Device>,
    checkpoints: BTreeMap<ShardId, Checkpoint>,
    aside: BTreeMap<ShardId, BTreeMap<EntryRef, Bytes>>,
}

#[derive(Default)]
pub(super) struct Device {
    rows: BTreeMap<Position, QueueRow>,
    /// Rows at or below the trim: deleted, but there again once the tombstone is forgotten.
    ghosts: BTreeMap<Position, QueueRow>,
    pub trimmed: Position0,
    pub state: Registers,
    pub removed: bool,
}

/// A position that starts at zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position0(pub Position);

impl Default for Position0 {
    fn default() -> Self {
        Self(Position::ZERO)
    }
}

/// The registers of a device.
#[derive(Clone, Copy, Default)]
pub(super) struct Registers {
    pub cursor: Position0,
    pub floor: Position0,
}

impl Registers {
    pub fn raise(&mut self, other: Self) {
        self.cursor = self.cursor.max(other.cursor);
        self.floor = self.floor.max(other.floor);
    }
    pub fn state(self) -> DeviceState {
        DeviceState { cursor: self.cursor.0, floor: self.floor.0 }
    }
}

impl Device {
    /// The first row above `after` that this replica shows.
    pub fn row_above(&self, after: Position) -> Option<&QueueRow> {
        let above = self.rows.range(after.next()..).next();
        above.filter(|(position, _)| **position > after).map(|(_, row)| row)
    }
    /// Every position that this replica shows above `above`.
    pub fn rows_above(&self, above: Position) -> impl Iterator<Item = &QueueRow> {
        self.rows.range(above..).map(|(_, row)| row).filter(move |row| row.position > above)
    }

    fn write(&mut self, row: QueueRow) {
        if self.removed {
            return;
        }
        if row.position > self.trimmed.0 {
            self.rows.insert(row.position, row);
            return;
        }
        self.ghosts.insert(row.position, row);
        while self.ghosts.len() > GHOSTS_MAX {
            self.ghosts.pop_first();
        }
    }

    fn trim(&mut self, through: Position) {
        self.trimmed = self.trimmed.max(Position0(through));
        while let Some((&position, _)) = self.rows.first_key_value() {
            if position > self.trimmed.0 {
                break;
            }
            if let Some(row) = self.rows.remove(&position) {
                self.write(row);
            }
        }
    }

    fn remove(&mut self) {
        *self = Self { removed: true, ..Self::default() };
    }

    pub fn forget_tombstones(&mut self) {
        self.trimmed = Position0::default();
        self.rows.append(&mut self.ghosts);
    }
}

impl Replica {
    pub fn apply(&mut self, write: Write) {
        match write {
            Write::Aside(shard, aside) => {
                self.aside.entry(shard).or_default().insert(aside.entry, aside.bytes);
            }
            Write::Row(row) => self.devices.entry(row.device).or_default().write(row),
            Write::Register(register) => {
                let device = self.devices.entry(register.device).or_default();
                if !device.removed {
                    device.state.raise(Registers {
                        cursor: Position0(register.cursor.unwrap_or(Position::ZERO)),
                        floor: Position0(register.floor.unwrap_or(Position::ZERO)),
                    });
                }
            }
            Write::Checkpoint(shard, checkpoint) => {
                let newest = self.checkpoints.entry(shard).or_insert(Checkpoint::ZERO);
                *newest = (*newest).max(checkpoint);
            }
            Write::Trim(device, through) => self.devices.entry(device).or_default().trim(through),
            Write::Remove(device) => self.devices.entry(device).or_default().remove(),
        }
    }

    pub fn device(&self, device: DeviceId) -> Option<&Device> {
        self.devices.get(&device)
    }
    pub fn device_mut(&mut self, device: DeviceId) -> Option<&mut Device> {
        self.devices.get_mut(&device)
    }
    pub fn checkpoint(&self, shard: ShardId) -> Checkpoint {
        self.checkpoints.get(&shard).copied().unwrap_or(Checkpoint::ZERO)
    }
    pub fn aside(&self, shard: ShardId) -> impl Iterator<Item = Aside> {
        let entries = self.aside.get(&shard).into_iter().flatten();
        entries.map(|(entry, bytes)| Aside { entry: *entry, bytes: bytes.clone() })
    }
}
