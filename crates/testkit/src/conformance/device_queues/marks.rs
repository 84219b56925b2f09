// SPDX-License-Identifier: MIT OR Apache-2.0
//! Log epochs and release marks.

use tokio::task::JoinSet;

use super::*;

pub(super) async fn a_shard_never_opened_is_at_zero(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    let found = queues.shard_state(SHARD).await?;
    check_eq!(found.log_epoch, LogEpochStart { epoch: LogEpoch::NONE, first: Seq::ZERO }, "log epoch");
    check_eq!((found.mark, found.checkpoint, found.aside), (None, Checkpoint::ZERO, 0), "the rest");
    check_eq!(queues.take_mark(SHARD).await?, found, "what a taker of no mark is told");
    Ok(())
}

pub(super) async fn a_log_epoch_begins_once(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    check!(queues.begin_log_epoch(SHARD, LogEpoch::NONE, start(1, 1)).await?, "the first log epoch is refused");
    check!(queues.begin_log_epoch(SHARD, LogEpoch::NONE, start(1, 1)).await?, "a retry does not know its win");
    check!(!queues.begin_log_epoch(SHARD, LogEpoch::NONE, start(1, 9)).await?, "one log epoch began twice");
    check!(!queues.begin_log_epoch(SHARD, epoch(4), start(5, 9)).await?, "a log epoch began from another one");
    check_eq!(queues.shard_state(SHARD).await?.log_epoch, start(1, 1), "the log epoch");
    check!(queues.begin_log_epoch(SHARD, epoch(1), start(2, 1 << 35)).await?, "the second log epoch is refused");
    check_eq!(queues.shard_state(SHARD).await?.log_epoch, start(2, 1 << 35), "the second log epoch");
    // A restored backup begins above the highest that anybody knows.
    check!(queues.begin_log_epoch(SHARD, epoch(2), start(8_191, 7)).await?, "a leap is refused");
    check_eq!(queues.shard_state(SHARD).await?.log_epoch, start(8_191, 7), "the log epoch after a leap");
    check_eq!(queues.shard_state(OTHER).await?.log_epoch.epoch, LogEpoch::NONE, "log epoch of the other shard");
    Ok(())
}

pub(super) async fn racing_owners_begin_one_log_epoch(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    let mut race = JoinSet::new();
    for owner in 1..=rivals(h) as u64 {
        let queues = queues.clone();
        race.spawn(async move { (owner, queues.begin_log_epoch(SHARD, LogEpoch::NONE, start(1, owner)).await) });
    }
    let mut winners = Vec::new();
    while let Some(done) = race.join_next().await {
        let (owner, won) = done?;
        if won? {
            winners.push(owner);
        }
    }
    check_eq!(winners.len(), 1, "winners {winners:?}");
    check_eq!(queues.shard_state(SHARD).await?.log_epoch, start(1, winners[0]), "the winner's log epoch");
    Ok(())
}

/// Opens the shard in log epoch 1.
async fn opened(queues: &Queues) -> Outcome {
    check!(queues.begin_log_epoch(SHARD, LogEpoch::NONE, start(1, 1)).await?, "the first log epoch is refused");
    Ok(())
}

pub(super) async fn a_mark_is_taken_once(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    opened(&*queues).await?;
    write_checkpoint(&*queues, checkpoint(2, 2)).await?;
    for round in 5..8 {
        check!(queues.put_mark(SHARD, mark(1, round)).await?, "a mark of the current log epoch is refused");
        let before = queues.shard_state(SHARD).await?;
        check_eq!(before.mark, Some(mark(1, round)), "the mark before it is taken");
        check_eq!(queues.take_mark(SHARD).await?, before, "what its taker is told");
        check_eq!(queues.shard_state(SHARD).await?.mark, None, "the mark after it was taken");
        check_eq!(queues.take_mark(SHARD).await?.mark, None, "what a second taker is told");
    }
    let empty = ReleaseMark { epoch: epoch(1), last: None };
    check!(queues.put_mark(SHARD, empty).await?, "a mark of an owner that read nothing is refused");
    check_eq!(queues.take_mark(SHARD).await?.mark, Some(empty), "a mark that names no entry");
    Ok(())
}

pub(super) async fn a_mark_of_another_log_epoch_is_refused(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    opened(&*queues).await?;
    check!(queues.begin_log_epoch(SHARD, epoch(1), start(2, 10)).await?, "the second log epoch is refused");
    check!(!queues.put_mark(SHARD, mark(1, 5)).await?, "a mark of an older log epoch is accepted");
    check!(!queues.put_mark(SHARD, mark(3, 5)).await?, "a mark of a log epoch that never was is accepted");
    check_eq!(queues.take_mark(SHARD).await?.mark, None, "a refused mark");
    Ok(())
}

pub(super) async fn a_new_log_epoch_clears_the_mark(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    opened(&*queues).await?;
    check!(queues.put_mark(SHARD, mark(1, 5)).await?, "a mark of the current log epoch is refused");
    check!(!queues.begin_log_epoch(SHARD, LogEpoch::NONE, start(7, 1)).await?, "a log epoch began twice");
    check_eq!(queues.shard_state(SHARD).await?.mark, Some(mark(1, 5)), "the mark after a lost race");
    check!(queues.begin_log_epoch(SHARD, epoch(1), start(2, 10)).await?, "the second log epoch is refused");
    check_eq!(queues.shard_state(SHARD).await?.mark, None, "the mark after a new log epoch");
    check_eq!(queues.take_mark(SHARD).await?.mark, None, "what a taker is told after a new log epoch");
    Ok(())
}

pub(super) async fn the_newest_mark_holds(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    opened(&*queues).await?;
    for last in [5, 9] {
        check!(queues.put_mark(SHARD, mark(1, last)).await?, "a mark of the current log epoch is refused");
    }
    check_eq!(queues.take_mark(SHARD).await?.mark, Some(mark(1, 9)), "the mark");
    Ok(())
}

pub(super) async fn racing_owners_take_a_mark_once(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    opened(&*queues).await?;
    check!(queues.put_mark(SHARD, mark(1, 5)).await?, "a mark of the current log epoch is refused");
    let mut race = JoinSet::new();
    for _ in 0..rivals(h) {
        let queues = queues.clone();
        race.spawn(async move { queues.take_mark(SHARD).await });
    }
    let mut taken = 0;
    while let Some(state) = race.join_next().await {
        taken += usize::from(state??.mark.is_some());
    }
    check_eq!(taken, 1, "owners that got the mark");
    Ok(())
}
