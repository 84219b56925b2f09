// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connecting, and handing out the ports.

use std::fmt;
use std::sync::Arc;

use pli_ports::{Leases, ShardLog, Signals};

use crate::leases::NatsLeases;
use crate::link::Link;
use crate::shard_log::NatsShardLog;
use crate::signals::NatsSignals;
use crate::{ConnectError, NatsOptions};

/// Most appends in flight that can be asked for.
const IN_FLIGHT_MAX: u32 = 65_536;

/// A connection to a NATS cluster; clones share it. It closes when the last clone and the last port are dropped.
#[derive(Clone)]
pub struct NatsEngine {
    pub(crate) link: Arc<Link>,
    pub(crate) options: Arc<NatsOptions>,
    shard_log: Arc<NatsShardLog>,
    leases: Arc<NatsLeases>,
}

impl fmt::Debug for NatsEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsEngine").field("servers", &self.options.servers).finish_non_exhaustive()
    }
}

impl NatsEngine {
    /// Connects to the first server that answers; later the connection comes back by itself. Errors when none answers
    /// or the credentials are refused.
    pub async fn connect(options: NatsOptions) -> Result<Self, ConnectError> {
        options.layout.validate()?;
        if options.in_flight_max == 0 || options.in_flight_max > IN_FLIGHT_MAX {
            let text = format!("in_flight_max = {} is not from 1 to {IN_FLIGHT_MAX}", options.in_flight_max);
            return Err(ConnectError::Options(text));
        }
        let link = Link::connect(&options).await?;
        let options = Arc::new(options);
        let shard_log = Arc::new(NatsShardLog::new(Arc::clone(&link), Arc::clone(&options)));
        let leases = Arc::new(NatsLeases::new(Arc::clone(&link), options.layout.shards));
        Ok(Self { link, options, shard_log, leases })
    }

    /// The shard logs.
    pub fn shard_log(&self) -> Arc<dyn ShardLog> {
        Arc::clone(&self.shard_log) as Arc<dyn ShardLog>
    }

    /// The bus.
    pub fn signals(&self) -> Arc<dyn Signals> {
        Arc::new(NatsSignals::new(Arc::clone(&self.link), self.options.protocol))
    }

    /// The leases.
    pub fn leases(&self) -> Arc<dyn Leases> {
        Arc::clone(&self.leases) as Arc<dyn Leases>
    }

    /// Whether the connection is up now; it comes back by itself.
    pub fn is_connected(&self) -> bool {
        self.link.happened().borrow().up
    }

    /// Sends what waits, then ends every subscription and the connection. Idempotent.
    pub async fn close(&self) {
        if let Err(error) = self.link.client.drain().await {
            tracing::debug!(%error, "the connection was closed already");
        }
    }
}
