// SPDX-License-Identifier: MIT OR Apache-2.0
//! One history at a time, and its work on threads that may block: an archive has up to 64 MiB to seal, to open, to write and
//! to read.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::HandoverError;
use crate::StorageError;

/// Calls of one client, which share its files and numbers: they go one after the other.
#[derive(Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<()>>);

/// Whose turn it is. Its work keeps the turn until it is done, also when the caller has given up meanwhile.
pub(super) struct Turn(Arc<OwnedMutexGuard<()>>);

impl Turns {
    /// Waits until every call before is over. Cancel safe.
    pub(super) async fn next(&self) -> Turn {
        Turn(Arc::new(Arc::clone(&self.0).lock_owned().await))
    }
}

impl Turn {
    /// Does it on a thread that may block. Once begun it goes on to its end.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, HandoverError> + Send + 'static,
    ) -> Result<T, HandoverError> {
        let turn = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        done.await.map_err(|_| StorageError::Stopped)?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_call_waits_for_the_one_before_and_for_work_that_its_caller_gave_up() {
        let turns = Turns::default();
        let first = turns.next().await;
        assert!(turns.clone().next().now_or_never().is_none(), "one at a time");
        let (go, wait) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        let work = first.work(move || {
            begun.send(()).expect("somebody waits");
            wait.recv().expect("told to go on");
            Ok(())
        });
        assert!(work.now_or_never().is_none(), "begun, and given up");
        begins.recv().expect("it goes on by itself");
        drop(first);
        assert!(turns.next().now_or_never().is_none(), "its work is not over");
        go.send(()).expect("it is still there");
        let _second = turns.next().await;
    }

    #[tokio::test]
    async fn work_is_done_beside_the_threads_that_must_not_block() {
        let turn = Turns::default().next().await;
        let there = turn.work(|| Ok(thread::current().id())).await.expect("done");
        assert_ne!(there, thread::current().id());
        let failed = turn.work(|| Err::<(), _>(HandoverError::Nothing)).await;
        assert!(matches!(failed, Err(HandoverError::Nothing)), "{failed:?}");
    }
}
