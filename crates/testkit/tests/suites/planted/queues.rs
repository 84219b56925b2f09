// SPDX-License-Identifier: MIT OR Apache-2.0
//! Broken queues.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use pli_domain::{Checkpoint, DeviceId, LogEpoch, Position, ShardId, UnixMillis};
use pli_ports::{
    DeviceQueues, DeviceState, LogEpochStart, Page, PageQuery, ReleaseMark, Settle, ShardState, StoreError, Usage,
    UsageBound,
};
use pli_testkit::conformance::device_queues::CASES;
use pli_testkit::memory::{MemoryQueues, MemoryWorld};

use super::caught;

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    ReplayResurrects,
    LowerRowsHidden,
    LastCheckpointWins,
    LastCursorWins,
    ExpiredShown,
    ThroughIgnored,
    AfterInclusive,
    PageTooLarge,
    NextPastItsRows,
    BoundIsExcess,
    MarkServesTwice,
    EveryoneBeginsTheEpoch,
    MarkOfAnyEpoch,
    RemovalForgotten,
    TrimForgotten,
    AsideCountedAgain,
}

/// What was written and read last, for the faults that go by it.
#[derive(Default)]
struct Last {
    checkpoints: BTreeMap<ShardId, Checkpoint>,
    cursors: BTreeMap<DeviceId, Position>,
    read: BTreeMap<DeviceId, Position>,
    aside: u32,
}

struct Broken {
    world: MemoryWorld,
    queues: MemoryQueues,
    fault: Fault,
    last: Mutex<Last>,
}

impl Broken {
    fn new(world: &MemoryWorld, fault: Fault) -> Self {
        Self { world: world.clone(), queues: world.queues(), fault, last: Mutex::default() }
    }
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }
    fn remember(&self, shard: ShardId, settle: &Settle) {
        let mut last = self.last.lock().expect("no panic");
        last.checkpoints.extend(settle.checkpoint.map(|checkpoint| (shard, checkpoint)));
        last.cursors.extend(settle.registers.iter().filter_map(|r| Some((r.device, r.cursor?))));
        last.aside += settle.aside.len() as u32;
    }
}

#[async_trait]
impl DeviceQueues for Broken {
    async fn settle(&self, shard: ShardId, settle: Settle) -> Result<(), StoreError> {
        self.remember(shard, &settle);
        if self.is(Fault::ReplayResurrects) {
            for row in &settle.rows {
                (0..3).for_each(|replica| self.world.forget_tombstones(replica, row.device));
            }
        }
        self.queues.settle(shard, settle).await
    }

    async fn read_page(&self, mut query: PageQuery) -> Result<Page, StoreError> {
        let read = self.last.lock().expect("no panic").read.get(&query.device).copied();
        match self.fault {
            Fault::ExpiredShown => query.now = UnixMillis(0),
            Fault::ThroughIgnored => query.through = Position::MAX,
            Fault::AfterInclusive => query.after = query.after.prev(),
            Fault::PageTooLarge => (query.rows_max, query.bytes_max) = (usize::MAX, usize::MAX),
            Fault::LowerRowsHidden => query.after = query.after.max(read.unwrap_or(query.after)),
            _ => {}
        }
        let mut page = self.queues.read_page(query).await?;
        self.last.lock().expect("no panic").read.extend(page.rows.last().map(|row| (row.device, row.position)));
        if self.is(Fault::NextPastItsRows) {
            page.next = query.through;
        }
        Ok(page)
    }

    async fn shard_state(&self, shard: ShardId) -> Result<ShardState, StoreError> {
        let state = self.queues.shard_state(shard).await?;
        let last = self.last.lock().expect("no panic");
        let checkpoint = last.checkpoints.get(&shard).copied().unwrap_or(state.checkpoint);
        Ok(match self.fault {
            Fault::LastCheckpointWins => ShardState { checkpoint, ..state },
            Fault::AsideCountedAgain => ShardState { aside: last.aside, ..state },
            _ => state,
        })
    }

    async fn take_mark(&self, shard: ShardId) -> Result<ShardState, StoreError> {
        if self.is(Fault::MarkServesTwice) { self.shard_state(shard).await } else { self.queues.take_mark(shard).await }
    }

