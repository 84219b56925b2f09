// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections that only read. In WAL mode they never wait for the writer, and see every commit that returned before
//! the read began.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::database::open_reader;
use crate::error::{Failure, Stop};

/// Reads at one time; more wait.
const READERS: usize = 4;

pub(crate) struct Readers {
    free: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    stop: Arc<Stop>,
}

impl Readers {
    pub(crate) fn open(path: &Path, stop: Arc<Stop>) -> rusqlite::Result<Self> {
        let free = (0..READERS).map(|_| open_reader(path)).collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(Self { free: Mutex::new(free), permits: Arc::new(Semaphore::new(READERS)), stop })
    }

    /// Runs `read` on a thread for blocking work. Cancellation: the read still ends on its own.
    pub(crate) async fn read<T, F>(self: &Arc<Self>, read: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| Failure::Closed)?;
        let this = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            this.run(read)
        });
        work.await.unwrap_or(Err(Failure::Closed))
    }

    fn run<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Failure> {
        if let Some(reason) = self.stop.reason() {
            return Err(reason.into());
        }
        let conn = self.free().pop().ok_or(Failure::Closed)?;
        let result = read(&conn).map_err(|error| self.stop.note(Failure::of(error)));
        self.free().push(conn);
        result
    }

    /// Refuses further reads and waits for those that run.
    pub(crate) async fn close(&self) {
        let all = self.permits.acquire_many(READERS as u32).await;
        self.permits.close();
        drop(all);
        self.free().clear();
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
