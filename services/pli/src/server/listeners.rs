// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where an edge takes sessions: a TCP port, and a UDP port of the same number unless another one is named.

use std::io;
use std::net::SocketAddr;

use pli_edge::{Edge, Identity, ListenError, quic, ws};
use tokio_util::sync::CancellationToken;

use crate::config::ServerConfig;
use crate::exit::{Exit, Failure};

/// Where any free port is asked for, so many are tried until one is free for TCP and UDP.
const PORTS_TRIED: usize = 20;

/// One listener per carrier.
pub struct Listeners {
    ws: ws::Listener,
    quic: Option<quic::Listener>,
}

impl Listeners {
    /// Listens on everything that is configured.
    pub async fn bind(edge: &Edge, server: &ServerConfig, identity: &Identity) -> Result<Self, Failure> {
        let mut tried = 0;
        loop {
            tried += 1;
            let address = SocketAddr::new(server.host, server.port);
            let ws = ws::Listener::bind(edge.clone(), address, identity).await.map_err(|error| over(Tcp, error))?;
            if !server.quic {
                return Ok(Self { ws, quic: None });
            }
            let port = if server.quic_port == 0 { ws.address().port() } else { server.quic_port };
            match quic::Listener::bind(edge.clone(), SocketAddr::new(server.host, port), identity) {
                Ok(quic) => return Ok(Self { ws, quic: Some(quic) }),
                // The free TCP port that the system chose is somebody's UDP port.
                Err(error) if server.port == 0 && is_taken(&error) && tried < PORTS_TRIED => {}
                Err(error) => return Err(over(Udp, error)),
            }
        }
    }

    /// Where sessions over WebSocket, and server info, are served.
    pub fn address(&self) -> SocketAddr {
        self.ws.address()
    }

    /// Where sessions over QUIC are served.
    pub fn quic_address(&self) -> Option<SocketAddr> {
        self.quic.as_ref().map(quic::Listener::address)
    }

    /// Accepts until `stop`; returns when nothing more of an ending session is to be sent.
    pub async fn run(self, stop: CancellationToken) {
        let ws = self.ws.run(stop.clone());
        match self.quic {
            Some(quic) => drop(tokio::join!(ws, quic.run(stop))),
            None => ws.await,
        }
    }
}

enum Over {
    Tcp,
    Udp,
}

use Over::{Tcp, Udp};

fn is_taken(error: &ListenError) -> bool {
    matches!(error, ListenError::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
}

fn over(carrier: Over, error: ListenError) -> Failure {
    let ListenError::Bind { address, source } = &error else { return Failure::new(Exit::Folder, error) };
    let (udp, fix) = match carrier {
        Tcp => ("", "choose another port with --port of `pli dev`, or server.port (0 takes any free one)"),
        Udp => (
            " (UDP)",
            "choose another port with --port of `pli dev`, server.port or server.quic_port, or set server.quic to false",
        ),
    };
    let text = format_args!("cannot listen on {address}{udp}: {source}; end the process that listens there, or {fix}");
    Failure::say(Exit::Address, text)
}
