// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service value.

use std::sync::Arc;

use opentelemetry::metrics::Meter;
use pli_domain::UnixMillis;
use pli_ports::{Clock, Links};

use crate::config::Config;
use crate::limits::Limits;
use crate::metrics::Metrics;

/// The links service: a cheap handle over its store, answering `pli.links.v1`.
#[derive(Clone)]
pub struct LinksService {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) links: Arc<dyn Links>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
}

impl LinksService {
    /// A service over `links`. It holds nothing durable itself; run [`LinksService::run`] beside it.
    pub fn new(links: Arc<dyn Links>, clock: Arc<dyn Clock>, config: Config, meter: &Meter) -> Self {
        let limits = Limits::new(&config);
        let metrics = Metrics::new(meter);
        Self { inner: Arc::new(Inner { links, clock, config, limits, metrics }) }
    }
}

impl std::fmt::Debug for LinksService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinksService").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Inner {
    /// What is left of a life, in milliseconds.
    pub(crate) fn left_ms(&self, expires_at: UnixMillis) -> u32 {
        u32::try_from(expires_at.since(self.clock.now()).as_millis()).unwrap_or(u32::MAX)
    }
}
