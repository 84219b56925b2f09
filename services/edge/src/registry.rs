// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sessions of this edge. Bounded by the number of connections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pli_domain::{DeviceId, SessionId, ShardId};
use tokio::sync::Notify;

use crate::session::inbox::{End, Inbox};

struct Entry {
    inbox: Arc<Inbox>,
    /// None for an anonymous session.
    device: Option<(DeviceId, ShardId)>,
}

#[derive(Default)]
struct Tables {
    sessions: BTreeMap<SessionId, Entry>,
    devices: BTreeMap<DeviceId, SessionId>,
    shards: BTreeSet<(ShardId, SessionId)>,
    draining: bool,
}

/// The sessions of one edge, found by session, device and shard.
#[derive(Default)]
pub(crate) struct Registry {
    tables: Mutex<Tables>,
    emptied: Notify,
}

impl Registry {
    /// Enters a session; an older one of the same device on this edge is displaced at once. False while draining.
    pub(crate) fn enter(&self, id: SessionId, device: Option<(DeviceId, ShardId)>, inbox: &Arc<Inbox>) -> bool {
        let mut tables = self.lock();
        if tables.draining {
            return false;
        }
        if let Some((device, shard)) = device {
            tables.shards.insert((shard, id));
            let older = tables.devices.insert(device, id);
            if let Some(older) = older.and_then(|older| tables.sessions.get(&older)) {
                older.inbox.leave(|mail| mail.end = Some(End::Displaced));
            }
        }
        tables.sessions.insert(id, Entry { inbox: inbox.clone(), device });
        true
    }

    /// Removes a session.
    pub(crate) fn leave(&self, id: SessionId) {
        let mut tables = self.lock();
        let Some(entry) = tables.sessions.remove(&id) else { return };
        if let Some((device, shard)) = entry.device {
            tables.shards.remove(&(shard, id));
            if tables.devices.get(&device) == Some(&id) {
                tables.devices.remove(&device);
            }
        }
        if tables.sessions.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Waits until no session is left.
    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.len() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// The inbox of a session.
    pub(crate) fn session(&self, id: SessionId) -> Option<Arc<Inbox>> {
        self.lock().sessions.get(&id).map(|entry| entry.inbox.clone())
    }

    /// The inbox of a device's session.
    pub(crate) fn device(&self, device: DeviceId) -> Option<Arc<Inbox>> {
        let tables = self.lock();
        let session = tables.devices.get(&device)?;
        tables.sessions.get(session).map(|entry| entry.inbox.clone())
    }

    /// The inboxes of a shard's sessions, or of all.
    pub(crate) fn all(&self, shard: Option<ShardId>) -> Vec<Arc<Inbox>> {
        let tables = self.lock();
        match shard {
            None => tables.sessions.values().map(|entry| entry.inbox.clone()).collect(),
            Some(shard) => {
                let first = SessionId::from_bytes([0; 16]);
                let ids = tables.shards.range((shard, first)..).take_while(|(of, _)| *of == shard);
                ids.filter_map(|(_, id)| tables.sessions.get(id)).map(|entry| entry.inbox.clone()).collect()
            }
        }
    }

    /// From here on no session is entered.
    pub(crate) fn drain(&self) {
        self.lock().draining = true;
    }
    pub(crate) fn is_draining(&self) -> bool {
        self.lock().draining
    }
    pub(crate) fn len(&self) -> usize {
        self.lock().sessions.len()
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
