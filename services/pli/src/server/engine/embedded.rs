// SPDX-License-Identifier: MIT OR Apache-2.0
//! The embedded engine: opening the data folder, with errors that name their fix.

use std::path::Path;

use opentelemetry::metrics::Meter;
use pli_engine_embedded::{EmbeddedEngine, EngineStats, OpenError};
use pli_runtime::Dependency;
use tokio_util::sync::CancellationToken;

use super::{Bus, Tables};
use crate::config::EngineConfig;
use crate::exit::{Exit, ExitContext, Failure};

/// What health says of a full disk.
const NO_ROOM: &str = "the disk of the data folder is full: appends are refused until there is room; free some space";

/// Opens the folder; a killed process's write-ahead log is read first.
pub async fn open(folder: &Path, config: &EngineConfig) -> Result<EmbeddedEngine, Failure> {
    let (folder, options) = (folder.to_path_buf(), config.options());
    let opened = tokio::task::spawn_blocking(move || EmbeddedEngine::open(&folder, options)).await;
    opened.exit(Exit::Failed)?.map_err(|error| Failure::new(exit_of(&error), error))
}

const fn exit_of(error: &OpenError) -> Exit {
    match error {
        OpenError::InUse { .. } => Exit::InUse,
        OpenError::Shards(_) => Exit::Config,
        OpenError::NotAFolder { .. }
        | OpenError::ReadOnly { .. }
        | OpenError::NewerVersion { .. }
        | OpenError::NoVersion { .. }
        | OpenError::DatabaseGone { .. }
        | OpenError::OtherDatabase { .. }
        | OpenError::NoSpace { .. }
        | OpenError::Io { .. }
        | OpenError::Database { .. } => Exit::Folder,
    }
}

/// Exports what the engine counts.
pub fn export(engine: &EmbeddedEngine, meter: &Meter) {
    type Read = fn(EngineStats) -> u64;
    let counters: [(&'static str, &'static str, Read); 5] = [
        ("pli_engine_commits", "transactions", |stats| stats.commits),
        ("pli_engine_fsyncs", "fsyncs of the write-ahead log and the database", |stats| stats.fsyncs),
        ("pli_engine_appended_entries", "durable log entries", |stats| stats.appended),
        ("pli_engine_checkpoints", "copies of the write-ahead log into the database", |stats| stats.checkpoints),
        ("pli_engine_refused_full_entries", "log entries refused because the disk was full", |stats| {
            stats.refused_full
        }),
    ];
    for (name, description, read) in counters {
        let engine = engine.clone();
        meter
            .u64_observable_counter(name)
            .with_description(description)
            .with_callback(move |observer| observer.observe(read(engine.stats()), &[]))
            .build();
    }
}

/// Logs, bus and leases.
pub fn bus(engine: &EmbeddedEngine) -> Bus {
    let shards = engine.shard_map();
    Bus { log: engine.shard_log(), signals: engine.signals(), leases: engine.leases(), shards }
}

/// Tables.
pub fn tables(engine: &EmbeddedEngine) -> Tables {
    Tables {
        queues: engine.device_queues(),
        accounts: engine.accounts(),
        conversations: engine.conversations(),
        links: engine.links(),
        media: engine.media(),
        payloads: engine.payloads(),
    }
}

/// Tells health whether the disk has room, and when the engine has stopped; the process ends soon after that.
pub async fn watch(engine: EmbeddedEngine, health: Dependency, stop: CancellationToken) -> Result<(), Failure> {
    let (mut room, stopped) = (engine.room(), engine.failed());
    tokio::pin!(stopped);
    // It runs, even on a disk that is full already.
    health.ready();
    loop {
        if *room.borrow_and_update() {
            health.ready();
        } else {
            health.not_ready(NO_ROOM);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            failure = &mut stopped => {
                health.not_ready(failure.to_string());
                return Err(Failure::new(Exit::Failed, failure));
            }
            Ok(()) = room.changed() => {}
        }
    }
}
