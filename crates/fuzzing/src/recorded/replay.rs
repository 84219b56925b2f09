// SPDX-License-Identifier: MIT OR Apache-2.0
//! The recorded clients against the server of today.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use pli_testkit::time::START;
use tokio::time::timeout;

use super::Session;
use crate::cluster::{Cluster, runtime};
use crate::line::{Happening, Line, What};
use crate::wire::PATIENCE;

/// What is heard after the last of what was recorded.
const REST: Duration = Duration::from_secs(1);

/// Says what the recorded clients said, byte for byte, at the times at which they said it, to a server of today with this
/// nonce; what happened then. Every frame waits until everything that was heard before it is heard again: `names` are of
/// what a frame of the server tells, so that it may come in other frames than it did. Where something does not come the
/// replay ends, and it is missing.
pub fn replay(session: &Session, nonce: [u8; 32], names: impl Fn(&Bytes) -> Vec<String>) -> Vec<Happening> {
    runtime().block_on(async {
        let mut replay = Replay { cluster: Cluster::recorded(nonce), names, open: BTreeMap::new() };
        for happening in &session.happenings {
            if !replay.happens(happening).await {
                break;
            }
        }
        tokio::time::sleep(REST).await;
        for open in replay.open.values_mut() {
            while open.line.try_hear().is_ok() {}
        }
        replay.cluster.happenings()
    })
}

struct Replay<F> {
    cluster: Cluster,
    names: F,
    open: BTreeMap<usize, Open>,
}

struct Open {
    line: Line,
    /// How often each name was heard, and how often it was by now in the recording.
    heard: BTreeMap<String, u32>,
    owed: BTreeMap<String, u32>,
}

impl<F: Fn(&Bytes) -> Vec<String>> Replay<F> {
    /// Whether it happened.
    async fn happens(&mut self, happening: &Happening) -> bool {
        let connection = happening.connection;
        match &happening.what {
            What::Opened(address) => {
                self.wait(happening.at_ms).await;
                let line = self.cluster.connect(*address);
                self.open.insert(connection, Open { line, heard: BTreeMap::new(), owed: BTreeMap::new() });
            }
            What::Said(frame) => {
                self.wait(happening.at_ms).await;
                return self.open.get(&connection).is_some_and(|open| open.line.say(frame.clone()));
            }
            What::Heard(frame) => return self.hears(connection, frame).await,
            What::HungUp => return self.hears_the_end(connection).await,
            What::Left => {
                self.wait(happening.at_ms).await;
                self.open.remove(&connection);
            }
        }
        true
    }

    async fn wait(&self, at_ms: u64) {
        let late = self.cluster.now().0.saturating_sub(START.0);
        tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(late))).await;
    }

    /// Whether everything comes that this frame told.
    async fn hears(&mut self, connection: usize, frame: &Bytes) -> bool {
        let Some(open) = self.open.get_mut(&connection) else { return false };
        for name in (self.names)(frame) {
            let owed = open.owed.entry(name.clone()).or_default();
            *owed += 1;
            while open.heard.get(&name).is_none_or(|heard| heard < owed) {
                let Ok(Some(frame)) = timeout(PATIENCE, open.line.hear()).await else { return false };
                for name in (self.names)(&frame) {
                    *open.heard.entry(name).or_default() += 1;
                }
            }
        }
        true
    }

    async fn hears_the_end(&mut self, connection: usize) -> bool {
        let Some(open) = self.open.get_mut(&connection) else { return false };
        loop {
            match timeout(PATIENCE, open.line.hear()).await {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }
}
