// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every [`ShardLog`] does.

mod trims;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pli_domain::{EntryId, EntryRef, Seq, ShardId};
use pli_ports::{LogEntry, LogReader, NewEntry, ShardLog};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Harness, Outcome, QUIET, Restart, SOON, Stop, id_bytes, restarted};
use trims::*;

type Log = dyn ShardLog;

cases! { Log:
    an_empty_log_holds_nothing,
    entries_are_read_as_they_were_appended,
    results_stand_in_the_order_given,
    entries_of_one_call_keep_their_order,
    an_empty_append_answers_nothing,
    the_largest_entry_is_accepted,
    a_larger_entry_is_refused,
    shards_are_apart,
    bounds_cover_what_was_acknowledged,
    an_id_is_known_while_its_entry_is_retained,
    a_reader_waits_and_wakes,
    a_reader_that_starts_above_the_head_yields_nothing_below,
    a_new_reader_yields_earlier_entries_first,
    readers_made_anew_under_load_see_no_hole,
    a_cancelled_read_loses_nothing,
    every_reader_sees_everything,
    a_read_is_bounded_by_bytes_and_yields_at_least_one,
    concurrent_appends_are_all_there_once,
    a_thousand_appends_in_flight_are_acknowledged,
    a_retried_append_is_the_same_entry_or_a_second_one,
    one_id_in_two_shards_is_two_entries,
    a_dropped_append_is_whole_or_absent,
    trimmed_entries_are_gone,
    a_trim_is_idempotent_and_never_goes_back,
    a_log_that_begins_above_what_is_wanted_shows_it,
    a_trim_of_everything_keeps_the_head,
    a_trim_of_one_shard_spares_the_others,
    a_reader_goes_on_across_a_trim,
    acknowledged_appends_survive_a_restart,
    acknowledged_appends_survive_a_kill,
    acknowledged_appends_survive_a_power_cut,
    sequences_are_not_reused_after_trim_and_restart,
    sequences_are_not_reused_after_trim_and_kill,
    sequences_are_not_reused_after_trim_and_power_cut,
}

const SHARD: ShardId = ShardId::new(3);
const OTHER: ShardId = ShardId::new(4);
const MANY_BYTES: usize = 1 << 30;

fn entry(shard: ShardId, number: u64) -> NewEntry {
    let bytes = Bytes::from(format!("entry {number} of {shard:?}"));
    NewEntry { shard, id: EntryId::from_bytes(id_bytes(1, number)), bytes }
}

fn sized(number: u64, bytes: usize) -> NewEntry {
    NewEntry { bytes: Bytes::from(vec![7; bytes]), ..entry(SHARD, number) }
}

async fn append_one(log: &Log, entry: NewEntry) -> Result<EntryRef, Stop> {
    let mut answers = log.append(vec![entry]).await;
    check_eq!(answers.len(), 1, "one entry, one answer");
    Ok(answers.remove(0)?)
}

/// Appends entries `numbers` to the shard, one call each.
async fn append_all(log: &Log, numbers: std::ops::Range<u64>) -> Result<Vec<EntryRef>, Stop> {
    let mut appended = Vec::new();
    for number in numbers {
        appended.push(append_one(log, entry(SHARD, number)).await?);
    }
    Ok(appended)
}

async fn next(reader: &mut dyn LogReader, bytes_max: usize) -> Result<Vec<LogEntry>, Stop> {
    let read = timeout(SOON, reader.next(bytes_max)).await;
    let entries = read.map_err(|_| Stop::failed("the reader yields nothing although there is something"))??;
    check!(!entries.is_empty(), "a read yields at least one entry");
    Ok(entries)
}

/// Exactly `count` entries from `from` on.
async fn read(log: &Log, from: Seq, count: usize) -> Result<Vec<LogEntry>, Stop> {
    let mut reader = log.reader(SHARD, from).await?;
    let mut entries = Vec::new();
    while entries.len() < count {
        entries.extend(next(reader.as_mut(), MANY_BYTES).await?);
    }
    check_eq!(entries.len(), count, "the reader yields more than was appended");
    check!(entries.is_sorted_by(|a, b| a.seq < b.seq), "sequences do not increase: {:?}", refs(&entries));
    Ok(entries)
}

fn refs(entries: &[LogEntry]) -> Vec<EntryRef> {
    entries.iter().map(|entry| EntryRef { seq: entry.seq, id: entry.id }).collect()
}

async fn silent(reader: &mut dyn LogReader) -> Outcome {
    match timeout(QUIET, reader.next(MANY_BYTES)).await {
        Err(_) => Ok(()),
        Ok(entries) => Err(Stop::failed(format!("nothing is there, yet the reader yields {:?}", refs(&entries?)))),
    }
}

