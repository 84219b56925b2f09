// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opening and closing a data folder.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use pli_domain::ShardMap;
use pli_domain::mutant::{Mutant, broken};
use pli_ports::{Accounts, Conversations, DeviceQueues, Leases, Links, Media, Payloads, ShardLog, Signals};
use rusqlite::Connection;
use tokio::sync::watch;

use crate::accounts::EmbeddedAccounts;
use crate::conversations::EmbeddedConversations;
use crate::database::{self, ClusterError};
use crate::device_queues::EmbeddedDeviceQueues;
use crate::error::{Stop, is_full};
use crate::folder::Folder;
use crate::jobs::JobQueue;
use crate::leases::EmbeddedLeases;
use crate::links::EmbeddedLinks;
use crate::logs::Logs;
use crate::media::EmbeddedMedia;
use crate::payloads::EmbeddedPayloads;
use crate::readers::Readers;
use crate::shard_log::{EmbeddedShardLog, stored_bounds};
use crate::signals::EmbeddedSignals;
use crate::space::Reserve;
use crate::stats::Counters;
use crate::store::Store;
use crate::upkeep::Upkeep;
use crate::writer::Writer;
use crate::{EmbeddedOptions, EngineFailure, EngineStats, OpenError, Synchronous};

/// Longest time that a group of writes may wait for more.
const GROUP_WAIT_MAX: std::time::Duration = std::time::Duration::from_millis(2);

/// An open data folder; clones share it. The ports keep working while the engine or any clone lives; dropping the
/// last one closes the folder as [`EmbeddedEngine::close`] does, but blocks until the writer has finished.
#[derive(Clone)]
pub struct EmbeddedEngine {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    signals: EmbeddedSignals,
    leases: Arc<EmbeddedLeases>,
    shard_map: ShardMap,
    history: Option<[u8; 16]>,
    counters: Arc<Counters>,
    room: watch::Receiver<bool>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for EmbeddedEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedEngine").field("shard_map", &self.inner.shard_map).finish_non_exhaustive()
    }
}

impl EmbeddedEngine {
    /// Opens the data folder `dir`, making it if it is missing. Blocks for as long as SQLite takes to read what a
    /// killed process left in its write-ahead log.
    pub fn open(dir: &Path, options: EmbeddedOptions) -> Result<Self, OpenError> {
        let mut folder = Folder::open(dir)?;
        let database = |source| OpenError::of_database(dir, source);
        let synchronous = if broken(Mutant::FsyncLeftOut) { Synchronous::Off } else { options.synchronous };
        let conn = open_writer(&folder, synchronous).map_err(database)?;
        let cluster = database::cluster(&conn, &options, folder.mark()).map_err(|error| match error {
            ClusterError::Invalid(error) => OpenError::Shards(error),
            ClusterError::Other => OpenError::OtherDatabase { dir: dir.to_owned() },
            ClusterError::Database(error) => database(error),
        })?;
        let shard_map = cluster.shard_map;
        let leases = Arc::new(EmbeddedLeases::new(database::count_opening(&conn).map_err(database)?));
        folder.sync()?;
        folder.note_mark(&cluster.mark)?;
        let reserve = Reserve::new(folder.path(), options.reserve_bytes)
            .map_err(|source| OpenError::Io { path: folder.path().join(crate::RESERVE_FILE), source })?;
        let stop = Arc::new(Stop::new());
        let readers = Readers::open(&folder.database(), Arc::clone(&stop)).map_err(database)?;
        let history = database::history(&conn).map_err(database)?;
        let bounds = shard_map.shards().map(|shard| stored_bounds(&conn, shard)).collect::<Result<Vec<_>, _>>();
        let logs = Arc::new(Logs::new(&bounds.map_err(database)?, options.tail_bytes));
        let store = Store { queue: Arc::new(JobQueue::new()), readers: Arc::new(readers), logs, stop };
        let room = reserve.watched();
        Self::start(folder, conn, Parts { store, leases, shard_map, history, reserve, room, synchronous, options })
    }

