// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every [`Media`] does.

use pli_domain::limits::{MEDIA_PART_BYTES, MEDIA_UPLOADS_MAX};
use pli_domain::{AccountId, NoSuchPart, PartHash, UnixMillis, Upload, UploadId, UploadKey, UploadStage};
use pli_ports::{BeginUploadError, FinishUploadError, Media, PutPartError};
use tokio::task::JoinSet;

use super::{Harness, Outcome, Restart, id_bytes, restarted, rivals};

type Store = dyn Media;

cases! { Store:
    an_upload_takes_its_parts_in_any_order,
    beginning_again_is_answered_as_the_first_time,
    an_id_with_another_length_is_refused,
    what_was_never_begun_has_nothing,
    accounts_are_apart,
    the_same_part_again_is_accepted,
    other_bytes_under_a_number_are_refused,
    racing_parts_of_one_number_are_noted_once,
    a_number_that_is_no_part_is_refused,
    an_upload_is_finished_when_it_is_whole,
    a_finished_upload_stays_as_it_is,
    the_quota_counts_what_lives,
    racing_uploads_keep_the_quota,
    so_many_uploads_are_begun_at_most,
    a_deleted_upload_is_gone_and_its_id_taken,
    racing_ends_of_an_upload_leave_it_deleted,
    everything_is_over_at_its_end,
    expired_uploads_are_forgotten_within_a_limit,
    uploads_survive_a_restart,
    uploads_survive_a_kill,
    uploads_survive_a_power_cut,
}

const NOW: UnixMillis = UnixMillis(1_767_225_600_000);
/// Seven days later.
const END: UnixMillis = UnixMillis(NOW.0 + 7 * 86_400_000);
/// The last moment before it.
const LAST: UnixMillis = UnixMillis(END.0 - 1);
/// Room for whatever a case does not count.
const ROOM: u64 = u64::MAX;
/// Three parts, the last one short.
const BYTES: u64 = 2 * MEDIA_PART_BYTES + 5;

fn key(account: u64, number: u64) -> UploadKey {
    let account = AccountId::from_bytes(id_bytes(6, account));
    UploadKey { account, id: UploadId::from_bytes(id_bytes(0xD, number)) }
}

fn new(bytes: u64) -> Upload {
    Upload { bytes, expires_at: END, stage: UploadStage::Open }
}

fn hash(number: u64) -> PartHash {
    let mut bytes = [9; 32];
    bytes[24..].copy_from_slice(&number.to_be_bytes());
    PartHash::from_bytes(bytes)
}

async fn begun(store: &Store, key: UploadKey) -> Result<Upload, BeginUploadError> {
    store.begin_upload(key, new(BYTES), ROOM, NOW).await
}

/// An upload with all its parts.
async fn full(store: &Store, key: UploadKey) -> Outcome {
    begun(store, key).await?;
    for number in 1..=3 {
        store.put_part(key, number, hash(number.into()), NOW).await?;
    }
    Ok(())
}

/// Fails unless nothing of the upload answers.
async fn nothing(store: &Store, key: UploadKey, now: UnixMillis) -> Outcome {
    check_eq!(store.upload(key, now).await?, None, "an upload that is not there");
    check_eq!(store.part(key, 1, now).await?, None, "a part of an upload that is not there");
    check_eq!(store.parts(key, now).await?, vec![], "parts of an upload that is not there");
    let put = store.put_part(key, 1, hash(1), now).await;
    check!(matches!(put, Err(PutPartError::NoUpload(_))), "a part of what is not there: {put:?}");
    let finished = store.finish_upload(key, now).await;
    check!(matches!(finished, Err(FinishUploadError::NoUpload(_))), "finished what is not there: {finished:?}");
    Ok(())
}

async fn an_upload_takes_its_parts_in_any_order(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    check_eq!(begun(&*store, key(1, 1)).await?, new(BYTES), "what beginning answers");
    check_eq!(store.parts(key(1, 1), NOW).await?, vec![], "parts of a new upload");
    for number in [3, 1, 2] {
        check_eq!(store.part(key(1, 1), number, NOW).await?, None, "part {number} before it was put");
        store.put_part(key(1, 1), number, hash(number.into()), NOW).await?;
        check_eq!(store.part(key(1, 1), number, NOW).await?, Some(hash(number.into())), "part {number}");
    }
    let all = vec![(1, hash(1)), (2, hash(2)), (3, hash(3))];
    check_eq!(store.parts(key(1, 1), LAST).await?, all, "all parts, by number");
    check_eq!(store.upload(key(1, 1), LAST).await?, Some(new(BYTES)), "the upload, still open");
    Ok(())
}