async fn an_empty_log_holds_nothing(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let bounds = log.bounds(SHARD).await?;
    check_eq!(bounds.head, Seq::ZERO, "head of an empty log");
    check_eq!(bounds.first, bounds.head.next(), "first of an empty log");
    check_eq!(log.entry_at(SHARD, Seq::ZERO).await?, None, "entry 0");
    check_eq!(log.entry_at(SHARD, Seq::MAX).await?, None, "the last possible entry");
    log.trim(SHARD, Seq::ZERO).await?;
    silent(log.reader(SHARD, Seq::ZERO).await?.as_mut()).await
}

async fn entries_are_read_as_they_were_appended(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let appended = append_all(&*log, 0..20).await?;
    let entries = read(&*log, Seq::ZERO, 20).await?;
    check_eq!(refs(&entries), appended, "what is read and what was acknowledged");
    for (number, found) in (0..).zip(&entries) {
        check_eq!(found.bytes, entry(SHARD, number).bytes, "bytes of entry {number}");
    }
    Ok(())
}

async fn results_stand_in_the_order_given(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let entries: Vec<NewEntry> = (0..30).map(|n| entry(ShardId::new(u16::try_from(n % 3).unwrap_or(0)), n)).collect();
    let ids: Vec<EntryId> = entries.iter().map(|entry| entry.id).collect();
    let answers = log.append(entries).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    check_eq!(answers.iter().map(|answer| answer.id).collect::<Vec<_>>(), ids, "ids of the answers");
    for (number, answer) in (0u16..).zip(&answers) {
        let found = log.entry_at(ShardId::new(number % 3), answer.seq).await?;
        check_eq!(found, Some(answer.id), "the entry that answer {number} names");
    }
    Ok(())
}

async fn entries_of_one_call_keep_their_order(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    for call in 0..5u64 {
        let batch: Vec<NewEntry> = (0..50).map(|n| entry(SHARD, call * 50 + n)).collect();
        let ids: Vec<EntryId> = batch.iter().map(|entry| entry.id).collect();
        let answers = log.append(batch).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        check!(answers.is_sorted_by(|a, b| a.seq < b.seq), "call {call}: {answers:?}");
        let read = read(&*log, answers[0].seq, 50).await?;
        check_eq!(read.iter().map(|entry| entry.id).collect::<Vec<_>>(), ids, "order of call {call}");
    }
    Ok(())
}

async fn an_empty_append_answers_nothing(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    check!(log.append(Vec::new()).await.is_empty(), "no entries, no answers");
    check_eq!(log.bounds(SHARD).await?.head, Seq::ZERO, "head after nothing");
    Ok(())
}

async fn the_largest_entry_is_accepted(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    append_one(&*log, sized(0, 256 * 1024)).await?;
    append_one(&*log, sized(1, 0)).await?;
    let sizes: Vec<usize> = read(&*log, Seq::ZERO, 2).await?.iter().map(|entry| entry.bytes.len()).collect();
    check_eq!(sizes, [256 * 1024, 0], "sizes read");
    Ok(())
}

async fn a_larger_entry_is_refused(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let answers = log.append(vec![sized(0, 256 * 1024 + 1), entry(SHARD, 1)]).await;
    check_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true], "accepted");
    check_eq!(read(&*log, Seq::ZERO, 1).await?[0].id, entry(SHARD, 1).id, "the only entry");
    Ok(())
}

async fn shards_are_apart(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let mut other = log.reader(OTHER, Seq::ZERO).await?;
    let appended = append_all(&*log, 0..3).await?;
    silent(other.as_mut()).await?;
    check_eq!(log.bounds(OTHER).await?.head, Seq::ZERO, "head of the other shard");
    check_eq!(log.entry_at(OTHER, appended[0].seq).await?, None, "an entry of another shard");
    let there = append_one(&*log, entry(OTHER, 9)).await?;
    check_eq!(refs(&next(other.as_mut(), MANY_BYTES).await?), [there], "entries of the other shard");
    check_eq!(refs(&read(&*log, Seq::ZERO, 3).await?), appended, "entries of the first shard");
    Ok(())
}

async fn bounds_cover_what_was_acknowledged(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let first = append_one(&*log, entry(SHARD, 0)).await?;
    for number in 1..20 {
        let appended = append_one(&*log, entry(SHARD, number)).await?;
        let bounds = log.bounds(SHARD).await?;
        check_eq!((bounds.first, bounds.head), (first.seq, appended.seq), "bounds after entry {number}");
    }
    Ok(())
}

