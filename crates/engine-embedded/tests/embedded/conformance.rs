// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conformance suites of every port, with restarts, kills and power cuts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use pli_engine_embedded::EmbeddedEngine;
use pli_ports::{DeviceQueues, Leases, ShardLog, Signals};
use pli_testkit::conformance::{self, Harness, Restart};

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

#[tokio::test(flavor = "multi_thread")]
async fn the_suites_hold() {
    let mut log = Folder::<dyn ShardLog>::new(EmbeddedEngine::shard_log);
    conformance::run("shard log", conformance::shard_log::CASES, &mut log).await.assert_whole();
    log.close().await;
    let mut queues = Folder::<dyn DeviceQueues>::new(EmbeddedEngine::device_queues);
    conformance::run("device queues", conformance::device_queues::CASES, &mut queues).await.assert_whole();
    queues.close().await;
    let mut leases = Folder::<dyn Leases>::new(EmbeddedEngine::leases);
    conformance::run("leases", conformance::leases::CASES, &mut leases).await.assert_whole();
    leases.close().await;
    let mut signals = Folder::<dyn Signals>::new(EmbeddedEngine::signals);
    conformance::run("signals", conformance::signals::CASES, &mut signals).await.assert_whole();
    signals.close().await;
}

#[test]
fn the_suites_hold_with_power_cuts() {
    if std::env::var_os(WATCHED).is_some() {
        return;
    }
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    fs::create_dir(&dir).unwrap();
    let mut command = own_test("conformance::the_suites_hold");
    let output = command.env("LD_PRELOAD", shim()).env(WATCHED, &dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
    assert!(text.contains("survive_a_power_cut ... ok") && text.contains("survives_a_power_cut ... ok"));
}
