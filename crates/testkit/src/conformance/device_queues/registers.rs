// SPDX-License-Identifier: MIT OR Apache-2.0
//! Settles, registers, checkpoints and usage.

use pli_ports::{Aside, UsageBound};

use super::*;

pub(super) async fn a_settle_is_read_back_whole(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    let settle = Settle {
        aside: vec![aside(9)],
        rows: vec![row(device(1), 1), row(device(2), 1)],
        registers: vec![DeviceRegister { device: device(3), cursor: Some(at(8)), floor: Some(at(9)) }],
        checkpoint: Some(checkpoint(4, 4)),
    };
    for _ in 0..2 {
        queues.settle(SHARD, settle.clone()).await?;
        check_eq!(rows(&*queues, device(2)).await?, [row(device(2), 1)], "rows");
        let found = state(&*queues, device(3)).await?;
        check_eq!((found.cursor, found.floor), (at(8), at(9)), "registers");
        let shard = queues.shard_state(SHARD).await?;
        check_eq!((shard.checkpoint, shard.aside), (checkpoint(4, 4), 1), "checkpoint and entries aside");
    }
    Ok(())
}

pub(super) async fn an_empty_settle_changes_nothing(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    write_checkpoint(&*queues, checkpoint(4, 4)).await?;
    queues.settle(SHARD, Settle::default()).await?;
    check_eq!(queues.shard_state(SHARD).await?.checkpoint, checkpoint(4, 4), "checkpoint");
    check!(queues.device_states(&[]).await?.is_empty(), "no devices, no states");
    Ok(())
}

pub(super) async fn registers_keep_their_maximum_in_any_order(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    let both = |number, lower| DeviceRegister { device: device(1), cursor: Some(at(number)), floor: Some(at(lower)) };
    let mut newest = (at(0), at(0));
    for (number, lower) in [(5, 2), (3, 9), (5, 2), (1, 1), (700, 8), (699, 10)] {
        write_registers(&*queues, vec![both(number, lower)]).await?;
        newest = (newest.0.max(at(number)), newest.1.max(at(lower)));
        let found = state(&*queues, device(1)).await?;
        check_eq!((found.cursor, found.floor), newest, "after {number} and {lower}");
    }
    write_registers(&*queues, vec![both(900, 1), both(800, 40), both(850, 30)]).await?;
    let found = state(&*queues, device(1)).await?;
    check_eq!((found.cursor, found.floor), (at(900), at(40)), "three values in one settle");
    let epochs = Position::new(epoch(2), seq(1), 0);
    write_registers(&*queues, vec![cursor(device(1), epochs)]).await?;
    write_registers(&*queues, vec![cursor(device(1), Position::new(epoch(1), seq(1 << 30), 0))]).await?;
    check_eq!(state(&*queues, device(1)).await?.cursor, epochs, "a cursor of a later log epoch");
    Ok(())
}

pub(super) async fn a_register_left_out_stays(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    write_registers(&*queues, vec![cursor(device(1), at(5))]).await?;
    write_registers(&*queues, vec![DeviceRegister { device: device(1), cursor: None, floor: Some(at(3)) }]).await?;
    write_registers(&*queues, vec![DeviceRegister { device: device(1), cursor: None, floor: None }]).await?;
    let found = state(&*queues, device(1)).await?;
    check_eq!((found.cursor, found.floor), (at(5), at(3)), "registers");
    Ok(())
}

pub(super) async fn device_states_stand_in_the_order_asked(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    write_registers(&*queues, (1..20).map(|number| cursor(device(number), at(number))).collect()).await?;
    let asked = [7, 3, 99, 7, 19, 1];
    let found = queues.device_states(&asked.map(device)).await?;
    let expected = asked.map(|number| if number == 99 { Position::ZERO } else { at(number) });
    check_eq!(found.iter().map(|state| state.cursor).collect::<Vec<_>>(), expected, "cursors");
    Ok(())
}