async fn an_id_is_known_while_its_entry_is_retained(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let appended = append_all(&*log, 0..5).await?;
    for found in &appended {
        check_eq!(log.entry_at(SHARD, found.seq).await?, Some(found.id), "entry {}", found.seq.get());
    }
    check_eq!(log.entry_at(SHARD, appended[4].seq.next()).await?, None, "above the head");
    log.trim(SHARD, appended[1].seq).await?;
    check_eq!(log.entry_at(SHARD, appended[1].seq).await?, None, "a trimmed entry");
    check_eq!(log.entry_at(SHARD, appended[2].seq).await?, Some(appended[2].id), "the first retained entry");
    Ok(())
}

async fn a_reader_waits_and_wakes(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let mut reader = log.reader(SHARD, Seq::ZERO).await?;
    let waiting = tokio::spawn(async move {
        let entries = reader.next(MANY_BYTES).await;
        (entries, reader)
    });
    tokio::time::sleep(QUIET).await;
    let first = append_one(&*log, entry(SHARD, 0)).await?;
    let (entries, mut reader) = timeout(SOON, waiting).await.map_err(|_| Stop::failed("the reader slept on"))??;
    check_eq!(refs(&entries?), [first], "what woke the reader");
    silent(reader.as_mut()).await?;
    let second = append_one(&*log, entry(SHARD, 1)).await?;
    check_eq!(refs(&next(reader.as_mut(), MANY_BYTES).await?), [second], "the next entry");
    Ok(())
}

async fn a_reader_that_starts_above_the_head_yields_nothing_below(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let head = append_one(&*log, entry(SHARD, 0)).await?;
    let from = Seq::new(head.seq.get() + 3)?;
    let mut reader = log.reader(SHARD, from).await?;
    let mut number = 1;
    let reached = loop {
        let appended = append_one(&*log, entry(SHARD, number)).await?;
        if appended.seq >= from {
            break appended;
        }
        number += 1;
    };
    check_eq!(refs(&next(reader.as_mut(), MANY_BYTES).await?)[0], reached, "the first entry from there on");
    Ok(())
}

async fn a_new_reader_yields_earlier_entries_first(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let appended = append_all(&*log, 0..40).await?;
    let mut reader = log.reader(SHARD, Seq::ZERO).await?;
    next(reader.as_mut(), 1).await?;
    drop(reader);
    for (at, wanted) in appended.iter().enumerate() {
        let mut reader = log.reader(SHARD, wanted.seq).await?;
        let found = refs(&next(reader.as_mut(), MANY_BYTES).await?);
        check_eq!(found[..], appended[at..at + found.len()], "a new reader from {}", wanted.seq.get());
    }
    Ok(())
}

async fn readers_made_anew_under_load_see_no_hole(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let mut appenders = JoinSet::new();
    for task in 0..8 {
        let log = log.clone();
        appenders.spawn(async move {
            for number in 0..25 {
                append_one(&*log, entry(SHARD, task * 100 + number)).await?;
            }
            Ok::<_, Stop>(())
        });
    }
    let mut seen: Vec<EntryRef> = Vec::new();
    while seen.len() < 200 {
        let from = seen.last().map_or(Seq::ZERO, |last| last.seq.next());
        let mut reader = log.reader(SHARD, from).await?;
        for _ in 0..3 {
            if seen.len() < 200 {
                seen.extend(refs(&next(reader.as_mut(), 64).await?));
            }
        }
    }
    while let Some(done) = appenders.join_next().await {
        done??;
    }
    check_eq!(refs(&read(&*log, Seq::ZERO, 200).await?), seen, "what one reader sees and what many saw");
    Ok(())
}

async fn a_cancelled_read_loses_nothing(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let mut reader = log.reader(SHARD, Seq::ZERO).await?;
    let writer = log.clone();
    let appending = tokio::spawn(async move { append_all(&*writer, 0..60).await });
    let mut seen = Vec::new();
    for step in 0u64.. {
        if seen.len() == 60 {
            break;
        }
        check!(step < 100_000, "only {} of 60 entries after {step} reads", seen.len());
        let patience = Duration::from_micros((step % 7) * 300);
        if let Ok(entries) = timeout(patience, reader.next(20)).await {
            seen.extend(refs(&entries?));
        }
    }
    check_eq!(seen, appending.await??, "what was read between cancelled reads");
    Ok(())
}

