// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kill or a bad disk leaves in the folder of parts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pli_api::ErrorCode;
use pli_media::{Blobs, Config};
use tokio_util::sync::CancellationToken;

use crate::fixture::{End, PART, Rig, part, refused};

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The file of one part of the one upload that there is.
fn file_of(folder: &Path, number: u32) -> PathBuf {
    let named =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{number}-")));
    files(folder).into_iter().find(named).expect("the file of the part")
}

async fn rig(folder: &Path) -> (Rig, End) {
    let rig = Rig::over(Blobs::local(folder).expect("opened"), Config::default()).await;
    let device = rig.device(1, 1);
    (rig, device)
}

#[tokio::test]
async fn a_part_that_is_not_what_was_put_is_never_served_and_can_be_put_again() {
    for cut in [0, 1, PART - 1] {
        let folder = tempfile::tempdir().expect("a folder");
        let (_rig, mut one) = rig(folder.path()).await;
        one.whole(1).await;
        fs::write(file_of(folder.path(), 2), &part(2, PART)[..cut]).expect("torn");
        let refusal = refused(one.read(1, 2).await, ErrorCode::UploadIncomplete);
        assert!(refusal.message.contains("part 2"), "{refusal:?}");
        assert_eq!(one.get(1).await.expect("there").there.as_ref(), [0b101], "told to whoever goes on");
        assert_eq!(one.read(1, 1).await.expect("read"), part(1, PART));
        one.put(1, 2, part(2, PART)).await.expect("put again");
        assert_eq!(one.read(1, 2).await.expect("read"), part(2, PART));
    }
}

#[tokio::test]
async fn other_bytes_of_the_same_length_are_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_rig, mut one) = rig(folder.path()).await;
    one.whole(1).await;
    fs::write(file_of(folder.path(), 2), part(1, PART)).expect("swapped");
    refused(one.read(1, 2).await, ErrorCode::UploadIncomplete);
}

#[tokio::test]
async fn a_part_that_was_lost_is_told_before_the_upload_is_finished() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_rig, mut one) = rig(folder.path()).await;
    one.begin(1, 2 * PART as u64).await.expect("begun");
    for number in [1, 2] {
        one.put(1, number, part(number, PART)).await.expect("put");
    }
    fs::remove_file(file_of(folder.path(), 1)).expect("lost");
    let refusal = refused(one.finish(1).await, ErrorCode::UploadIncomplete);
    assert!(refusal.message.contains("part 1 is missing"), "{refusal:?}");
    one.put(1, 1, part(1, PART)).await.expect("put again");
    one.finish(1).await.expect("finished");
}

#[tokio::test]
async fn what_a_kill_left_half_written_is_no_part() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_rig, mut one) = rig(folder.path()).await;
    one.begin(1, 2 * PART as u64).await.expect("begun");
    one.put(1, 1, part(1, PART)).await.expect("put");
    // An object without a note, whole or staged: the process was killed between the two writes, or in the first.
    let at = file_of(folder.path(), 1);
    fs::write(at.with_file_name("2-00ff"), b"half").expect("left");
    fs::write(at.with_file_name("2-00ff#1"), b"staged").expect("left");
    assert_eq!(one.get(1).await.expect("there").there.as_ref(), [0b01]);
    refused(one.finish(1).await, ErrorCode::UploadIncomplete);
    one.put(1, 2, part(2, PART)).await.expect("put");
    one.finish(1).await.expect("finished");
    assert_eq!(one.read(1, 2).await.expect("read"), part(2, PART));
}

#[tokio::test(start_paused = true)]
async fn what_a_kill_left_half_written_goes_with_its_day() {
    let folder = tempfile::tempdir().expect("a folder");
    let (rig, mut one) = rig(folder.path()).await;
    one.begin(1, 2 * PART as u64).await.expect("begun");
    one.put(1, 1, part(1, PART)).await.expect("put");
    let at = file_of(folder.path(), 1);
    fs::write(at.with_file_name("2-00ff#1"), b"staged").expect("left");
    let (service, stop) = (rig.service(), CancellationToken::new());
    let (running, until) = (service.clone(), stop.clone());
    let running = tokio::spawn(async move { running.run(until).await });
    tokio::time::sleep(Duration::from_secs(6 * 24 * 3_600)).await;
    assert_eq!(files(folder.path()).len(), 2, "its time has not come");
    tokio::time::sleep(Duration::from_secs(3 * 24 * 3_600)).await;
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "nor is an empty folder left");
    stop.cancel();
    running.await.expect("ended");
}

#[test]
fn a_folder_that_cannot_be_used_is_refused_with_the_fix() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, b"").expect("written");
    let refused = Blobs::local(&file.join("media")).expect_err("a file is no folder").to_string();
    assert!(refused.contains("media.folder") && refused.contains("may write"), "{refused}");
}