pub(super) async fn a_checkpoint_keeps_its_maximum_in_any_order(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    let mut newest = Checkpoint::ZERO;
    for number in [3, 9, 1, 9, 4, 12, 11] {
        write_checkpoint(&*queues, checkpoint(number, number)).await?;
        newest = newest.max(checkpoint(number, number));
        check_eq!(queues.shard_state(SHARD).await?.checkpoint, newest, "after {number}");
    }
    let later = Checkpoint { position: Position::end_of(epoch(2), seq(1)), entry: None };
    write_checkpoint(&*queues, later).await?;
    check_eq!(queues.shard_state(SHARD).await?.checkpoint, later, "a later log epoch");
    Ok(())
}

pub(super) async fn a_zombies_older_checkpoint_changes_nothing(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    write_checkpoint(&*queues, checkpoint(20, 20)).await?;
    let zombie = Settle {
        rows: vec![row(device(1), 1)],
        registers: vec![cursor(device(2), at(1))],
        checkpoint: Some(checkpoint(7, 7)),
        ..Settle::default()
    };
    queues.settle(SHARD, zombie).await?;
    check_eq!(queues.shard_state(SHARD).await?.checkpoint, checkpoint(20, 20), "the newer checkpoint");
    check_eq!(rows(&*queues, device(1)).await?, [row(device(1), 1)], "rows of the zombie are facts all the same");
    check_eq!(state(&*queues, device(2)).await?.cursor, at(1), "and so are its cursors");
    Ok(())
}

pub(super) async fn at_one_position_the_larger_entry_id_holds(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    let unnamed = Checkpoint { entry: None, ..checkpoint(5, 0) };
    let mut newest = Checkpoint::ZERO;
    for written in [unnamed, checkpoint(5, 3), checkpoint(5, 8), checkpoint(5, 6), unnamed] {
        write_checkpoint(&*queues, written).await?;
        newest = newest.max(written);
        check_eq!(queues.shard_state(SHARD).await?.checkpoint, newest, "after {written:?}");
    }
    Ok(())
}

pub(super) async fn checkpoints_of_shards_are_apart(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    write_checkpoint(&*queues, checkpoint(5, 5)).await?;
    check_eq!(queues.shard_state(OTHER).await?.checkpoint, Checkpoint::ZERO, "checkpoint of the other shard");
    queues.settle(OTHER, Settle { checkpoint: Some(checkpoint(3, 3)), ..Settle::default() }).await?;
    check_eq!(queues.shard_state(OTHER).await?.checkpoint, checkpoint(3, 3), "checkpoint of the other shard");
    check_eq!(queues.shard_state(SHARD).await?.checkpoint, checkpoint(5, 5), "checkpoint of the first shard");
    Ok(())
}

pub(super) async fn two_owners_settling_at_once_agree(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    let step = |number: u64| Settle {
        rows: (0..5).map(|n| row(device(1), number * 5 + n)).collect(),
        registers: vec![cursor(device(2), at(number))],
        checkpoint: Some(checkpoint(number + 1, number + 1)),
        ..Settle::default()
    };
    let mut owners = tokio::task::JoinSet::new();
    for owner in 0..2 {
        let queues = queues.clone();
        owners.spawn(async move {
            for number in 0..20 {
                // One runs forwards, the other backwards as the worst of zombies does.
                queues.settle(SHARD, step(if owner == 0 { number } else { 19 - number })).await?;
            }
            Ok::<_, Stop>(())
        });
    }
    while let Some(done) = owners.join_next().await {
        done??;
    }
    check_eq!(rows(&*queues, device(1)).await?, (0..100).map(|n| row(device(1), n)).collect::<Vec<_>>(), "rows");
    check_eq!(state(&*queues, device(2)).await?.cursor, at(19), "cursor");
    check_eq!(queues.shard_state(SHARD).await?.checkpoint, checkpoint(20, 20), "checkpoint");
    Ok(())
}

pub(super) fn aside(number: u64) -> Aside {
    let entry = EntryRef { seq: seq(number), id: entry_id(number) };
    Aside { entry, bytes: Bytes::from_static(b"\xff\xff not an entry") }
}

