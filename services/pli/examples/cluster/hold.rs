// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process that owns every other one.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Context;
use pli_testkit::cluster::{Cluster, ClusterSettings, program};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

use crate::state::{Folder, Holder, Ready};

/// How often it is looked whether a process has ended by itself.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Writes progress, a line at a time.
struct Progress<'a> {
    folder: &'a Folder,
    begun: Instant,
}

impl Progress<'_> {
    fn say(&self, what: &str) {
        let line = format!("{:6.1} s  {what}\n", self.begun.elapsed().as_secs_f64());
        let file = OpenOptions::new().create(true).append(true).open(self.folder.progress());
        if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
            println!("progress cannot be written: {error}: {line}");
        }
    }
}

/// Holds the cluster until it is told to end it.
pub fn run(folder: &Folder) -> anyhow::Result<()> {
    let Some(_lock) = folder.lock()? else {
        anyhow::bail!("another process holds the cluster of {}", folder.shown());
    };
    folder.prepare()?;
    folder.set_holder(&Holder::own()?)?;
    let progress = Progress { folder, begun: Instant::now() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let held = runtime.block_on(hold(folder, &progress));
    folder.unready()?;
    folder.clear_data()?;
    match &held {
        Ok(()) => progress.say("everything has ended"),
        Err(error) => progress.say(&format!("failed: {error:#}")),
    }
    held
}

async fn hold(folder: &Folder, progress: &Progress<'_>) -> anyhow::Result<()> {
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let starting = async {
        let settings = ClusterSettings::full(program()?, folder.path().to_path_buf());
        let told = |what: &str| progress.say(&format!("starting {what}"));
        Cluster::start(settings, &told).await.context("the cluster did not start")
    };
    let mut cluster = tokio::select! {
        started = starting => started?,
        _ = terminated.recv() => return Ok(()),
        _ = interrupted.recv() => return Ok(()),
    };
    let admins = cluster.names(None).into_iter().filter_map(|name| Some((name.clone(), cluster.admin(&name)?)));
    let ready = Ready { edges: cluster.edges(), admins: admins.collect() };
    progress.say("everything is ready");
    folder.set_ready(&ready)?;
    let mut watch = interval(WATCH_EVERY);
    let mut fallen = Vec::new();
    loop {
        tokio::select! {
            _ = terminated.recv() => break,
            _ = interrupted.recv() => break,
            _ = watch.tick() => {
                let now = cluster.fallen();
                if now != fallen {
                    progress.say(&format!("ended by themselves: {}", now.join(", ")));
                    fallen = now;
                }
            }
        }
    }
    folder.unready()?;
    Ok(cluster.close(&|what| progress.say(&format!("ending {what}"))).await?)
}