async fn beginning_again_is_answered_as_the_first_time(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    begun(&*store, key(1, 1)).await?;
    store.put_part(key(1, 1), 2, hash(2), NOW).await?;
    let later = Upload { expires_at: UnixMillis(END.0 + 1), ..new(BYTES) };
    for quota in [ROOM, 0] {
        let again = store.begin_upload(key(1, 1), later, quota, LAST).await?;
        check_eq!(again, new(BYTES), "an upload that was begun again");
    }
    check_eq!(store.parts(key(1, 1), NOW).await?, vec![(2, hash(2))], "parts after it was begun again");
    Ok(())
}

async fn an_id_with_another_length_is_refused(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    begun(&*store, key(1, 1)).await?;
    let other = store.begin_upload(key(1, 1), new(BYTES + 1), ROOM, NOW).await;
    check!(matches!(other, Err(BeginUploadError::IdTaken)), "another length under one id: {other:?}");
    check_eq!(store.upload(key(1, 1), NOW).await?, Some(new(BYTES)), "the upload after that");
    Ok(())
}

async fn what_was_never_begun_has_nothing(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    nothing(&*store, key(1, 1), NOW).await?;
    check_eq!(store.delete_upload(key(1, 1), NOW).await?, None, "deleting what was never begun");
    begun(&*store, key(1, 2)).await?;
    nothing(&*store, key(1, 1), NOW).await
}

async fn accounts_are_apart(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    full(&*store, key(1, 1)).await?;
    nothing(&*store, key(2, 1), NOW).await?;
    check_eq!(store.delete_upload(key(2, 1), NOW).await?, None, "another account's upload deleted");
    let other = store.begin_upload(key(2, 1), new(7), 7, NOW).await?;
    check_eq!(other, new(7), "the same id and a quota of its own for another account");
    store.finish_upload(key(1, 1), NOW).await?;
    check_eq!(store.parts(key(2, 1), NOW).await?, vec![], "parts of the other one");
    Ok(())
}

async fn the_same_part_again_is_accepted(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    full(&*store, key(1, 1)).await?;
    for number in [1, 3, 2, 2] {
        store.put_part(key(1, 1), number, hash(number.into()), NOW).await?;
    }
    check_eq!(store.parts(key(1, 1), NOW).await?.len(), 3, "parts after repeats");
    Ok(())
}

async fn other_bytes_under_a_number_are_refused(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    begun(&*store, key(1, 1)).await?;
    store.put_part(key(1, 1), 1, hash(1), NOW).await?;
    let other = store.put_part(key(1, 1), 1, hash(100), NOW).await;
    check!(matches!(other, Err(PutPartError::Conflict)), "other bytes under a number: {other:?}");
    check_eq!(store.part(key(1, 1), 1, NOW).await?, Some(hash(1)), "the part after that");
    store.put_part(key(1, 1), 2, hash(1), NOW).await?;
    Ok(())
}

async fn racing_parts_of_one_number_are_noted_once(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    begun(&*store, key(1, 1)).await?;
    let mut puts = JoinSet::new();
    for rival in 0..rivals(h) as u64 {
        let store = store.clone();
        puts.spawn(async move { (rival, store.put_part(key(1, 1), 1, hash(rival), NOW).await) });
    }
    let mut won = Vec::new();
    while let Some(put) = puts.join_next().await {
        match put? {
            (rival, Ok(())) => won.push(hash(rival)),
            (_, Err(PutPartError::Conflict)) => {}
            (_, Err(error)) => return Err(error.into()),
        }
    }
    check_eq!(won.len(), 1, "winners of one number");
    check_eq!(store.part(key(1, 1), 1, NOW).await?, won.first().copied(), "the winner's part");
    Ok(())
}

async fn a_number_that_is_no_part_is_refused(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    begun(&*store, key(1, 1)).await?;
    for number in [0, 4, u32::MAX] {
        let put = store.put_part(key(1, 1), number, hash(1), NOW).await;
        let refused = matches!(put, Err(PutPartError::NoSuchPart(NoSuchPart { parts: 3 })));
        check!(refused, "part {number} of 3: {put:?}");
        check_eq!(store.part(key(1, 1), number, NOW).await?, None, "part {number} of 3");
    }
    Ok(())
}