    async fn put_mark(&self, shard: ShardId, mut mark: ReleaseMark) -> Result<bool, StoreError> {
        if self.is(Fault::MarkOfAnyEpoch) {
            mark.epoch = self.queues.shard_state(shard).await?.log_epoch.epoch;
        }
        self.queues.put_mark(shard, mark).await
    }

    async fn begin_log_epoch(&self, shard: ShardId, from: LogEpoch, to: LogEpochStart) -> Result<bool, StoreError> {
        Ok(self.queues.begin_log_epoch(shard, from, to).await? || self.is(Fault::EveryoneBeginsTheEpoch))
    }

    async fn device_states(&self, devices: &[DeviceId]) -> Result<Vec<DeviceState>, StoreError> {
        let mut states = self.queues.device_states(devices).await?;
        if self.is(Fault::LastCursorWins) {
            let last = self.last.lock().expect("no panic");
            for (device, state) in devices.iter().zip(&mut states) {
                state.cursor = last.cursors.get(device).copied().unwrap_or(state.cursor);
            }
        }
        Ok(states)
    }

    async fn trim(&self, trims: Vec<(DeviceId, Position)>) -> Result<(), StoreError> {
        if self.is(Fault::TrimForgotten) { Ok(()) } else { self.queues.trim(trims).await }
    }

    async fn usage(
        &self,
        device: DeviceId,
        above: Position,
        bound: UsageBound,
        now: UnixMillis,
    ) -> Result<Usage, StoreError> {
        let rows_max = bound.rows_max - usize::from(self.is(Fault::BoundIsExcess));
        self.queues.usage(device, above, UsageBound { rows_max, ..bound }, now).await
    }

    async fn remove_device(&self, device: DeviceId) -> Result<(), StoreError> {
        if self.is(Fault::RemovalForgotten) { Ok(()) } else { self.queues.remove_device(device).await }
    }
}

#[tokio::test(start_paused = true)]
async fn broken_queues_are_caught() {
    for (fault, expected) in [
        (Fault::ReplayResurrects, "a_row_replayed_after_a_trim_stays_deleted"),
        (Fault::ReplayResurrects, "trims_and_removals_survive_a_kill"),
        (Fault::LowerRowsHidden, "a_row_durable_after_a_higher_one_was_read_is_delivered"),
        (Fault::LastCheckpointWins, "a_zombies_older_checkpoint_changes_nothing"),
        (Fault::LastCheckpointWins, "at_one_position_the_larger_entry_id_holds"),
        (Fault::LastCursorWins, "registers_keep_their_maximum_in_any_order"),
        (Fault::ExpiredShown, "expired_rows_are_left_out"),
        (Fault::ExpiredShown, "paging_crosses_many_expired_rows"),
        (Fault::ThroughIgnored, "a_page_reads_above_after_and_through_through"),
        (Fault::AfterInclusive, "a_page_reads_above_after_and_through_through"),
        (Fault::PageTooLarge, "a_page_stops_after_the_row_that_passes_its_bytes"),
        (Fault::PageTooLarge, "a_page_has_at_most_the_rows_asked"),
        (Fault::NextPastItsRows, "a_page_stops_after_the_row_that_passes_its_bytes"),
        (Fault::BoundIsExcess, "usage_at_the_bound_has_no_excess"),
        (Fault::MarkServesTwice, "racing_owners_take_a_mark_once"),
        (Fault::MarkServesTwice, "a_mark_is_taken_once"),
        (Fault::EveryoneBeginsTheEpoch, "racing_owners_begin_one_log_epoch"),
        (Fault::MarkOfAnyEpoch, "a_mark_of_another_log_epoch_is_refused"),
        (Fault::RemovalForgotten, "rows_of_a_removed_device_stay_gone"),
        (Fault::TrimForgotten, "a_trim_deletes_up_to_its_position"),
        (Fault::AsideCountedAgain, "entries_kept_aside_are_counted_once"),
    ] {
        caught::<dyn DeviceQueues>(CASES, expected, move |world| Arc::new(Broken::new(world, fault))).await;
    }
}
