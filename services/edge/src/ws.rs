// SPDX-License-Identifier: MIT OR Apache-2.0
//! WebSocket over TLS, with server info and health of the public side on the same port.

mod arrived;
mod begun;
mod http;
mod socket;

use std::net::SocketAddr;
use std::time::Duration;

use pli_domain::transcript::TLS_EXPORTER_LABEL;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::admission::{ListenError, Open, Reason};
use crate::carrier::{CarrierName, PeerInfo};
use crate::config::ms;
use crate::edge::Edge;
use crate::tls::Identity;
use arrived::CountedReads;

/// CountedReads below TLS, which shows nothing of a record before it is whole.
type Tls = TlsStream<CountedReads<TcpStream>>;

/// The protocol that ALPN names.
const ALPN: &[u8] = b"http/1.1";

/// Accepts connections for an edge. Bounded by `limits.edge_connections_max` connections, handshakes included; those
/// above it, and those above an address's rate, are dropped before TLS begins.
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    tls: TlsAcceptor,
    server_certificate_sha256: [u8; 32],
    edge: Edge,
}

impl Listener {
    /// Listens on `address`; port 0 takes a free one.
    pub async fn bind(edge: Edge, address: SocketAddr, identity: &Identity) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Bind { address, source };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        Ok(Self {
            address: tcp.local_addr().map_err(failed)?,
            tcp,
            tls: TlsAcceptor::from(identity.server_config(ALPN)?),
            server_certificate_sha256: identity.sha256(),
            edge,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `stop`; connections that are open go on until the edge has drained.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = self.tcp.accept() => match accepted {
                    Ok((tcp, address)) => self.begin(tcp, address),
                    Err(error) => {
                        // Out of file descriptors or the like: waiting is all that helps.
                        tracing::warn!(%error, "cannot accept connections");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }

    fn begin(&self, tcp: TcpStream, address: SocketAddr) {
        let Some(open) = Open::admit(&self.edge, CarrierName::WebSocket, Some(address.ip())) else { return };
        let (tls, certificate) = (self.tls.clone(), self.server_certificate_sha256);
        tokio::spawn(async move {
            let edge = open.edge.clone();
            let limit = ms(edge.shared().config.session.hello_ms);
            // The handshake's state is freed when it ends; the session is a task of its own.
            let handshake = Box::pin(handshake(tls, tcp, address, certificate, open));
            if tokio::time::timeout(limit, handshake).await.is_err() {
                edge.shared().metrics.handshake_refused(CarrierName::WebSocket, Reason::Timeout);
            }
        });
    }
}

async fn handshake(tls: TlsAcceptor, tcp: TcpStream, address: SocketAddr, certificate: [u8; 32], open: Open) {
    // Frames are small and latency counts; an error here shows again on the first read.
    let _ = tcp.set_nodelay(true);
    let stream = match tls.accept(CountedReads::new(tcp)).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            open.edge.shared().metrics.handshake_refused(CarrierName::WebSocket, Reason::Tls);
            return;
        }
    };
    let peer = PeerInfo {
        address: address.ip(),
        exporter: exporter(&stream),
        server_certificate_sha256: certificate,
        origin: None,
    };
    http::serve(stream, peer, open).await;
}

fn exporter(stream: &Tls) -> Option<[u8; 32]> {
    stream.get_ref().1.export_keying_material([0; 32], TLS_EXPORTER_LABEL, None).ok()
}
