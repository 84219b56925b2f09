// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which carrier a connection gets: QUIC has a head start, WebSocket runs beside it where it is slow, the first one wins
//! (after RFC 8305, which does the same for address families).

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::shunned::Shunned;
use super::{CONNECT_TIMEOUT, Connection, Transport, TransportError, quic, ws};
use crate::driver::now;
use crate::trust::client_config;
use crate::{Fingerprint, ServerAddress};

/// What QUIC has for itself before WebSocket is tried beside it (the "connection attempt delay" of RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Opens connections to one server. It keeps the session tickets of earlier connections, so a later one resumes TLS
/// (RFC 8446 section 2.2) and spares the server its signature; an authentication is bound to the new connection all the
/// same. Cheap to clone; clones share the tickets, and what is known of the way to the server.
#[derive(Debug, Clone)]
pub struct Connector {
    transport: Transport,
    /// Where it is not the number of the TCP port.
    quic_port: Option<u16>,
    head_start: Duration,
    pin: Option<Fingerprint>,
    ws: ws::Dialer,
    quic: quic::Dialer,
    shunned: Arc<Mutex<Shunned>>,
}

impl Connector {
    /// With a pin, only the server that holds that certificate's key will do; without one any will, and the caller pins
    /// [`Connection::fingerprint`] before it trusts anything else.
    pub fn new(pin: Option<Fingerprint>, transport: Transport) -> Self {
        let tls = client_config(pin).expect("aws-lc-rs has cipher suites for TLS 1.3");
        // A store of tickets for each carrier: ALPN is part of what a ticket resumes.
        let for_quic = client_config(pin).expect("aws-lc-rs has cipher suites for TLS 1.3");
        Self {
            transport,
            quic_port: None,
            head_start: HEAD_START,
            pin,
            ws: ws::Dialer { tls: Arc::new(tls), pin },
            quic: quic::Dialer::new(for_quic, pin),
            shunned: Arc::default(),
        }
    }

    /// The UDP port of the server, where it is not the number of its TCP port.
    #[must_use]
    pub const fn quic_port(mut self, port: Option<u16>) -> Self {
        self.quic_port = port;
        self
    }

    /// Keeps in this file where QUIC does not work; without it, in memory.
    #[must_use]
    pub fn remembering(self, file: &Path) -> Self {
        Self { shunned: Arc::new(Mutex::new(Shunned::load(file))), ..self }
    }

    /// What QUIC has for itself before WebSocket is tried; a quarter of a second otherwise.
    #[must_use]
    pub const fn head_start(mut self, head_start: Duration) -> Self {
        self.head_start = head_start;
        self
    }

    /// The same that insists on this certificate from now on, without tickets of connections before.
    #[must_use]
    pub fn pinned(&self, pin: Fingerprint) -> Self {
        let Self { quic_port, head_start, .. } = *self;
        Self { quic_port, head_start, shunned: self.shunned.clone(), ..Self::new(Some(pin), self.transport) }
    }

    /// The certificate that is insisted on.
    pub const fn pin(&self) -> Option<Fingerprint> {
        self.pin
    }

    /// Connects to `address` within 10 s. Dropping the future leaves nothing open.
    pub async fn open(&self, address: &ServerAddress) -> Result<Connection, TransportError> {
        match self.transport {
            Transport::WebSocket => self.over_ws(address).await,
            Transport::Quic => self.over_quic(address).await,
            Transport::Auto if self.shuns(address) => self.over_ws(address).await,
            Transport::Auto => self.race(address).await,
        }
    }

    async fn over_ws(&self, address: &ServerAddress) -> Result<Connection, TransportError> {
        let late = |_| TransportError::Timeout(address.to_string());
        timeout(CONNECT_TIMEOUT, self.ws.open(address)).await.map_err(late)?
    }

    async fn over_quic(&self, address: &ServerAddress) -> Result<Connection, TransportError> {
        let port = self.quic_port.unwrap_or_else(|| address.port());
        let late = |_| TransportError::QuicTimeout { address: address.to_string(), port };
        timeout(CONNECT_TIMEOUT, self.quic.open(address, port)).await.map_err(late)?
    }

    /// What WebSocket says counts where neither succeeds: it is what must work.
    async fn race(&self, address: &ServerAddress) -> Result<Connection, TransportError> {
        let mut quic = Box::pin(self.over_quic(address));
        let begun = timeout(self.head_start, &mut quic).await;
        if let Ok(Ok(connection)) = begun {
            return Ok(connection);
        }
        let mut ws = Box::pin(self.over_ws(address));
        let mut quic_ended = begun.is_ok();
        let won = loop {
            tokio::select! {
                biased;
                connected = &mut quic, if !quic_ended => match connected {
                    Ok(connection) => return Ok(connection),
                    Err(error) => {
                        tracing::debug!(%error, "not over QUIC");
                        quic_ended = true;
                    }
                },
                connected = &mut ws => break connected,
            }
        };
        match won {
            Ok(connection) => {
                self.shun(address);
                Ok(connection)
            }
            // A moment for QUIC where only TCP is blocked; a server that is down is told without more ado.
            Err(error) if !quic_ended => match timeout(self.head_start, quic).await {
                Ok(Ok(connection)) => Ok(connection),
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    fn shuns(&self, address: &ServerAddress) -> bool {
        self.shunned.lock().unwrap_or_else(PoisonError::into_inner).holds(address, now())
    }

    fn shun(&self, address: &ServerAddress) {
        self.shunned.lock().unwrap_or_else(PoisonError::into_inner).add(address, now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> ServerAddress {
        text.parse().expect("an address")
    }

    #[test]
    fn what_is_known_of_the_way_outlives_the_pinning_of_a_certificate() {
        let connector = Connector::new(None, Transport::Auto);
        let pinned = connector.pinned(Fingerprint::of(b"certificate"));
        pinned.shun(&address("127.0.0.1:9"));
        assert!(connector.shuns(&address("127.0.0.1:9")) && !connector.shuns(&address("127.0.0.2:9")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_udp_port_that_swallows_everything_is_told_with_what_to_do() {
        let swallows = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = swallows.local_addr().expect("bound").port();
        let connector = Connector::new(None, Transport::Quic).quic_port(Some(port));
        let error = connector.open(&address("127.0.0.1:9")).await.expect_err("nobody answers");
        assert!(matches!(error, TransportError::QuicTimeout { port: asked, .. } if asked == port), "{error}");
        assert!(error.to_string().contains("--transport"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn where_neither_answers_what_websocket_says_counts() {
        let connector = Connector::new(None, Transport::Auto);
        let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
        let error = connector.open(&address(&closed.to_string())).await.expect_err("nobody listens");
        assert!(matches!(error, TransportError::Unreachable { .. }), "{error}");
        assert!(!connector.shuns(&address(&closed.to_string())), "nothing is known of QUIC then");
    }
}
