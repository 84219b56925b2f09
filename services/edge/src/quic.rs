// SPDX-License-Identifier: MIT OR Apache-2.0
//! QUIC (RFC 9000): the session is one bidirectional stream. A connection survives a change of the client's address.
//!
//! A client's address may be somebody else's until it has answered something that was sent there. While many handshakes
//! of such addresses are under way, new ones are answered with a Retry packet, which keeps nothing here; a datagram of
//! another version is answered by a list of versions, which keeps nothing either. Both answers are smaller than what they
//! answer.

mod stream;
mod transport;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pli_api::quic::ALPN;
use pli_domain::transcript::TLS_EXPORTER_LABEL;
use quinn::{Connecting, Connection, ConnectionError, Endpoint, Incoming, TokioRuntime, VarInt};
use tokio_util::sync::CancellationToken;

use crate::admission::{ListenError, Open, Reason};
use crate::carrier::{CarrierName, PeerInfo};
use crate::config::ms;
use crate::edge::Edge;
use crate::tls::Identity;
use stream::Stream;

/// After the sessions have ended, so long is waited for their last packets.
const LAST_PACKETS: Duration = Duration::from_secs(3);
/// A TLS alert is a transport error from here on, plus the alert's number (RFC 9001 section 4.8).
const TLS_ALERTS: std::ops::Range<u64> = 0x100..0x200;

/// What a connection is for, as ALPN says.
enum Protocol {
    Session,
}

impl Protocol {
    /// WebTransport would be another word here (`h3`), on the same port. TLS lets nothing through that is not offered.
    fn of(connection: &Connection) -> Option<Self> {
        let data = connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
        match data.protocol.as_deref() {
            Some(protocol) if protocol == ALPN => Some(Self::Session),
            _ => None,
        }
    }
}

/// Accepts connections for an edge on one UDP port. Bounded by `limits.edge_connections_max`, as those of other carriers,
/// and by `limits.quic_unproven_max`.
pub struct Listener {
    endpoint: Endpoint,
    address: SocketAddr,
    server_certificate_sha256: [u8; 32],
    edge: Edge,
    /// Handshakes under way with addresses that may be somebody else's.
    unproven: Arc<AtomicUsize>,
}