pub(super) async fn entries_kept_aside_are_counted_once(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    for (number, count) in [(1, 1), (2, 2), (1, 2), (3, 3), (2, 3)] {
        queues.settle(SHARD, Settle { aside: vec![aside(number)], ..Settle::default() }).await?;
        check_eq!(queues.shard_state(SHARD).await?.aside, count, "entries aside after entry {number}");
    }
    check_eq!(queues.shard_state(OTHER).await?.aside, 0, "entries aside of the other shard");
    Ok(())
}

const ROWS: u64 = 10;
const SIZE: usize = 100;

/// A queue of [`ROWS`] rows of [`SIZE`] bytes.
async fn a_queue(queues: &Queues) -> Outcome {
    let made = |number| QueueRow { envelope: Bytes::from(vec![1; SIZE]), ..row(device(1), number) };
    write_rows(queues, (0..ROWS).map(made).collect()).await
}

async fn excess(queues: &Queues, rows_max: usize, bytes_max: usize) -> Result<Option<Position>, Stop> {
    let bound = UsageBound { rows_max, bytes_max };
    let usage = queues.usage(device(1), Position::ZERO, bound, NOW).await?;
    check!(usage.rows <= rows_max + 1, "{} rows counted for a bound of {rows_max}", usage.rows);
    Ok(usage.excess)
}

pub(super) async fn usage_at_the_bound_has_no_excess(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    let bound = UsageBound { rows_max: 10, bytes_max: 1_000 };
    let nothing = queues.usage(device(1), Position::ZERO, bound, NOW).await?;
    check_eq!((nothing.rows, nothing.bytes, nothing.excess), (0, 0, None), "usage of an empty queue");
    a_queue(&*queues).await?;
    let usage = queues.usage(device(1), Position::ZERO, bound, NOW).await?;
    check_eq!((usage.rows, usage.bytes, usage.excess), (10, 1_000, None), "usage exactly at the bound");
    Ok(())
}

pub(super) async fn usage_one_row_above_the_bound_names_the_oldest(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    a_queue(&*queues).await?;
    check_eq!(excess(&*queues, 9, 1 << 20).await?, Some(at(0)), "excess with room for 9 of 10 rows");
    check_eq!(excess(&*queues, 4, 1 << 20).await?, Some(at(5)), "excess with room for 4 of 10 rows");
    check_eq!(excess(&*queues, 1, 1 << 20).await?, Some(at(8)), "excess with room for 1 of 10 rows");
    Ok(())
}

pub(super) async fn usage_one_byte_above_the_bound_names_the_oldest(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    a_queue(&*queues).await?;
    check_eq!(excess(&*queues, 100, 999).await?, Some(at(0)), "excess with room for 999 of 1,000 bytes");
    check_eq!(excess(&*queues, 100, 500).await?, Some(at(4)), "excess with room for 500 of 1,000 bytes");
    check_eq!(excess(&*queues, 100, 499).await?, Some(at(5)), "excess with room for 499 of 1,000 bytes");
    check_eq!(excess(&*queues, 3, 900).await?, Some(at(6)), "excess where rows are the narrower bound");
    Ok(())
}

pub(super) async fn usage_of_one_row_above_the_bytes_is_all_excess(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    a_queue(&*queues).await?;
    check_eq!(excess(&*queues, 100, SIZE - 1).await?, Some(at(ROWS - 1)), "excess where not even one row has room");
    Ok(())
}

pub(super) async fn usage_leaves_out_expired_and_lower_rows(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    a_queue(&*queues).await?;
    let soon = UnixMillis(NOW.0 + 70_000);
    let expiring = |number| QueueRow { expires_at: soon, ..row(device(1), number) };
    write_rows(&*queues, (20..25).map(expiring).collect()).await?;
    let bound = UsageBound { rows_max: 8, bytes_max: 1 << 20 };
    let above = queues.usage(device(1), at(1), bound, soon).await?;
    check_eq!((above.rows, above.bytes, above.excess), (8, 800, None), "usage above 1 once some expired");
    let above = queues.usage(device(1), at(0), bound, soon).await?;
    check_eq!(above.excess, Some(at(1)), "excess above 0 once some expired");
    let above = queues.usage(device(1), at(6), bound, NOW).await?;
    check_eq!((above.rows, above.excess), (8, None), "usage above 6 before they expire");
    Ok(())
}
