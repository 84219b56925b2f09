// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service value.

use std::sync::Arc;

use openmls_rust_crypto::RustCrypto;
use opentelemetry::metrics::Meter;
use pli_domain::ShardMap;
use pli_ports::{Accounts, Clock, Signals};

use crate::config::Config;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::removals::Removals;

/// What the directory stands on.
#[derive(Clone)]
pub struct Ports {
    /// Accounts, their device lists and key packages.
    pub accounts: Arc<dyn Accounts>,
    /// Edges and shard owners hear by it which devices were removed.
    pub signals: Arc<dyn Signals>,
    /// Server time.
    pub clock: Arc<dyn Clock>,
}

/// The directory: a cheap handle over its store, answering `pli.directory.v1`.
#[derive(Clone)]
pub struct Directory {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) accounts: Arc<dyn Accounts>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) crypto: RustCrypto,
    pub(crate) removals: Removals,
}

impl Directory {
    /// A directory over `ports` for a cluster with this map of shards. It holds nothing durable itself. Run
    /// [`Directory::run`] beside it.
    pub fn new(ports: Ports, shards: ShardMap, config: Config, meter: &Meter) -> Self {
        let Ports { accounts, signals, clock } = ports;
        let removals = Removals::new(accounts.clone(), signals, shards);
        let limits = Limits::new(&config);
        let metrics = Metrics::new(meter);
        let crypto = RustCrypto::default();
        Self { inner: Arc::new(Inner { accounts, clock, config, limits, metrics, crypto, removals }) }
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("config", &self.inner.config).finish_non_exhaustive()
    }
}
