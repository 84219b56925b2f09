// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opening the database.

use std::fmt;
use std::sync::Arc;

use pli_ports::{Accounts, Conversations, DeviceQueues, Links, Media, Payloads};

use crate::accounts::CqlAccounts;
use crate::conversations::CqlConversations;
use crate::device_queues::CqlDeviceQueues;
use crate::links::CqlLinks;
use crate::media::CqlMedia;
use crate::payloads::CqlPayloads;
use crate::schema::{check_keyspace, connect};
use crate::store::Store;
use crate::{CqlOptions, OpenError};

/// An open session; clones share it. A retry of what was decided knows its own win through the same opening.
#[derive(Clone)]
pub struct CqlEngine {
    store: Arc<Store>,
}

impl fmt::Debug for CqlEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CqlEngine").finish_non_exhaustive()
    }
}

impl CqlEngine {
    /// Connects, checks keyspace and schema ([`crate::check`]) and prepares every statement.
    pub async fn open(options: &CqlOptions) -> Result<Self, OpenError> {
        let session = connect(options).await?;
        check_keyspace(&session, options).await?;
        let using = session.use_keyspace(options.keyspace.as_str(), false).await;
        using.map_err(OpenError::statement("using the keyspace"))?;
        Ok(Self { store: Arc::new(Store::new(session, options).await?) })
    }

    /// The device queues.
    pub fn device_queues(&self) -> Arc<dyn DeviceQueues> {
        Arc::new(CqlDeviceQueues { store: Arc::clone(&self.store) })
    }

    /// The accounts.
    pub fn accounts(&self) -> Arc<dyn Accounts> {
        Arc::new(CqlAccounts { store: Arc::clone(&self.store) })
    }

    /// The conversations.
    pub fn conversations(&self) -> Arc<dyn Conversations> {
        Arc::new(CqlConversations { store: Arc::clone(&self.store) })
    }

    /// The rendezvous.
    pub fn links(&self) -> Arc<dyn Links> {
        Arc::new(CqlLinks { store: Arc::clone(&self.store) })
    }

    /// The uploads.
    pub fn media(&self) -> Arc<dyn Media> {
        Arc::new(CqlMedia { store: Arc::clone(&self.store) })
    }

    /// The payloads.
    pub fn payloads(&self) -> Arc<dyn Payloads> {
        Arc::new(CqlPayloads { store: Arc::clone(&self.store) })
    }

    /// Whether a quorum of the keyspace's replicas answers, asked once and not repeated.
    pub async fn answers(&self) -> Result<(), OpenError> {
        self.store.probe().await
    }

    /// Statements and batches sent since the opening, repetitions included.
    pub fn statements_sent(&self) -> u64 {
        self.store.sent()
    }
}
