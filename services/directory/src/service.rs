// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service value.

use std::sync::Arc;

use openmls_rust_crypto::RustCrypto;
use opentelemetry::metrics::Meter;
use pli_ports::{Accounts, Clock};

use crate::config::Config;
use crate::limits::Limits;
use crate::metrics::Metrics;

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
}

impl Directory {
    /// A directory over `accounts`. It holds nothing durable itself and needs no task of its own.
    pub fn new(accounts: Arc<dyn Accounts>, clock: Arc<dyn Clock>, config: Config, meter: &Meter) -> Self {
        let limits = Limits::new(&config);
        let metrics = Metrics::new(meter);
        let crypto = RustCrypto::default();
        Self { inner: Arc::new(Inner { accounts, clock, config, limits, metrics, crypto }) }
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("config", &self.inner.config).finish_non_exhaustive()
    }
}