impl Listener {
    /// Listens on `address`; port 0 takes a free one. Server info names the port from here on. Must be called within a
    /// tokio runtime.
    pub fn bind(edge: Edge, address: SocketAddr, identity: &Identity) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Bind { address, source };
        let session = &edge.shared().config.session;
        let server = transport::server_config(identity.server_config(ALPN)?, session)?;
        let socket = transport::socket(address).map_err(failed)?;
        let runtime = Arc::new(TokioRuntime);
        let config = transport::endpoint_config(identity);
        let endpoint = Endpoint::new(config, Some(server), socket, runtime).map_err(failed)?;
        let address = endpoint.local_addr().map_err(failed)?;
        edge.shared().quic_port.store(address.port(), Ordering::Relaxed);
        let server_certificate_sha256 = identity.sha256();
        Ok(Self { endpoint, address, server_certificate_sha256, edge, unproven: Arc::default() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `stop`, then refuses; connections that are open go on until the edge has drained, and then have a
    /// moment for their last packets.
    pub async fn run(self, stop: CancellationToken) {
        while let Some(incoming) = self.next(&stop).await {
            self.begin(incoming);
        }
        let config = &self.edge.shared().config;
        let drained = ms(config.drain_ms) + ms(config.drain_session_ms) + LAST_PACKETS;
        tokio::select! {
            () = self.refuse_all() => {}
            idle = tokio::time::timeout(drained, self.endpoint.wait_idle()) => if idle.is_err() {
                tracing::debug!(left = self.endpoint.open_connections(), "QUIC connections are cut");
            },
        }
    }

    /// The next client before `stop`.
    async fn next(&self, stop: &CancellationToken) -> Option<Incoming> {
        let incoming = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            incoming = self.endpoint.accept() => incoming,
        };
        if incoming.is_none() {
            tracing::error!("the UDP socket failed; there are no sessions over QUIC before the next start");
            stop.cancelled().await;
        }
        incoming
    }

    /// A word is sooner than silence for clients that come while the edge goes down.
    async fn refuse_all(&self) {
        while let Some(incoming) = self.endpoint.accept().await {
            incoming.refuse();
            self.edge.shared().metrics.handshake_refused(CarrierName::Quic, Reason::Draining);
        }
    }

    fn begin(&self, incoming: Incoming) {
        let shared = self.edge.shared();
        let address = incoming.remote_address().ip().to_canonical();
        let proven = incoming.remote_address_validated();
        let many = || self.unproven.load(Ordering::Relaxed) >= shared.config.limits.quic_unproven_max;
        if !proven && (many() || shared.limits.unproven(address).is_err()) {
            shared.metrics.quic_retries.add(1, &[]);
            // Who has not proven its address may always be asked to.
            let _ = incoming.retry();
            return;
        }
        let Some(open) = Open::admit(&self.edge, CarrierName::Quic, proven.then_some(address)) else {
            incoming.refuse();
            return;
        };
        let unproven = (!proven).then(|| Unproven::new(&self.unproven));
        let connecting = match incoming.accept() {
            Ok(connecting) => connecting,
            Err(error) => return refused(&self.edge, &error),
        };
        let certificate = self.server_certificate_sha256;
        tokio::spawn(async move {
            // Boxed, so that the session's task does not keep the room of the handshake.
            if let Some((stream, peer)) = Box::pin(handshake(connecting, address, certificate, &open)).await {
                drop(unproven);
                open.edge.serve(Box::new(stream), peer).await;
            }
        });
    }
}

/// A handshake with an address that may be somebody else's is under way as long as this lives.
struct Unproven(Arc<AtomicUsize>);

impl Unproven {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Unproven {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// From the first packet to a stream for the session, within the time of a hello.
async fn handshake(
    connecting: Connecting,
    address: IpAddr,
    certificate: [u8; 32],
    open: &Open,
) -> Option<(Stream, PeerInfo)> {
    let limit = ms(open.edge.shared().config.session.hello_ms);
    let opened = async {
        let connection = connecting.await?;
        let Some(Protocol::Session) = Protocol::of(&connection) else { return Err(ConnectionError::LocallyClosed) };
        let (send, recv) = connection.open_bi().await?;
        Ok((connection, send, recv))
    };
    let (connection, send, recv) = match tokio::time::timeout(limit, opened).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => {
            refused(&open.edge, &error);
            return None;
        }
        Err(_) => {
            open.edge.shared().metrics.handshake_refused(CarrierName::Quic, Reason::Timeout);
            return None;
        }
    };
    let mut exporter = [0; 32];
    let exported = connection.export_keying_material(&mut exporter, TLS_EXPORTER_LABEL, &[]);
    let peer = PeerInfo {
        address,
        exporter: exported.is_ok().then_some(exporter),
        server_certificate_sha256: certificate,
        origin: None,
    };
    let metrics = open.edge.shared().metrics.clone();
    Some((Stream::new(connection, send, recv, metrics), peer))
}

fn refused(edge: &Edge, error: &ConnectionError) {
    tracing::debug!(%error, "a QUIC handshake failed");
    let reason = match error {
        ConnectionError::TransportError(error) if TLS_ALERTS.contains(&u64::from(error.code)) => Reason::Tls,
        ConnectionError::TimedOut => Reason::Timeout,
        _ => Reason::Broken,
    };
    edge.shared().metrics.handshake_refused(CarrierName::Quic, reason);
}

/// How a stream or connection ends where nothing more is to be said.
const NO_ERROR: VarInt = VarInt::from_u32(0);
