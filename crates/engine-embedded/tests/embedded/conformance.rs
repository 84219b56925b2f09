// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conformance suites of every port, with restarts, kills and power cuts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use pli_engine_embedded::EmbeddedEngine;
use pli_ports::{Accounts, Conversations, DeviceQueues, Leases, Links, Media, Payloads, ShardLog, Signals};
use pli_testkit::conformance::{self, Case, Harness, Restart};

use crate::support::{open, own_test, shim};

/// Where the shim watches, in a process that runs under it.
const WATCHED: &str = "PLI_POWERCUT_DIR";

/// One engine at a time, and the port that a suite asks of it.
struct Folder<P: ?Sized> {
    dir: PathBuf,
    _parent: Option<tempfile::TempDir>,
    engine: Option<EmbeddedEngine>,
    port: fn(&EmbeddedEngine) -> Arc<P>,
}

impl<P: ?Sized> Folder<P> {
    fn new(port: fn(&EmbeddedEngine) -> Arc<P>) -> Self {
        let (dir, parent) = match std::env::var_os(WATCHED) {
            Some(dir) => (dir.into(), None),
            None => {
                let parent = tempfile::tempdir().unwrap();
                (parent.path().join("data"), Some(parent))
            }
        };
        Self { dir, _parent: parent, engine: None, port }
    }

    async fn close(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.close().await;
        }
    }

    fn open(&mut self) -> Arc<P> {
        (self.port)(self.engine.insert(open(&self.dir)))
    }

    fn aside(&self, suffix: &str) -> PathBuf {
        let mut name = self.dir.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    /// Takes `image` as what the folder holds.
    fn become_(&self, image: &Path) {
        empty(&self.dir);
        for file in files(image) {
            fs::rename(&file, self.dir.join(file.file_name().unwrap())).unwrap();
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map_or_else(|_| Vec::new(), |found| found.map(|file| file.unwrap().path()).collect())
}

/// One by one, so that the shim sees it.
fn empty(dir: &Path) {
    files(dir).iter().for_each(|file| fs::remove_file(file).unwrap());
}

/// What a killed process leaves: the files as the operating system has them, without the WAL index.
fn copy(dir: &Path, image: &Path) {
    fs::create_dir_all(image).unwrap();
    empty(image);
    for name in ["VERSION", "pli.db", "pli.db-wal"] {
        if dir.join(name).exists() {
            fs::copy(dir.join(name), image.join(name)).unwrap();
        }
    }
}

#[async_trait]
impl<P: ?Sized + Send + Sync> Harness<P> for Folder<P> {
    async fn fresh(&mut self) -> Arc<P> {
        self.close().await;
        empty(&self.dir);
        self.open()
    }

    async fn restart(&mut self, how: Restart) -> Option<Arc<P>> {
        let image = self.aside(if how == Restart::PowerCut { ".cut" } else { ".image" });
        match how {
            Restart::Clean => {}
            Restart::Kill => copy(&self.dir, &image),
            Restart::PowerCut if std::env::var_os(WATCHED).is_none() => return None,
            Restart::PowerCut => {
                empty(&image);
                // The shim answers this name with an image; the file itself is not there.
                assert!(fs::File::open(self.dir.join(".powercut-image")).is_err());
            }
        }
        self.close().await;
        if how != Restart::Clean {
            self.become_(&image);
        }
        Some(self.open())
    }

    fn is_networked(&self) -> bool {
        false
    }
}

/// Runs one suite on a folder of its own.
async fn hold<P>(suite: &str, cases: &[Case<P>], port: fn(&EmbeddedEngine) -> Arc<P>)
where
    P: ?Sized + Send + Sync,
{
    let mut folder = Folder::new(port);
    conformance::run(suite, cases, &mut folder).await.assert_whole();
    folder.close().await;
}

/// The name of the test below.
const UNDER_THE_SHIM: &str = "conformance::the_suites_run_where_another_test_asks_for_them";

#[tokio::test(flavor = "multi_thread")]
async fn the_suites_run_where_another_test_asks_for_them() {
    if std::env::var_os(WATCHED).is_none() && cfg!(target_os = "linux") {
        return;
    }
    hold::<dyn ShardLog>("shard log", conformance::shard_log::CASES, EmbeddedEngine::shard_log).await;
    hold::<dyn DeviceQueues>("device queues", conformance::device_queues::CASES, EmbeddedEngine::device_queues).await;
    hold::<dyn Conversations>("conversations", conformance::conversations::CASES, EmbeddedEngine::conversations).await;
    hold::<dyn Accounts>("accounts", conformance::accounts::CASES, EmbeddedEngine::accounts).await;
    hold::<dyn Links>("links", conformance::links::CASES, EmbeddedEngine::links).await;
    hold::<dyn Media>("media", conformance::media::CASES, EmbeddedEngine::media).await;
    hold::<dyn Payloads>("payloads", conformance::payloads::CASES, EmbeddedEngine::payloads).await;
    hold::<dyn Leases>("leases", conformance::leases::CASES, EmbeddedEngine::leases).await;
    hold::<dyn Signals>("signals", conformance::signals::CASES, EmbeddedEngine::signals).await;
}

/// In a process under the shim, so that no case has to be skipped.
#[cfg(target_os = "linux")]
#[test]
fn the_suites_hold_across_restarts_kills_and_power_cuts() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    fs::create_dir(&dir).unwrap();
    let mut command = own_test(UNDER_THE_SHIM);
    let output = command.env("LD_PRELOAD", shim()).env(WATCHED, &dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
    assert!(text.contains("survive_a_power_cut ... ok") && !text.contains("skipped:"));
}
