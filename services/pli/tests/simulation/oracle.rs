// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is true, as only the simulation can see it: everything that was appended, what each device has committed, what
//! is durable. Judges every call at the ports against the invariants; shares no code with the services.

mod checks;
mod sessions;
mod tenures;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pli_api::log::envelope::BodyOrRef;
use pli_api::log::{Entry, Envelope};
use pli_domain::{Checkpoint, DeviceId, EntryId, LogEpoch, Position, SendId, Seq, ShardId, UnixMillis};
use pli_ports::{LogEpochStart, Settle};
use prost::Message;

use crate::simulation::rare::Rare;

pub use checks::{Call, Verdict};
pub use sessions::SessionTruth;
pub use tenures::Tenures;

/// Names a content: sending device and its send id.
pub type Name = (DeviceId, SendId);

/// One item of an entry.
#[derive(Debug)]
pub struct Item {
    pub name: Name,
    pub devices: Vec<DeviceId>,
    pub expires_at: UnixMillis,
}

/// What is known of one device.
#[derive(Debug, Default)]
pub struct DeviceTruth {
    /// Highest position it committed.
    pub committed: Position0,
    /// Contents it committed.
    pub seen: BTreeSet<Name>,
    /// Rows that a store acknowledged.
    pub rows: BTreeMap<Position, Row>,
    /// Where rows were tried to be written, whatever became of it.
    pub tried: BTreeSet<Position>,
    /// Highest floor that a store acknowledged.
    pub floor: Position0,
    /// Gaps that it was told.
    pub gaps: Vec<(Position, Position)>,
    /// The position that its newest hello made up.
    pub lie: Option<Position>,
    pub removed: bool,
    pub session: Option<SessionTruth>,
}

/// A position that begins at zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position0(pub Position);

impl Default for Position0 {
    fn default() -> Self {
        Self(Position::ZERO)
    }
}

impl Position0 {
    fn raise(&mut self, to: Position) {
        self.0 = self.0.max(to);
    }
}

/// A durable row.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub name: Name,
    pub expires_at: UnixMillis,
    /// A checkpoint at or above it became the shard's: nothing else holds the content any more.
    pub owed: bool,
}

/// What one owner has seen of one shard since it started.
#[derive(Debug, Default)]
pub struct View {
    pub epoch: Option<LogEpoch>,
    pub read: BTreeMap<Seq, EntryId>,
    /// The lowest cursor that it may answer a device with.
    pub cursors: BTreeMap<DeviceId, Position>,
    /// Its checkpoint, and what its newest settle made of both; that counts once it settles again, for only then has
    /// it certainly taken the answer in.
    pub checkpoint: Position0,
    pub heard: Vec<Settle>,
}

/// What is known of one shard.
#[derive(Debug, Default)]
pub struct ShardTruth {
    pub epochs: Vec<LogEpochStart>,
    pub checkpoint: Option<Checkpoint>,
    /// The log lost its end and no log epoch was begun since.
    pub fork_open: bool,
    /// The log lost its end at least once.
    pub forked: bool,
    pub views: BTreeMap<String, View>,
    /// Who started on it last.
    pub holder: String,
    pub settling: BTreeMap<String, u32>,
    pub tenures: Tenures,
    /// Settles whose outcome nobody heard, or not yet.
    pub unheard: Vec<Settle>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Oracle {
    pub entries: BTreeMap<EntryId, Vec<Item>>,
    pub shards: BTreeMap<ShardId, ShardTruth>,
    pub devices: BTreeMap<DeviceId, DeviceTruth>,
    pub shard_of: BTreeMap<DeviceId, ShardId>,
    /// How many rows a device may have before its floor may rise.
    pub rows_max: usize,
    pub recipients: BTreeMap<Name, BTreeSet<DeviceId>>,
    pub expires_at: BTreeMap<Name, UnixMillis>,
    /// Fan-out workers that spread each content.
    pub spread_by: BTreeMap<Name, BTreeSet<String>>,
    /// Where owners read each content.
    pub placed: BTreeMap<(ShardId, Name), BTreeSet<Position>>,
}

/// The log of a shard as it stands, oldest first.
pub type Log = Vec<(Seq, EntryId)>;

/// What an encoded entry holds.
pub fn items_of(bytes: &Bytes) -> Option<Vec<Item>> {
    let entry = Entry::decode(bytes.clone()).ok()?;
    entry
        .items
        .into_iter()
        .map(|item| {
            let devices = item.devices.iter().map(|d| DeviceId::try_from(d.as_ref()).ok()).collect::<Option<_>>()?;
            Some(Item { name: name_of(&item.envelope)?, devices, expires_at: UnixMillis(item.expires_at_ms) })
        })
        .collect()
}

/// Whether an encoded envelope points at its body: it was spread by a fan-out worker.
pub fn points(envelope: &Bytes) -> bool {
    let body = Envelope::decode(envelope.clone()).ok().and_then(|envelope| envelope.body_or_ref);
    matches!(body, Some(BodyOrRef::BodyRef(_)))
}

/// The content that an encoded envelope carries.
pub fn name_of(envelope: &Bytes) -> Option<Name> {
    let envelope = Envelope::decode(envelope.clone()).ok()?;
    let device = DeviceId::try_from(envelope.sender?.device.as_ref()).ok()?;
    Some((device, SendId::try_from(envelope.send_id.as_ref()).ok()?))
}

impl View {
    /// The last entry below which its owner was told that everything is settled.
    fn settled(&self) -> Seq {
        let heard =
            self.heard.iter().filter_map(|settle| settle.checkpoint).map(|checkpoint| checkpoint.position.seq());
        heard.fold(self.checkpoint.0.seq(), Seq::max)
    }
}

impl ShardTruth {
    /// The position of an entry's item in the newest log epoch that it belongs to.
    pub fn position(&self, seq: Seq, index: usize) -> Position {
        let newest = self.epochs.iter().filter(|e| e.first <= seq).map(|e| e.epoch).max().unwrap_or(LogEpoch::NONE);
        Position::new(newest, seq, u16::try_from(index).unwrap_or(Position::INDEX_END))
    }
    /// The same for an owner that stands in this log epoch.
    pub fn position_in(&self, epoch: Option<LogEpoch>, seq: Seq, index: usize) -> Position {
        let known = self.epochs.iter().filter(|e| Some(e.epoch) <= epoch && e.first <= seq);
        let index = u16::try_from(index).unwrap_or(Position::INDEX_END);
        Position::new(known.map(|e| e.epoch).max().unwrap_or(LogEpoch::NONE), seq, index)
    }
}

impl DeviceTruth {
    /// Whether a told gap covers the position.
    pub fn told(&self, position: Position) -> bool {
        self.gaps.iter().any(|(from, to)| *from < position && position <= *to)
    }
    /// Whether a durable row that the device will still read holds the content.
    fn has_row(&self, name: Name) -> bool {
        self.rows.range(self.committed.0.next()..).any(|(_, row)| row.name == name)
    }
}

impl Oracle {
    pub fn shard(&mut self, shard: ShardId) -> &mut ShardTruth {
        self.shards.entry(shard).or_default()
    }
    pub fn device(&mut self, device: DeviceId) -> &mut DeviceTruth {
        self.devices.entry(device).or_default()
    }

