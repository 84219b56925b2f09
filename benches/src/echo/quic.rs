// SPDX-License-Identifier: MIT OR Apache-2.0
//! The echo server over QUIC, with the library's own settings: one stream a connection, no frames.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, Incoming, RecvStream, SendStream, ServerConfig};

use super::Target;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Serves echoes until it is killed; prints address and certificate as the first line.
pub(super) async fn serve(tls: rustls::ServerConfig, certificate: &str) -> Result<()> {
    let crypto = QuicServerConfig::try_from(tls)?;
    let endpoint = Endpoint::server(ServerConfig::with_crypto(Arc::new(crypto)), ANY)?;
    println!("{} {certificate}", endpoint.local_addr()?);
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(echo(incoming));
    }
    Ok(())
}

async fn echo(incoming: Incoming) -> Result<()> {
    let (mut send, mut recv) = incoming.await?.accept_bi().await?;
    while let Some(chunk) = recv.read_chunk(usize::MAX, true).await? {
        send.write_chunk(chunk.bytes).await?;
    }
    Ok(())
}

async fn connect(target: &Target) -> Result<Connection> {
    let crypto = QuicClientConfig::try_from(target.tls.clone())?;
    let endpoint = Endpoint::client(ANY)?;
    let config = ClientConfig::new(Arc::new(crypto));
    Ok(endpoint.connect_with(config, target.address.parse()?, "localhost")?.await?)
}

/// A handshake that is closed at once.
pub(super) async fn handshake(target: &Target) -> Result<()> {
    connect(target).await?.close(0_u32.into(), b"");
    Ok(())
}

/// One stream of a connection of its own.
pub(super) struct Stream {
    send: SendStream,
    recv: RecvStream,
}

impl Stream {
    pub async fn open(target: &Target) -> Result<Self> {
        let (send, recv) = connect(target).await?.open_bi().await?;
        Ok(Self { send, recv })
    }

    /// Asks for one echo and waits for it.
    pub async fn echo(&mut self, bytes: usize) -> Result<()> {
        self.send.write_all(&vec![0xC3; bytes]).await?;
        let mut read = 0;
        while read < bytes {
            read += self.recv.read_chunk(usize::MAX, true).await?.context("an echo")?.bytes.len();
        }
        ensure!(read == bytes, "{read} bytes came back for {bytes}");
        Ok(())
    }
}
