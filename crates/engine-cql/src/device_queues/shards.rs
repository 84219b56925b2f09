// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is decided about a shard: its log epoch and release mark.

use pli_domain::{Checkpoint, LogEpoch, Seq, ShardId};
use pli_ports::{LogEpochStart, ReleaseMark, ShardState, StoreError};

use super::CqlDeviceQueues;
use super::settle::shard_key;
use crate::codec::{checkpoint, log_epoch, mark, mark_bytes, seq};
use crate::locks::Turn;
use crate::statements::Statement;
use crate::store::Op;

/// A mark that changes under its taker so often is left: whoever took it has it.
const TAKES_MAX: u32 = 8;

/// log_epoch, log_epoch_first, log_epoch_from, log_epoch_token, mark, taken_by
type ShardRow = (Option<i64>, Option<i64>, Option<i64>, Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);

/// What is decided of a shard, as stored.
struct Decided {
    log_epoch: LogEpochStart,
    /// From which log epoch the current one began, and by whose token.
    begun: (Option<LogEpoch>, Vec<u8>),
    mark: Option<Vec<u8>>,
    taken_by: Vec<u8>,
}

impl CqlDeviceQueues {
    async fn decided(&self, op: Op, shard: i32) -> Result<Decided, StoreError> {
        let row: Option<ShardRow> = self.store.first(op, Statement::ReadShard, (shard,)).await?;
        let (current, first, from, token, mark, taken_by) = row.unwrap_or_default();
        let log_epoch_start = LogEpochStart {
            epoch: current.map_or(Ok(LogEpoch::NONE), log_epoch).map_err(op.damaged())?,
            first: first.map_or(Ok(Seq::ZERO), seq).map_err(op.damaged())?,
        };
        let from = from.map(log_epoch).transpose().map_err(op.damaged())?;
        let begun = (from, token.unwrap_or_default());
        Ok(Decided { log_epoch: log_epoch_start, begun, mark, taken_by: taken_by.unwrap_or_default() })
    }

    /// After the decided part: a checkpoint read before it could be older than the log epoch.
    async fn with_checkpoint(&self, op: Op, shard: i32, decided: Decided) -> Result<ShardState, StoreError> {
        let stored = self.store.first::<(Option<Vec<u8>>,)>(op, Statement::ReadCheckpoint, (shard,));
        let aside = self.store.rows::<(i64,)>(op, Statement::ReadAside, (shard,));
        let (stored, aside) = futures::try_join!(stored, aside)?;
        let checkpoint = match stored.and_then(|(checkpoint,)| checkpoint) {
            Some(bytes) => checkpoint(&bytes).map_err(op.damaged())?,
            None => Checkpoint::ZERO,
        };
        let mark = decided.mark.as_deref().map(mark).transpose().map_err(op.damaged())?;
        let aside = u32::try_from(aside.len()).unwrap_or(u32::MAX);
        Ok(ShardState { log_epoch: decided.log_epoch, mark, checkpoint, aside })
    }

    pub(super) async fn read_shard(&self, shard: ShardId) -> Result<ShardState, StoreError> {
        const OP: Op = Op("read a shard's state");
        let shard = shard_key(shard);
        let decided = self.decided(OP, shard).await?;
        self.with_checkpoint(OP, shard, decided).await
    }

    /// No two marks have equal bytes, so the one that was read is the one that is taken.
    pub(super) async fn take(&self, shard: ShardId) -> Result<ShardState, StoreError> {
        const OP: Op = Op("take a release mark");
        let shard = shard_key(shard);
        let _turn = self.store.locks.turn(Turn::Shard, &shard.to_be_bytes()).await;
        let token: [u8; 16] = rand::random();
        for _ in 0..TAKES_MAX {
            let before = self.decided(OP, shard).await?;
            let Some(found) = before.mark.clone() else {
                return self.with_checkpoint(OP, shard, before).await;
            };
            let take = (&token[..], shard, found);
            let applied = self.store.decide(OP, Statement::TakeMark, take).await?;
            if applied || self.decided(OP, shard).await?.taken_by == token {
                return self.with_checkpoint(OP, shard, before).await;
            }
        }
        Err(StoreError::later(OP.0, "the mark changes faster than it can be taken"))
    }

    /// Sent once: a repetition could put back a mark that was taken.
    pub(super) async fn put(&self, shard: ShardId, mark: ReleaseMark) -> Result<bool, StoreError> {
        const OP: Op = Op("put a release mark");
        let bytes = mark_bytes(rand::random(), &mark);
        let row = (bytes, shard_key(shard), mark.epoch.get() as i64);
        self.store.decide(OP, Statement::PutMark, row).await
    }

    pub(super) async fn begin(&self, shard: ShardId, from: LogEpoch, to: LogEpochStart) -> Result<bool, StoreError> {
        const OP: Op = Op("begin a log epoch");
        let shard = shard_key(shard);
        let token = self.store.token;
        let _turn = self.store.locks.turn(Turn::Shard, &shard.to_be_bytes()).await;
        let (epoch, first, before) = (to.epoch.get() as i64, to.first.get() as i64, from.get() as i64);
        let row = (epoch, first, before, &token[..], shard);
        let applied = if from == LogEpoch::NONE {
            self.store.decide(OP, Statement::BeginFirstLogEpoch, row).await?
        } else {
            let (a, b, c, d, e) = row;
            self.store.decide(OP, Statement::BeginLogEpoch, (a, b, c, d, e, before)).await?
        };
        if applied {
            return Ok(true);
        }
        let found = self.decided(OP, shard).await?;
        Ok(found.log_epoch == to && found.begun == (Some(from), token.to_vec()))
    }
}
