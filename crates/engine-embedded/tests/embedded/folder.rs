// SPDX-License-Identifier: MIT OR Apache-2.0
//! Folders whose database went away, and who may read a folder.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pli_engine_embedded::{DATABASE_FILE, EmbeddedEngine, OpenError, VERSION_FILE};

use crate::support::{open, options};

async fn started(dir: &Path) {
    open(dir).close().await;
}

#[tokio::test]
async fn a_folder_is_opened_with_its_own_database_only() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    started(ours.path()).await;
    started(theirs.path()).await;
    let database = ours.path().join(DATABASE_FILE);
    let kept = std::fs::read(&database).unwrap();
    std::fs::write(&database, "").unwrap();
    assert!(matches!(EmbeddedEngine::open(ours.path(), options()), Err(OpenError::DatabaseGone { .. })));
    std::fs::remove_file(&database).unwrap();
    assert!(matches!(EmbeddedEngine::open(ours.path(), options()), Err(OpenError::DatabaseGone { .. })));
    std::fs::copy(theirs.path().join(DATABASE_FILE), &database).unwrap();
    assert!(matches!(EmbeddedEngine::open(ours.path(), options()), Err(OpenError::OtherDatabase { .. })));
    std::fs::write(&database, kept).unwrap();
    started(ours.path()).await;
}

#[tokio::test]
async fn a_folder_of_a_release_without_marks_gets_one() {
    let dir = tempfile::tempdir().unwrap();
    started(dir.path()).await;
    let version = dir.path().join(VERSION_FILE);
    let stamp = std::fs::read_to_string(&version).unwrap();
    std::fs::write(&version, "1\n").unwrap();
    started(dir.path()).await;
    assert_eq!(std::fs::read_to_string(&version).unwrap(), stamp);
}

#[tokio::test]
async fn every_file_of_an_open_folder_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let engine = open(dir.path());
    assert_eq!(std::fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
    let mut files = 0;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
        files += 1;
    }
    assert!(files >= 6, "{files} files");
    engine.close().await;
}
