// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tail: the part of the log above the checkpoint, in memory. Entries in order here; what each device has not
//! acknowledged of them stands in the device's own queue of [`Slot`]s.

use std::collections::VecDeque;

use bytes::Bytes;
use pli_domain::{DeviceId, EdgeId, EntryRef, Position, UnixMillis};
use tokio::time::Instant;

/// One envelope that one device has not acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub position: Position,
    pub expires_at: UnixMillis,
    /// Names the entry in the tail.
    pub ordinal: u64,
    pub body: Body,
}

/// What is to be delivered at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// An encoded envelope, a slice of its entry.
    Held(Bytes),
    /// Dropped for want of room; the log still has it.
    Dropped {
        /// Its size.
        bytes: usize,
    },
    /// Nothing: the entry could not be decoded and the device is told a gap.
    Gap,
}

/// One log entry above the checkpoint.
#[derive(Debug)]
pub(super) struct TailEntry {
    pub entry: EntryRef,
    /// Its end: where a checkpoint may stand.
    pub end: Position,
    pub read_at: Instant,
    pub origin: Option<EdgeId>,
    /// Every device it names with the item's index.
    pub targets: Vec<(DeviceId, u16)>,
    /// How many of the targets still have a slot.
    pub open: usize,
    /// Bytes that it keeps in memory; 0 once every slot is gone or its bodies were dropped.
    pub bytes: usize,
    /// The entry itself when it could not be decoded and is not kept aside yet.
    pub aside: Option<Bytes>,
}

/// The entries above the checkpoint.
#[derive(Debug, Default)]
pub(super) struct Tail {
    entries: VecDeque<TailEntry>,
    /// Ordinal of the first entry.
    first: u64,
    /// Bytes in memory. Bound: `tail_bytes_max` plus one read.
    pub bytes: usize,
    /// Slots of all devices. Bound: `tail_slots_max` plus one read.
    pub slots: usize,
}

impl Tail {
    /// The ordinal that the next entry gets.
    pub fn next_ordinal(&self) -> u64 {
        self.first + self.entries.len() as u64
    }
    /// The ordinal of the oldest entry.
    pub fn first_ordinal(&self) -> u64 {
        self.first
    }
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Entries from the oldest on.
    pub fn iter(&self) -> impl Iterator<Item = &TailEntry> {
        self.entries.iter()
    }
    /// The entry with this ordinal.
    pub fn get_mut(&mut self, ordinal: u64) -> Option<&mut TailEntry> {
        let index = usize::try_from(ordinal.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(index)
    }
    /// The entry with this ordinal.
    pub fn get(&self, ordinal: u64) -> Option<&TailEntry> {
        let index = usize::try_from(ordinal.checked_sub(self.first)?).ok()?;
        self.entries.get(index)
    }
    /// Adds the newest entry.
    pub fn push(&mut self, entry: TailEntry) {
        self.bytes += entry.bytes;
        self.slots += entry.open;
        self.entries.push_back(entry);
    }
    /// Removes the oldest entry.
    pub fn pop(&mut self) -> Option<TailEntry> {
        let entry = self.entries.pop_front()?;
        self.first += 1;
        self.bytes -= entry.bytes;
        Some(entry)
    }
    /// A slot of this entry is gone. The entry's bytes go with its last one.
    pub fn close(&mut self, ordinal: u64) {
        self.slots -= 1;
        let Some(entry) = self.get_mut(ordinal) else { return };
        entry.open -= 1;
        if entry.open == 0 {
            let freed = std::mem::take(&mut entry.bytes);
            self.bytes -= freed;
        }
    }
    /// The entry's bodies were dropped.
    pub fn forget_bytes(&mut self, ordinal: u64) {
        let freed = self.get_mut(ordinal).map_or(0, |entry| std::mem::take(&mut entry.bytes));
        self.bytes -= freed;
    }
}
