// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was acknowledged survives.

use super::registers::aside;
use super::*;

async fn what_was_settled_survives(h: &mut dyn Harness<Queues>, how: Restart) -> Outcome {
    let queues = h.fresh().await;
    let settle = Settle {
        aside: vec![aside(2)],
        rows: grouped((0..50).map(|number| row(device(number % 3), number)).collect()),
        registers: vec![DeviceRegister { device: device(1), cursor: Some(at(3)), floor: Some(at(4)) }],
        checkpoint: Some(checkpoint(6, 6)),
    };
    queues.settle(SHARD, settle).await?;
    drop(queues);
    let queues = restarted(h, how).await?;
    for number in 0..3 {
        let expected: Vec<QueueRow> = (0..50).filter(|n| n % 3 == number).map(|n| row(device(number), n)).collect();
        check_eq!(rows(&*queues, device(number)).await?, expected, "rows of device {number} after {how:?}");
    }
    let found = state(&*queues, device(1)).await?;
    check_eq!((found.cursor, found.floor), (at(3), at(4)), "registers after {how:?}");
    let shard = queues.shard_state(SHARD).await?;
    check_eq!((shard.checkpoint, shard.aside), (checkpoint(6, 6), 1), "checkpoint and entries aside after {how:?}");
    write_checkpoint(&*queues, checkpoint(5, 5)).await?;
    write_registers(&*queues, vec![cursor(device(1), at(2))]).await?;
    check_eq!(queues.shard_state(SHARD).await?.checkpoint, checkpoint(6, 6), "a zombie's checkpoint after {how:?}");
    check_eq!(state(&*queues, device(1)).await?.cursor, at(3), "a zombie's cursor after {how:?}");
    Ok(())
}

pub(super) async fn what_was_settled_survives_a_restart(h: &mut dyn Harness<Queues>) -> Outcome {
    what_was_settled_survives(h, Restart::Clean).await
}
pub(super) async fn what_was_settled_survives_a_kill(h: &mut dyn Harness<Queues>) -> Outcome {
    what_was_settled_survives(h, Restart::Kill).await
}
pub(super) async fn what_was_settled_survives_a_power_cut(h: &mut dyn Harness<Queues>) -> Outcome {
    what_was_settled_survives(h, Restart::PowerCut).await
}

async fn trims_and_removals_survive(h: &mut dyn Harness<Queues>, how: Restart) -> Outcome {
    let queues = h.fresh().await;
    let both = |number| [row(device(1), number), row(device(2), number)];
    write_rows(&*queues, (0..10).flat_map(both).collect()).await?;
    write_registers(&*queues, vec![cursor(device(1), at(5))]).await?;
    queues.trim(vec![(device(1), at(5))]).await?;
    queues.remove_device(device(2)).await?;
    drop(queues);
    let queues = restarted(h, how).await?;
    write_rows(&*queues, (0..10).flat_map(both).collect()).await?;
    let expected: Vec<Position> = (6..10).map(at).collect();
    check_eq!(positions(&*queues, device(1)).await?, expected, "rows replayed after a trim and {how:?}");
    check!(rows(&*queues, device(2)).await?.is_empty(), "rows of a removed device after {how:?}");
    Ok(())
}

pub(super) async fn trims_and_removals_survive_a_restart(h: &mut dyn Harness<Queues>) -> Outcome {
    trims_and_removals_survive(h, Restart::Clean).await
}
pub(super) async fn trims_and_removals_survive_a_kill(h: &mut dyn Harness<Queues>) -> Outcome {
    trims_and_removals_survive(h, Restart::Kill).await
}
pub(super) async fn trims_and_removals_survive_a_power_cut(h: &mut dyn Harness<Queues>) -> Outcome {
    trims_and_removals_survive(h, Restart::PowerCut).await
}

async fn decisions_survive(h: &mut dyn Harness<Queues>, how: Restart) -> Outcome {
    let queues = h.fresh().await;
    for shard in [SHARD, OTHER] {
        check!(queues.begin_log_epoch(shard, LogEpoch::NONE, start(3, 40)).await?, "a log epoch is refused");
        check!(queues.put_mark(shard, mark(3, 41)).await?, "a mark of the current log epoch is refused");
    }
    check_eq!(queues.take_mark(OTHER).await?.mark, Some(mark(3, 41)), "the mark of the other shard");
    drop(queues);
    let queues = restarted(h, how).await?;
    let found = queues.shard_state(SHARD).await?;
    check_eq!((found.log_epoch, found.mark), (start(3, 40), Some(mark(3, 41))), "log epoch and mark after {how:?}");
    check_eq!(queues.take_mark(OTHER).await?.mark, None, "a mark that was taken before {how:?}");
    check!(!queues.begin_log_epoch(SHARD, LogEpoch::NONE, start(3, 1)).await?, "a log epoch began twice");
    Ok(())
}

pub(super) async fn decisions_survive_a_restart(h: &mut dyn Harness<Queues>) -> Outcome {
    decisions_survive(h, Restart::Clean).await
}
pub(super) async fn decisions_survive_a_kill(h: &mut dyn Harness<Queues>) -> Outcome {
    decisions_survive(h, Restart::Kill).await
}
pub(super) async fn decisions_survive_a_power_cut(h: &mut dyn Harness<Queues>) -> Outcome {
    decisions_survive(h, Restart::PowerCut).await
}
