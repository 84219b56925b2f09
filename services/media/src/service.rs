// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service value.

use std::sync::Arc;

use opentelemetry::metrics::Meter;
use pli_domain::UnixMillis;
use pli_ports::{Accounts, Clock, Media};

use crate::blobs::Blobs;
use crate::config::Config;
use crate::limits::Limits;
use crate::metrics::Metrics;

/// What the service needs.
#[derive(Clone)]
pub struct Ports {
    /// Uploads and the hashes of their parts.
    pub media: Arc<dyn Media>,
    /// Which devices an account has.
    pub accounts: Arc<dyn Accounts>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

/// The media service: a cheap handle over its stores, answering `pli.media.v1`.
#[derive(Clone)]
pub struct MediaService {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) ports: Ports,
    pub(crate) blobs: Blobs,
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
}

impl MediaService {
    /// A service over its ports and the objects. It holds nothing durable itself; run [`MediaService::run`] beside it.
    pub fn new(ports: Ports, blobs: Blobs, config: Config, meter: &Meter) -> Self {
        let limits = Limits::new(&config);
        let metrics = Metrics::new(meter);
        Self { inner: Arc::new(Inner { ports, blobs, config, limits, metrics }) }
    }
}

impl std::fmt::Debug for MediaService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MediaService").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Inner {
    /// What is left of a life, in milliseconds.
    pub(crate) fn left_ms(&self, expires_at: UnixMillis) -> u32 {
        u32::try_from(expires_at.since(self.ports.clock.now()).as_millis()).unwrap_or(u32::MAX)
    }
}