    fn start(folder: Folder, conn: Connection, parts: Parts) -> Result<Self, OpenError> {
        let Parts { store, leases, shard_map, history, reserve, room, synchronous, options } = parts;
        let counters = Arc::new(Counters::default());
        let syncing = synchronous == Synchronous::Full;
        let writer = Writer {
            conn,
            queue: Arc::clone(&store.queue),
            logs: Arc::clone(&store.logs),
            stop: Arc::clone(&store.stop),
            counters: Arc::clone(&counters),
            upkeep: Upkeep::new(reserve, options.clock, syncing),
            group_wait: options.group_wait.min(GROUP_WAIT_MAX),
            syncing,
        };
        let path = folder.database();
        let work = move || {
            writer.run();
            // Last: nobody else may open the folder before the connection is closed.
            drop(folder);
        };
        let thread = thread::Builder::new().name("pli-writer".into()).spawn(work);
        let thread = thread.map_err(|source| OpenError::Io { path, source })?;
        let signals = EmbeddedSignals::default();
        let writer = Mutex::new(Some(thread));
        let inner = Inner { store, signals, leases, shard_map, history, counters, room, writer };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The shards of this folder, fixed when it was made.
    pub fn shard_map(&self) -> ShardMap {
        self.inner.shard_map
    }

    /// The id of the history that a restored backup began here ([`crate::begin_history`]); none where nothing was
    /// restored. Edges tell it to clients.
    pub fn history(&self) -> Option<[u8; 16]> {
        self.inner.history
    }

    /// The shard logs.
    pub fn shard_log(&self) -> Arc<dyn ShardLog> {
        Arc::new(EmbeddedShardLog { store: self.inner.store.clone() })
    }

    /// The device queues.
    pub fn device_queues(&self) -> Arc<dyn DeviceQueues> {
        let counters = Arc::clone(&self.inner.counters);
        Arc::new(EmbeddedDeviceQueues { store: self.inner.store.clone(), counters })
    }

    /// The accounts.
    pub fn accounts(&self) -> Arc<dyn Accounts> {
        Arc::new(EmbeddedAccounts { store: self.inner.store.clone() })
    }

    /// The conversations.
    pub fn conversations(&self) -> Arc<dyn Conversations> {
        Arc::new(EmbeddedConversations { store: self.inner.store.clone() })
    }

    /// The payloads.
    pub fn payloads(&self) -> Arc<dyn Payloads> {
        Arc::new(EmbeddedPayloads { store: self.inner.store.clone() })
    }

    /// The rendezvous.
    pub fn links(&self) -> Arc<dyn Links> {
        Arc::new(EmbeddedLinks { store: self.inner.store.clone() })
    }

    /// The uploads.
    pub fn media(&self) -> Arc<dyn Media> {
        Arc::new(EmbeddedMedia { store: self.inner.store.clone() })
    }

    /// The leases, which end with the process.
    pub fn leases(&self) -> Arc<dyn Leases> {
        Arc::clone(&self.inner.leases) as Arc<dyn Leases>
    }

    /// The bus, which ends with the process.
    pub fn signals(&self) -> Arc<dyn Signals> {
        Arc::new(self.inner.signals.clone())
    }

    /// What was counted since the folder was opened.
    pub fn stats(&self) -> EngineStats {
        self.inner.counters.read()
    }

    /// Whether the disk has room, now and from now on: while it has not, appends and other growth are refused. The channel
    /// closes with the engine.
    pub fn room(&self) -> watch::Receiver<bool> {
        self.inner.room.clone()
    }

    /// Resolves when an I/O error has stopped the engine: every call fails from then on and the process must end.
    pub fn failed(&self) -> impl Future<Output = EngineFailure> + Send + 'static {
        let stop = Arc::clone(&self.inner.store.stop);
        async move { stop.wait().await }
    }

    /// The failure that has stopped the engine, if one has.
    pub fn failure(&self) -> Option<EngineFailure> {
        self.inner.store.stop.reason()
    }

    /// Writes what waits, refuses everything after it and closes the folder. Idempotent.
    pub async fn close(&self) {
        let inner = Arc::clone(&self.inner);
        inner.begin_close();
        inner.store.readers.close().await;
        // Joining blocks for one commit and one checkpoint.
        let joined = tokio::task::spawn_blocking(move || inner.join()).await;
        if joined.is_err() {
            tracing::error!("the writer thread could not be waited for");
        }
    }
}

/// A disk so full that SQLite cannot even begin gets the reserve back first.
fn open_writer(folder: &Folder, synchronous: Synchronous) -> rusqlite::Result<Connection> {
    let open = || database::open_writer(&folder.database(), synchronous);
    match open() {
        Err(error) if is_full(&error) && std::fs::remove_file(folder.path().join(crate::RESERVE_FILE)).is_ok() => {
            open()
        }
        other => other,
    }
}

/// What [`EmbeddedEngine::open`] has found.
struct Parts {
    store: Store,
    leases: Arc<EmbeddedLeases>,
    shard_map: ShardMap,
    history: Option<[u8; 16]>,
    reserve: Reserve,
    room: watch::Receiver<bool>,
    synchronous: Synchronous,
    options: EmbeddedOptions,
}

impl Inner {
    fn begin_close(&self) {
        self.store.queue.close();
        self.store.logs.wake_all();
        self.signals.close();
    }

    fn join(&self) {
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the writer thread panicked");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.begin_close();
        self.join();
    }
}