    /// A log epoch of the shard is known. From then on nobody can tell a position that was made up in an older one
    /// from one that the log lost with its end: whoever made it up is taken at its word, and misses what it said to have.
    pub fn epoch_begins(&mut self, shard: ShardId, start: LogEpochStart) {
        let truth = self.shard(shard);
        if truth.epochs.contains(&start) {
            return;
        }
        truth.epochs.push(start);
        let of = |id: &DeviceId| self.shard_of.get(id) == Some(&shard);
        for (_, device) in self.devices.iter_mut().filter(|(id, _)| of(id)) {
            if let Some(lie) = device.lie.filter(|lie| lie.epoch() < start.epoch) {
                device.gaps.push((device.committed.0, lie));
                device.committed.raise(lie);
            }
        }
    }

    /// An entry is about to be appended.
    pub fn appending(&mut self, id: EntryId, bytes: &Bytes) {
        if let Some(items) = items_of(bytes) {
            for item in &items {
                self.recipients.entry(item.name).or_default().extend(item.devices.iter().copied());
                self.expires_at.insert(item.name, item.expires_at);
            }
            self.entries.insert(id, items);
        }
    }

    /// How many contents of the entry, spread by `worker`, another worker has spread before.
    pub fn spread_again(&mut self, worker: &str, bytes: &Bytes) -> u64 {
        let entry = Entry::decode(bytes.clone()).unwrap_or_default();
        let mut again = 0;
        for item in entry.items.iter().filter(|item| points(&item.envelope)) {
            let Some(name) = name_of(&item.envelope) else { continue };
            let workers = self.spread_by.entry(name).or_default();
            again += u64::from(!workers.contains(worker) && !workers.is_empty());
            workers.insert(worker.into());
        }
        again
    }

    /// An owner read an entry in a log epoch: where its contents stand for it.
    pub fn place(
        &mut self,
        shard: ShardId,
        seq: Seq,
        id: EntryId,
        epoch: Option<LogEpoch>,
    ) -> Vec<(DeviceId, Name, Position)> {
        let mut placed = Vec::new();
        let none = ShardTruth::default();
        let truth = self.shards.get(&shard).unwrap_or(&none);
        for (index, item) in self.entries.get(&id).into_iter().flatten().enumerate() {
            let at = truth.position_in(epoch, seq, index);
            self.placed.entry((shard, item.name)).or_default().insert(at);
            placed.extend(item.devices.iter().map(|device| (*device, item.name, at)));
        }
        placed
    }

    /// The log of a shard lost these entries with its end.
    pub fn forked(&mut self, shard: ShardId, lost: &Log, rare: &Rare) {
        let truth = self.shard(shard);
        (truth.forked, truth.fork_open) = (true, true);
        let checkpoint = truth.checkpoint.unwrap_or(Checkpoint::ZERO).position.seq();
        let read = |(seq, id): &(Seq, EntryId)| truth.views.values().any(|view| view.read.get(seq) == Some(id));
        if lost.iter().any(|(seq, _)| *seq <= checkpoint) {
            rare.fork_below.one();
        } else if lost.iter().any(read) {
            rare.fork_above.one();
        }
    }

    /// A device committed a content at a position (or a gap, without one).
    pub fn committed(&mut self, device: DeviceId, position: Position, name: Option<Name>) {
        let device = self.device(device);
        device.committed.raise(position);
        device.seen.extend(name);
    }
}