async fn an_upload_is_finished_when_it_is_whole(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    begun(&*store, key(1, 1)).await?;
    for (number, missing) in [(1, 1), (3, 2), (2, 2)] {
        let finished = store.finish_upload(key(1, 1), NOW).await;
        let told = matches!(finished, Err(FinishUploadError::Missing { number }) if number == missing);
        check!(told, "finished without part {missing}: {finished:?}");
        check_eq!(store.upload(key(1, 1), NOW).await?, Some(new(BYTES)), "not finished");
        store.put_part(key(1, 1), number, hash(number.into()), NOW).await?;
    }
    for _ in 0..2 {
        store.finish_upload(key(1, 1), NOW).await?;
        let finished = Upload { stage: UploadStage::Finished, ..new(BYTES) };
        check_eq!(store.upload(key(1, 1), NOW).await?, Some(finished), "finished");
    }
    Ok(())
}

async fn a_finished_upload_stays_as_it_is(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    full(&*store, key(1, 1)).await?;
    store.finish_upload(key(1, 1), NOW).await?;
    store.put_part(key(1, 1), 2, hash(2), NOW).await?;
    let other = store.put_part(key(1, 1), 2, hash(100), NOW).await;
    check!(matches!(other, Err(PutPartError::Conflict)), "other bytes after the end: {other:?}");
    let again = begun(&*store, key(1, 1)).await?;
    check_eq!(again.stage, UploadStage::Finished, "the stage that beginning again answers");
    Ok(())
}

async fn the_quota_counts_what_lives(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    let begin = async |number, bytes, now| store.begin_upload(key(1, number), new(bytes), 100, now).await;
    let over = |answer: &Result<Upload, BeginUploadError>, taken| matches!(answer, Err(BeginUploadError::Quota { used, quota: 100 }) if *used == taken);
    begin(1, 60, NOW).await?;
    let refused = begin(2, 41, NOW).await;
    check!(over(&refused, 60), "41 bytes more than 60 of 100: {refused:?}");
    nothing(&*store, key(1, 2), NOW).await?;
    begin(3, 40, NOW).await?;
    store.put_part(key(1, 3), 1, hash(1), NOW).await?;
    store.finish_upload(key(1, 3), NOW).await?;
    let refused = begin(4, 1, NOW).await;
    check!(over(&refused, 100), "a finished upload counts: {refused:?}");
    check!(store.delete_upload(key(1, 1), NOW).await?.is_some(), "deleted");
    let refused = begin(5, 61, NOW).await;
    check!(over(&refused, 40), "a deleted one does not: {refused:?}");
    let late = Upload { expires_at: UnixMillis(END.0 + 1), ..new(100) };
    check_eq!(store.begin_upload(key(1, 6), late, 100, END).await?, late, "all room, when the others are over");
    Ok(())
}

