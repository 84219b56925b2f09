// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may open a connection, over any carrier, and how many may be open.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::sync::OwnedSemaphorePermit;

use crate::carrier::CarrierName;
use crate::edge::Edge;
use crate::tls::IdentityError;

/// Why a listener cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be listened on; with `AddrInUse` another process has the port.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The certificate or key cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Why a connection came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its address opens connections faster than `limits.address_connections` allows.
    Address,
    /// `limits.edge_connections_max` are open.
    Full,
    /// The edge goes down.
    Draining,
    /// TLS failed: no protocol in common, or no version, or garbage.
    Tls,
    /// The handshake took longer than `session.hello_ms`.
    Timeout,
    /// The peer or the transport ended it.
    Broken,
}

impl Reason {
    /// As a label.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Full => "full",
            Self::Draining => "draining",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
        }
    }
}

/// A connection counts as open as long as this lives.
pub(crate) struct Open {
    pub(crate) edge: Edge,
    carrier: CarrierName,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    /// Bounded by `limits.edge_connections_max` over all carriers, handshakes included, and by the rate of the address
    /// where one is given; a refusal is counted.
    pub(crate) fn admit(edge: &Edge, carrier: CarrierName, address: Option<IpAddr>) -> Option<Self> {
        let shared = edge.shared();
        if address.is_some_and(|address| shared.limits.connection(address).is_err()) {
            shared.metrics.handshake_refused(carrier, Reason::Address);
            return None;
        }
        let Ok(permit) = shared.room.clone().try_acquire_owned() else {
            shared.metrics.handshake_refused(carrier, Reason::Full);
            return None;
        };
        shared.metrics.connection(carrier, 1);
        Some(Self { edge: edge.clone(), carrier, _permit: permit })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.edge.shared().metrics.connection(self.carrier, -1);
    }
}
