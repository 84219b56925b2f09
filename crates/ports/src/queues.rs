// SPDX-License-Identifier: MIT OR Apache-2.0
//! Device queues: what each device has not acknowledged and the log no longer holds, with the registers that say how
//! far each device and each shard has come.

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::{Checkpoint, DeviceId, EntryRef, LogEpoch, Position, Seq, ShardId, UnixMillis};

use crate::StoreError;

/// One envelope in one device's queue. Key, bytes and write timestamp are pure functions of its position and log
/// entry (Q6): whoever writes it again writes the same row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRow {
    /// Whose queue.
    pub device: DeviceId,
    /// Where it stands in the shard log.
    pub position: Position,
    /// From here on it is gone. A row is written only while it has at least
    /// [`pli_domain::limits::SPILL_LIFE_MIN`] to live.
    pub expires_at: UnixMillis,
    /// An encoded `pli.log.v1.Envelope`.
    pub envelope: Bytes,
}

/// Max-registers of one device: a lower value than the stored one changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRegister {
    /// Whose.
    pub device: DeviceId,
    /// Highest position it has acknowledged.
    pub cursor: Option<Position>,
    /// What lies above the cursor up to and including this is gone and is told as a gap.
    pub floor: Option<Position>,
}

/// What is stored of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceState {
    /// Highest acknowledged position; [`Position::ZERO`] when none was stored.
    pub cursor: Position,
    /// Floor; [`Position::ZERO`] when none was stored.
    pub floor: Position,
}

/// An entry that could not be decoded, kept aside for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// Where it stands in the log.
    pub entry: EntryRef,
    /// Its bytes.
    pub bytes: Bytes,
}

/// One step of settling a shard. The engine makes the parts durable in the order of the fields; a later part is
/// never durable without the earlier ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settle {
    /// First: entries kept aside.
    pub aside: Vec<Aside>,
    /// Second: rows. At most [`pli_domain::limits::SETTLE_ROWS_MAX`] a call; rows of one device stand together.
    pub rows: Vec<QueueRow>,
    /// Third: cursors and floors.
    pub registers: Vec<DeviceRegister>,
    /// Last: the checkpoint, a max-register over (position, entry).
    pub checkpoint: Option<Checkpoint>,
}

/// A log epoch and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEpochStart {
    /// The epoch.
    pub epoch: LogEpoch,
    /// The first sequence whose positions are of this epoch.
    pub first: Seq,
}

/// What a cleanly stopped owner leaves: up to here it had read the log of this epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReleaseMark {
    /// The log epoch it owned.
    pub epoch: LogEpoch,
    /// The last entry it read; none when it had read nothing of a log that was empty.
    pub last: Option<EntryRef>,
}

/// What is stored of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardState {
    /// The current log epoch; ([`LogEpoch::NONE`], [`Seq::ZERO`]) for a shard that was never opened.
    pub log_epoch: LogEpochStart,
    /// Present after a clean release, until it is taken.
    pub mark: Option<ReleaseMark>,
    /// The highest checkpoint that a quorum has.
    pub checkpoint: Checkpoint,
    /// How many entries are kept aside.
    pub aside: u32,
}

/// Which rows to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageQuery {
    /// Whose queue.
    pub device: DeviceId,
    /// Rows above this.
    pub after: Position,
    /// Rows up to and including this: the reader's checkpoint.
    pub through: Position,
    /// Rows that expire at or before this are left out.
    pub now: UnixMillis,
    /// At most so many rows, at least one.
    pub rows_max: usize,
    /// Stop after the row that passes this many bytes of envelopes.
    pub bytes_max: usize,
}

/// Rows in order of position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The rows.
    pub rows: Vec<QueueRow>,
    /// The page is complete up to here: the last row's position when more may follow, else `through`.
    pub next: Position,
}

/// How much a queue may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageBound {
    /// Most rows.
    pub rows_max: usize,
    /// Most bytes of envelopes.
    pub bytes_max: usize,
}

/// What a queue holds above a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Unexpired rows, counted up to one more than the bound.
    pub rows: usize,
    /// Bytes of their envelopes, counted as far as the rows.
    pub bytes: usize,
    /// When the bound is passed: the newest position that must go so that what stays above it keeps the bound.
    pub excess: Option<Position>,
}

/// Queues, registers and shard states.
///
/// All methods but [`DeviceQueues::put_mark`] are idempotent. `Retry::Later` says nothing about the outcome: part of a batch may be durable, in the
/// order that [`Settle`] gives. Dropping a future leaves the same uncertainty.
#[async_trait]
pub trait DeviceQueues: Send + Sync + 'static {
    /// Makes rows, registers and the checkpoint durable, in that order. `Ok` means all of it survives power loss and
    /// every later read sees it. A row at or below its device's trimmed position stays deleted, whenever it is
    /// written; so does one of a removed device.
    async fn settle(&self, shard: ShardId, settle: Settle) -> Result<(), StoreError>;

    /// Rows of one device in order. Sees every row whose settle was acknowledged before the call.
    async fn read_page(&self, query: PageQuery) -> Result<Page, StoreError>;

    /// The shard's state: log epoch and mark read with serial consistency, then the checkpoint.
    async fn shard_state(&self, shard: ShardId) -> Result<ShardState, StoreError>;

    /// Reads and clears the release mark in one compare-and-set, then answers the state as it was before (with the
    /// mark). A mark serves once; two callers never both get it. After an unknown outcome the mark may be spent.
    async fn take_mark(&self, shard: ShardId) -> Result<ShardState, StoreError>;

    /// Writes the release mark if the shard's log epoch still is the mark's; false when it is not. The one method that
    /// is not to be repeated after an unknown outcome: a repetition could put back a mark that was taken, and it would
    /// serve twice. Without a mark the next owner begins a log epoch, which is safe.
    async fn put_mark(&self, shard: ShardId, mark: ReleaseMark) -> Result<bool, StoreError>;

    /// Moves the shard from log epoch `from` to `to` by compare-and-set and clears the mark; false when the current
    /// epoch is not `from`. A retry of a call that won answers true.
    async fn begin_log_epoch(&self, shard: ShardId, from: LogEpoch, to: LogEpochStart) -> Result<bool, StoreError>;

    /// Registers of these devices, in the order asked.
    async fn device_states(&self, devices: &[DeviceId]) -> Result<Vec<DeviceState>, StoreError>;

    /// Deletes each device's rows up to and including the position, which must not be above max(cursor, floor) as
    /// stored durably (Q5).
    async fn trim(&self, trims: Vec<(DeviceId, Position)>) -> Result<(), StoreError>;

    /// Counts unexpired rows of `device` above `above`.
    async fn usage(
        &self,
        device: DeviceId,
        above: Position,
        bound: UsageBound,
        now: UnixMillis,
    ) -> Result<Usage, StoreError>;

    /// Deletes rows and registers of a removed device for ever: device ids are never reused.
    async fn remove_device(&self, device: DeviceId) -> Result<(), StoreError>;
}