async fn racing_uploads_keep_the_quota(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    let mut begins = JoinSet::new();
    for rival in 0..rivals(h).min(200) as u64 {
        let store = store.clone();
        begins.spawn(async move { store.begin_upload(key(1, rival), new(30), 100, NOW).await });
    }
    let mut won = 0;
    while let Some(begun) = begins.join_next().await {
        match begun? {
            Ok(_) => won += 1,
            Err(BeginUploadError::Quota { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    check_eq!(won, 3, "uploads of 30 bytes in 100");
    Ok(())
}

async fn so_many_uploads_are_begun_at_most(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    for number in 0..MEDIA_UPLOADS_MAX as u64 {
        store.begin_upload(key(1, number), new(1), ROOM, NOW).await?;
    }
    store.delete_upload(key(1, 0), NOW).await?;
    let more = key(1, MEDIA_UPLOADS_MAX as u64);
    let refused = store.begin_upload(more, new(1), ROOM, NOW).await;
    check!(matches!(refused, Err(BeginUploadError::TooMany)), "one more, when one was deleted: {refused:?}");
    store.begin_upload(key(1, 1), new(1), ROOM, NOW).await?;
    let late = Upload { expires_at: UnixMillis(END.0 + 1), ..new(1) };
    store.begin_upload(more, late, ROOM, END).await?;
    Ok(())
}

async fn a_deleted_upload_is_gone_and_its_id_taken(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    full(&*store, key(1, 1)).await?;
    store.finish_upload(key(1, 1), NOW).await?;
    let deleted = Some(Upload { stage: UploadStage::Deleted, ..new(BYTES) });
    for _ in 0..2 {
        check_eq!(store.delete_upload(key(1, 1), NOW).await?, deleted, "what deleting answers");
        nothing(&*store, key(1, 1), NOW).await?;
    }
    let again = begun(&*store, key(1, 1)).await;
    check!(matches!(again, Err(BeginUploadError::NoUpload(_))), "begun after it was deleted: {again:?}");
    Ok(())
}

async fn racing_ends_of_an_upload_leave_it_deleted(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    for round in 0..8 {
        let upload = key(1, round);
        full(&*store, upload).await?;
        let (finishing, deleting) = (store.clone(), store.clone());
        let finishing = tokio::spawn(async move { finishing.finish_upload(upload, NOW).await });
        let deleting = tokio::spawn(async move { deleting.delete_upload(upload, NOW).await });
        match finishing.await? {
            Ok(()) | Err(FinishUploadError::NoUpload(_)) => {}
            Err(error) => return Err(error.into()),
        }
        check!(deleting.await??.is_some(), "deleted while it is finished");
        nothing(&*store, upload, NOW).await?;
    }
    Ok(())
}

async fn everything_is_over_at_its_end(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    full(&*store, key(1, 1)).await?;
    store.finish_upload(key(1, 1), LAST).await?;
    check!(store.upload(key(1, 1), LAST).await?.is_some(), "there at the last moment");
    nothing(&*store, key(1, 1), END).await?;
    let again = store.begin_upload(key(1, 1), new(BYTES), ROOM, END).await;
    check!(matches!(again, Err(BeginUploadError::NoUpload(_))), "begun again when it was over: {again:?}");
    Ok(())
}

async fn expired_uploads_are_forgotten_within_a_limit(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    for number in 1..=5 {
        full(&*store, key(number, 1)).await?;
    }
    let longer = Upload { expires_at: UnixMillis(END.0 + 1), ..new(7) };
    store.begin_upload(key(1, 2), longer, ROOM, NOW).await?;
    if !h.forgets_by_itself() {
        check_eq!(store.expire_uploads(LAST, 10).await?, 0, "forgotten before the end");
        check_eq!(store.expire_uploads(END, 3).await?, 3, "forgotten, at most 3");
        check_eq!(store.expire_uploads(END, 3).await?, 2, "forgotten, what was left");
    }
    check_eq!(store.expire_uploads(END, 3).await?, 0, "forgotten again");
    check_eq!(store.upload(key(1, 2), END).await?, Some(longer), "the one that is not over");
    nothing(&*store, key(1, 1), END).await
}

async fn survive(h: &mut dyn Harness<Store>, how: Restart) -> Outcome {
    let store = h.fresh().await;
    full(&*store, key(1, 1)).await?;
    store.finish_upload(key(1, 1), NOW).await?;
    begun(&*store, key(1, 2)).await?;
    store.put_part(key(1, 2), 2, hash(2), NOW).await?;
    begun(&*store, key(1, 3)).await?;
    store.delete_upload(key(1, 3), NOW).await?;
    drop(store);
    let store = restarted(h, how).await?;
    let finished = Upload { stage: UploadStage::Finished, ..new(BYTES) };
    check_eq!(store.upload(key(1, 1), NOW).await?, Some(finished), "a finished upload");
    check_eq!(store.parts(key(1, 1), NOW).await?.len(), 3, "its parts");
    check_eq!(store.parts(key(1, 2), NOW).await?, vec![(2, hash(2))], "the parts of an open one");
    nothing(&*store, key(1, 3), NOW).await?;
    store.put_part(key(1, 2), 1, hash(1), NOW).await?;
    let refused = store.begin_upload(key(1, 4), new(1), 2 * BYTES, NOW).await;
    check!(matches!(refused, Err(BeginUploadError::Quota { .. })), "the quota counts both: {refused:?}");
    Ok(())
}

async fn uploads_survive_a_restart(h: &mut dyn Harness<Store>) -> Outcome {
    survive(h, Restart::Clean).await
}

async fn uploads_survive_a_kill(h: &mut dyn Harness<Store>) -> Outcome {
    survive(h, Restart::Kill).await
}

async fn uploads_survive_a_power_cut(h: &mut dyn Harness<Store>) -> Outcome {
    survive(h, Restart::PowerCut).await
}
