// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bounds and socket of the QUIC endpoint.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use aws_lc_rs::hmac;
use pli_api::quic::{CONNECTION_WINDOW, STREAM_WINDOW, STREAMS_MAX};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;

use crate::config::{SessionConfig, ms};
use crate::tls::{Identity, IdentityError};

/// First packets that wait to be looked at; above it further ones are refused by the library.
const INCOMING_MAX: usize = 1_024;
/// Bytes behind a first packet that are kept until it was looked at.
const INCOMING_BYTES_MAX: u64 = 16 * 1024;
/// The same over all first packets.
const INCOMING_TOTAL_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Receive and send buffer that the system is asked for; it may give less (`net.core.rmem_max`, `wmem_max`). Every
/// connection shares them, so that a burst of all must fit.
const SOCKET_BYTES: usize = 4 * 1024 * 1024;

/// The endpoint's side of TLS, and its bounds.
pub(super) fn server_config(
    tls: Arc<rustls::ServerConfig>,
    session: &SessionConfig,
) -> Result<ServerConfig, IdentityError> {
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(Arc::new(transport_config(session)));
    server.migration(true);
    server.max_incoming(INCOMING_MAX);
    server.incoming_buffer_size(INCOMING_BYTES_MAX).incoming_buffer_size_total(INCOMING_TOTAL_BYTES_MAX);
    Ok(server)
}

/// The endpoint under keys that a server has again after a restart, and that every edge with its certificate has: a client
/// whose connection is not known here any more is told so at once (a stateless reset, RFC 9000 section 10.3) and connects
/// anew, instead of waiting for an answer.
pub(super) fn endpoint_config(identity: &Identity) -> EndpointConfig {
    let reset = hmac::Key::new(hmac::HMAC_SHA256, &identity.derived(b"pli-quic-reset-1"));
    let mut config = EndpointConfig::new(Arc::new(reset));
    let [a, b, c, d, e, f, g, h, ..] = identity.derived(b"pli-quic-connection-id-1");
    let key = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
    config
}

/// A session ends itself when nothing is heard of its client; the connection below it lives a little longer, so that the
/// session can say so.
fn transport_config(session: &SessionConfig) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(CONNECTION_WINDOW.into())
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(ms(session.idle_ms.saturating_mul(3) / 2)).ok());
    transport
}

/// A socket with room for bursts.
pub(super) fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    // With less, packets of a burst are lost and sent again.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BYTES);
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, SOCKET_BYTES);
    Ok(socket)
}
