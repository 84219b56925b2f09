// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every [`DeviceQueues`] does.

mod marks;
mod pages;
mod registers;
mod survival;
mod trims;

use bytes::Bytes;
use pli_domain::{Checkpoint, DeviceId, EntryId, EntryRef, LogEpoch, Position, Seq, ShardId, UnixMillis};
use pli_ports::{DeviceQueues, DeviceRegister, DeviceState, LogEpochStart, PageQuery, QueueRow, ReleaseMark, Settle};

use super::{Harness, Outcome, Restart, Stop, id_bytes, restarted, rivals};
use marks::*;
use pages::*;
use registers::*;
use survival::*;
use trims::*;

type Queues = dyn DeviceQueues;

cases! { Queues:
    an_unknown_device_has_nothing,
    rows_are_read_in_order_of_position,
    rows_of_devices_are_apart,
    large_envelopes_come_back_whole,
    the_largest_settle_is_accepted,
    the_ends_of_the_position_space_can_be_stored,
    a_page_has_at_most_the_rows_asked,
    a_page_stops_after_the_row_that_passes_its_bytes,
    a_page_has_at_least_one_row,
    a_page_reads_above_after_and_through_through,
    an_empty_page_is_complete_up_to_through,
    expired_rows_are_left_out,
    paging_crosses_many_expired_rows,
    a_row_durable_after_a_higher_one_was_read_is_delivered,
    an_acknowledged_row_is_read_at_once,
    a_row_written_again_is_one_row,
    a_settle_is_read_back_whole,
    an_empty_settle_changes_nothing,
    registers_keep_their_maximum_in_any_order,
    a_register_left_out_stays,
    device_states_stand_in_the_order_asked,
    a_checkpoint_keeps_its_maximum_in_any_order,
    a_zombies_older_checkpoint_changes_nothing,
    at_one_position_the_larger_entry_id_holds,
    checkpoints_of_shards_are_apart,
    two_owners_settling_at_once_agree,
    entries_kept_aside_are_counted_once,
    usage_at_the_bound_has_no_excess,
    usage_one_row_above_the_bound_names_the_oldest,
    usage_one_byte_above_the_bound_names_the_oldest,
    usage_of_one_row_above_the_bytes_is_all_excess,
    usage_leaves_out_expired_and_lower_rows,
    a_shard_never_opened_is_at_zero,
    a_log_epoch_begins_once,
    racing_owners_begin_one_log_epoch,
    a_mark_is_taken_once,
    a_mark_of_another_log_epoch_is_refused,
    a_new_log_epoch_clears_the_mark,
    the_newest_mark_holds,
    racing_owners_take_a_mark_once,
    a_trim_deletes_up_to_its_position,
    a_trim_is_idempotent_and_spares_other_devices,
    a_lower_trim_changes_nothing,
    a_row_replayed_after_a_trim_stays_deleted,
    a_row_first_written_below_a_trim_stays_deleted,
    a_removed_device_has_nothing,
    rows_of_a_removed_device_stay_gone,
    removing_a_device_spares_others,
    what_was_settled_survives_a_restart,
    what_was_settled_survives_a_kill,
    what_was_settled_survives_a_power_cut,
    trims_and_removals_survive_a_restart,
    trims_and_removals_survive_a_kill,
    trims_and_removals_survive_a_power_cut,
    decisions_survive_a_restart,
    decisions_survive_a_kill,
    decisions_survive_a_power_cut,
}

const SHARD: ShardId = ShardId::new(5);
const OTHER: ShardId = ShardId::new(6);
const NOW: UnixMillis = UnixMillis(1_767_225_600_000);
const LATER: UnixMillis = UnixMillis(NOW.0 + 3_600_000);

fn device(number: u64) -> DeviceId {
    DeviceId::from_bytes(id_bytes(2, number))
}

fn entry_id(number: u64) -> EntryId {
    EntryId::from_bytes(id_bytes(3, number))
}

fn epoch(number: u64) -> LogEpoch {
    LogEpoch::new(number).unwrap_or(LogEpoch::MAX)
}

fn seq(number: u64) -> Seq {
    Seq::new(number).unwrap_or(Seq::MAX)
}

/// A position in log epoch 1; 100 of them share an entry.
fn at(number: u64) -> Position {
    Position::new(epoch(1), seq(1 + number / 100), u16::try_from(number % 100).unwrap_or(0))
}

fn row(device: DeviceId, number: u64) -> QueueRow {
    let envelope = Bytes::from(format!("envelope {number} for {device}"));
    QueueRow { device, position: at(number), expires_at: LATER, envelope }
}

fn checkpoint(number: u64, entry: u64) -> Checkpoint {
    Checkpoint { position: Position::end_of(epoch(1), seq(number)), entry: Some(entry_id(entry)) }
}

fn cursor(device: DeviceId, position: Position) -> DeviceRegister {
    DeviceRegister { device, cursor: Some(position), floor: None }
}

fn start(number: u64, first: u64) -> LogEpochStart {
    LogEpochStart { epoch: epoch(number), first: seq(first) }
}

fn mark(number: u64, last: u64) -> ReleaseMark {
    ReleaseMark { epoch: epoch(number), last: Some(EntryRef { seq: seq(last), id: entry_id(last) }) }
}

/// Asks for everything that device 1 has.
fn everything(device: DeviceId) -> PageQuery {
    PageQuery {
        device,
        after: Position::ZERO,
        through: Position::MAX,
        now: NOW,
        rows_max: 100_000,
        bytes_max: usize::MAX,
    }
}

/// Rows of one device stand together in a settle.
fn grouped(mut rows: Vec<QueueRow>) -> Vec<QueueRow> {
    rows.sort_by_key(|row| row.device);
    rows
}

async fn write_rows(queues: &Queues, rows: Vec<QueueRow>) -> Outcome {
    let rows = grouped(rows);
    Ok(queues.settle(SHARD, Settle { rows, ..Settle::default() }).await?)
}

async fn write_registers(queues: &Queues, registers: Vec<DeviceRegister>) -> Outcome {
    Ok(queues.settle(SHARD, Settle { registers, ..Settle::default() }).await?)
}

async fn write_checkpoint(queues: &Queues, checkpoint: Checkpoint) -> Outcome {
    Ok(queues.settle(SHARD, Settle { checkpoint: Some(checkpoint), ..Settle::default() }).await?)
}

async fn state(queues: &Queues, device: DeviceId) -> Result<DeviceState, Stop> {
    let states = queues.device_states(&[device]).await?;
    check_eq!(states.len(), 1, "one device, one state");
    Ok(states[0])
}

/// The rows of `device` that are not expired.
async fn rows(queues: &Queues, device: DeviceId) -> Result<Vec<QueueRow>, Stop> {
    Ok(queues.read_page(everything(device)).await?.rows)
}

/// Their positions.
async fn positions(queues: &Queues, device: DeviceId) -> Result<Vec<Position>, Stop> {
    Ok(rows(queues, device).await?.iter().map(|row| row.position).collect())
}
