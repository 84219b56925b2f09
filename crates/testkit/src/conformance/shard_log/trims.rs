// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trims, and what survives.

use super::*;

pub(super) async fn trimmed_entries_are_gone(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let appended = append_all(&*log, 0..10).await?;
    log.trim(SHARD, appended[3].seq).await?;
    let bounds = log.bounds(SHARD).await?;
    check_eq!((bounds.first, bounds.head), (appended[4].seq, appended[9].seq), "bounds after a trim");
    check_eq!(refs(&read(&*log, Seq::ZERO, 6).await?), appended[4..], "what is retained");
    Ok(())
}

pub(super) async fn a_trim_is_idempotent_and_never_goes_back(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let appended = append_all(&*log, 0..10).await?;
    for through in [5, 5, 2, 0] {
        log.trim(SHARD, appended[through].seq).await?;
        check_eq!(log.bounds(SHARD).await?.first, appended[6].seq, "first after a trim through {through}");
    }
    log.trim(SHARD, Seq::ZERO).await?;
    check_eq!(refs(&read(&*log, Seq::ZERO, 4).await?), appended[6..], "what is retained");
    Ok(())
}

pub(super) async fn a_log_that_begins_above_what_is_wanted_shows_it(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let appended = append_all(&*log, 0..10).await?;
    log.trim(SHARD, appended[5].seq).await?;
    let wanted = appended[2].seq;
    check!(log.bounds(SHARD).await?.first > wanted, "bounds hide that the log begins above what is wanted");
    let mut reader = log.reader(SHARD, wanted).await?;
    let found = refs(&next(reader.as_mut(), MANY_BYTES).await?);
    check_eq!(found[0], appended[6], "a reader from below begins at the first retained entry");
    Ok(())
}

pub(super) async fn a_trim_of_everything_keeps_the_head(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let appended = append_all(&*log, 0..5).await?;
    let head = appended[4].seq;
    log.trim(SHARD, head).await?;
    let bounds = log.bounds(SHARD).await?;
    check_eq!(bounds.head, head, "head of an empty log that was used");
    // The newest entry may stay: where shards share a stream nothing else remembers the head.
    let kept = bounds.first == head;
    check!(kept || bounds.first == head.next(), "a trim of everything leaves more than the newest entry: {bounds:?}");
    let mut reader = log.reader(SHARD, Seq::ZERO).await?;
    if kept {
        check_eq!(refs(&next(reader.as_mut(), MANY_BYTES).await?), appended[4..], "the newest entry, which was kept");
    }
    silent(reader.as_mut()).await?;
    let after = append_one(&*log, entry(SHARD, 9)).await?;
    check!(after.seq > head, "sequence {} was given out before", after.seq.get());
    check_eq!(refs(&next(reader.as_mut(), MANY_BYTES).await?), [after], "the only entry");
    Ok(())
}

pub(super) async fn a_trim_of_one_shard_spares_the_others(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let mut kept = Vec::new();
    for number in 0..6 {
        append_one(&*log, entry(OTHER, 100 + number)).await?;
        kept.push(append_one(&*log, entry(SHARD, number)).await?);
    }
    let head = log.bounds(OTHER).await?.head;
    log.trim(OTHER, head).await?;
    check_eq!(refs(&read(&*log, Seq::ZERO, 6).await?), kept, "entries of the shard that was not trimmed");
    Ok(())
}

pub(super) async fn a_reader_goes_on_across_a_trim(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let appended = append_all(&*log, 0..4).await?;
    let mut reader = log.reader(SHARD, Seq::ZERO).await?;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.extend(refs(&next(reader.as_mut(), MANY_BYTES).await?));
    }
    log.trim(SHARD, appended[3].seq).await?;
    let after = append_one(&*log, entry(SHARD, 4)).await?;
    check_eq!(refs(&next(reader.as_mut(), MANY_BYTES).await?), [after], "the entry after the trim");
    Ok(())
}

async fn acknowledged_appends_survive(h: &mut dyn Harness<Log>, how: Restart) -> Outcome {
    let log = h.fresh().await;
    let mut appended = append_all(&*log, 0..30).await?;
    let batch = log.append((30..80).map(|number| entry(SHARD, number)).collect()).await;
    appended.extend(batch.into_iter().collect::<Result<Vec<_>, _>>()?);
    drop(log);
    let log = restarted(h, how).await?;
    check_eq!(refs(&read(&*log, Seq::ZERO, 80).await?), appended, "entries after {how:?}");
    check_eq!(log.bounds(SHARD).await?.head, appended[79].seq, "head after {how:?}");
    let after = append_one(&*log, entry(SHARD, 80)).await?;
    check!(after.seq > appended[79].seq, "sequence {} was given out before", after.seq.get());
    Ok(())
}

pub(super) async fn acknowledged_appends_survive_a_restart(h: &mut dyn Harness<Log>) -> Outcome {
    acknowledged_appends_survive(h, Restart::Clean).await
}
pub(super) async fn acknowledged_appends_survive_a_kill(h: &mut dyn Harness<Log>) -> Outcome {
    acknowledged_appends_survive(h, Restart::Kill).await
}
pub(super) async fn acknowledged_appends_survive_a_power_cut(h: &mut dyn Harness<Log>) -> Outcome {
    acknowledged_appends_survive(h, Restart::PowerCut).await
}

async fn sequences_are_not_reused(h: &mut dyn Harness<Log>, how: Restart) -> Outcome {
    let log: Arc<Log> = h.fresh().await;
    let head = append_all(&*log, 0..10).await?[9].seq;
    log.trim(SHARD, head).await?;
    drop(log);
    let log = restarted(h, how).await?;
    let bounds = log.bounds(SHARD).await?;
    check_eq!(bounds.head, head, "head after a trim of everything and {how:?}");
    let after = append_one(&*log, entry(SHARD, 10)).await?;
    check!(after.seq > head, "sequence {} was given out before", after.seq.get());
    check_eq!(log.entry_at(SHARD, after.seq).await?, Some(after.id), "the entry after {how:?}");
    Ok(())
}

pub(super) async fn sequences_are_not_reused_after_trim_and_restart(h: &mut dyn Harness<Log>) -> Outcome {
    sequences_are_not_reused(h, Restart::Clean).await
}
pub(super) async fn sequences_are_not_reused_after_trim_and_kill(h: &mut dyn Harness<Log>) -> Outcome {
    sequences_are_not_reused(h, Restart::Kill).await
}
pub(super) async fn sequences_are_not_reused_after_trim_and_power_cut(h: &mut dyn Harness<Log>) -> Outcome {
    sequences_are_not_reused(h, Restart::PowerCut).await
}
