// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every port is built on: hand a write to the writer thread, run a read beside it.

use std::sync::Arc;

use pli_ports::StoreError;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::error::{Failure, Stop};
use crate::jobs::{Job, JobQueue, Need, Write};
use crate::logs::Logs;
use crate::readers::Readers;

#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) queue: Arc<JobQueue>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) stop: Arc<Stop>,
}

/// How a write is queued.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    /// In the words of the port.
    pub(crate) operation: &'static str,
    pub(crate) need: Need,
    /// What the job carries, roughly.
    pub(crate) bytes: usize,
}

impl Ask {
    pub(crate) const fn growth(operation: &'static str, bytes: usize) -> Self {
        Self { operation, need: Need::Growth, bytes }
    }
    pub(crate) const fn relief(operation: &'static str, bytes: usize) -> Self {
        Self { operation, need: Need::Relief, bytes }
    }
    pub(crate) const fn release(operation: &'static str, bytes: usize) -> Self {
        Self { operation, need: Need::Release, bytes }
    }
}

impl Store {
    /// Runs `work` in the writer's next transaction; answers when that is durable. `work` may run more than once,
    /// each time on the state before it.
    pub(crate) async fn write<T, F>(&self, ask: Ask, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.write_then(ask, work, |_| ()).await
    }

    /// As [`Store::write`]; `then` runs on the writer thread once the value is durable, before anyone is answered.
    pub(crate) async fn write_then<T, F, G>(&self, ask: Ask, work: F, then: G) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
        G: FnOnce(&T) + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let write = Writing { ask, work, value: None, then, reply };
        let queued = self.queue.push(Job::Write(Box::new(write)), ask.bytes).await;
        let outcome = match queued {
            Ok(()) => answer.await.unwrap_or(Err(Failure::Closed)),
            Err(failure) => Err(failure),
        };
        outcome.map_err(|failure| failure.into_store(ask.operation))
    }

    /// Runs `read` on a connection of its own.
    pub(crate) async fn read<T, F>(&self, operation: &'static str, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.readers.read(read).await.map_err(|failure| failure.into_store(operation))
    }
}

struct Writing<F, G, T> {
    ask: Ask,
    work: F,
    value: Option<T>,
    then: G,
    reply: oneshot::Sender<Result<T, Failure>>,
}

impl<F, G, T> Write for Writing<F, G, T>
where
    T: Send,
    F: FnMut(&Connection) -> rusqlite::Result<T> + Send,
    G: FnOnce(&T) + Send,
{
    fn need(&self) -> Need {
        self.ask.need
    }

    fn bytes(&self) -> usize {
        self.ask.bytes
    }

    fn run(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        self.value = Some((self.work)(conn)?);
        Ok(())
    }

    fn done(self: Box<Self>, outcome: Result<(), Failure>) {
        let this = *self;
        let answer = match (outcome, this.value) {
            (Ok(()), Some(value)) => {
                (this.then)(&value);
                Ok(value)
            }
            (Ok(()), None) => Err(Failure::Closed),
            (Err(failure), _) => Err(failure),
        };
        // Nobody listens after a dropped future; the write stands all the same.
        let _ = this.reply.send(answer);
    }
}