async fn every_reader_sees_everything(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(log.reader(SHARD, Seq::ZERO).await?);
    }
    let appended = append_all(&*log, 0..10).await?;
    for reader in &mut readers {
        let mut seen = Vec::new();
        while seen.len() < 10 {
            seen.extend(refs(&next(reader.as_mut(), MANY_BYTES).await?));
        }
        check_eq!(seen, appended, "what one of three readers sees");
    }
    Ok(())
}

async fn a_read_is_bounded_by_bytes_and_yields_at_least_one(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    for number in 0..10 {
        append_one(&*log, sized(number, 10_000)).await?;
    }
    let mut reader = log.reader(SHARD, Seq::ZERO).await?;
    check_eq!(next(reader.as_mut(), 1).await?.len(), 1, "entries within 1 byte");
    check_eq!(next(reader.as_mut(), 0).await?.len(), 1, "entries within 0 bytes");
    let some = next(reader.as_mut(), 35_000).await?.len();
    check!((1..=4).contains(&some), "{some} entries of 10,000 bytes for about 35,000");
    Ok(())
}

async fn concurrent_appends_are_all_there_once(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let mut tasks = JoinSet::new();
    for task in 0..32 {
        let log = log.clone();
        tasks.spawn(async move { append_all(&*log, task * 16..(task + 1) * 16).await });
    }
    let mut acknowledged = BTreeSet::new();
    while let Some(appended) = tasks.join_next().await {
        let appended = appended??;
        check!(appended.is_sorted_by(|a, b| a.seq < b.seq), "one after the other, yet {appended:?}");
        acknowledged.extend(appended);
    }
    let found = read(&*log, Seq::ZERO, 512).await?;
    check_eq!(refs(&found).into_iter().collect::<BTreeSet<_>>(), acknowledged, "read and acknowledged");
    Ok(())
}

async fn a_thousand_appends_in_flight_are_acknowledged(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let mut tasks = JoinSet::new();
    for number in 0..1_000 {
        let log = log.clone();
        tasks.spawn(async move { append_one(&*log, entry(SHARD, number)).await });
    }
    let mut sequences = BTreeSet::new();
    while let Some(appended) = tasks.join_next().await {
        sequences.insert(appended??.seq);
    }
    check_eq!(sequences.len(), 1_000, "different sequences");
    Ok(())
}

async fn a_retried_append_is_the_same_entry_or_a_second_one(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let first = append_one(&*log, entry(SHARD, 0)).await?;
    let again = append_one(&*log, entry(SHARD, 0)).await?;
    let last = append_one(&*log, entry(SHARD, 1)).await?;
    let expected = if again == first { vec![first, last] } else { vec![first, again, last] };
    let found = read(&*log, Seq::ZERO, expected.len()).await?;
    check_eq!(refs(&found), expected, "after a retry");
    check!(found[..found.len() - 1].iter().all(|e| e.bytes == entry(SHARD, 0).bytes), "a retry changed the bytes");
    Ok(())
}

async fn one_id_in_two_shards_is_two_entries(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    let (here, there) = (entry(SHARD, 0), NewEntry { bytes: Bytes::from_static(b"there"), ..entry(OTHER, 0) });
    let appended = append_one(&*log, here).await?;
    let other = append_one(&*log, there).await?;
    check_eq!(refs(&read(&*log, Seq::ZERO, 1).await?), [appended], "the shard that was first");
    let mut reader = log.reader(OTHER, Seq::ZERO).await?;
    let found = next(reader.as_mut(), MANY_BYTES).await?;
    check_eq!((refs(&found), &found[0].bytes[..]), (vec![other], &b"there"[..]), "the other shard");
    Ok(())
}

async fn a_dropped_append_is_whole_or_absent(h: &mut dyn Harness<Log>) -> Outcome {
    let log = h.fresh().await;
    for number in 0..20 {
        let patience = Duration::from_micros(number * 50);
        drop(timeout(patience, log.append(vec![entry(SHARD, number), entry(SHARD, 100 + number)])).await);
    }
    let last = append_one(&*log, entry(SHARD, 999)).await?;
    let mut reader = log.reader(SHARD, Seq::ZERO).await?;
    let mut found = Vec::new();
    while found.last().is_none_or(|entry: &LogEntry| entry.id != last.id) {
        found.extend(next(reader.as_mut(), MANY_BYTES).await?);
    }
    check!(found.is_sorted_by(|a, b| a.seq < b.seq), "sequences do not increase: {:?}", refs(&found));
    let known: Vec<NewEntry> = (0..1_000).map(|number| entry(SHARD, number)).collect();
    let whole = |found: &LogEntry| known.iter().any(|new| new.id == found.id && new.bytes == found.bytes);
    check!(found.iter().all(whole), "a dropped append left something else: {:?}", refs(&found));
    Ok(())
}
