// SPDX-License-Identifier: MIT OR Apache-2.0
//! gRPC between roles in different processes: mutual TLS, deadlines, load shedding, health and reflection.

mod gate;
mod identity;
mod peers;
#[cfg(test)]
mod tests;
mod version;

use std::net::SocketAddr;
use std::time::Duration;

use pli_api::conversations::conversations_server::ConversationsServer;
use pli_api::directory::directory_server::DirectoryServer;
use pli_api::links::links_server::LinksServer;
use pli_api::media::media_server::MediaServer;
use pli_conversations::ConversationsService;
use pli_directory::Directory;
use pli_links::LinksService;
use pli_media::MediaService;
use pli_runtime::trail::Tracer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use super::traced::Following;
use crate::config::{InternalConfig, TlsMaterial};
use crate::exit::{Exit, ExitContext, Failure};
use gate::Gate;
use identity::from_edges;
pub use peers::Peers;
use version::understood;

/// A connection that stays silent for so long is asked whether it lives …
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
/// … and ends without an answer after so long.
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(5);

/// What this process serves to others.
pub struct Served {
    /// The directory, when it is in this process.
    pub directory: Option<Directory>,
    /// Conversations, when they are.
    pub conversations: Option<ConversationsService>,
    /// Links, when they are.
    pub links: Option<LinksService>,
    /// Media, when they are.
    pub media: Option<MediaService>,
    /// By which calls that are traced go on.
    pub tracer: Tracer,
}

/// The internal port, bound.
pub struct Internal {
    incoming: TcpIncoming,
    address: SocketAddr,
    tls: ServerTlsConfig,
    calls_max: usize,
    call_timeout: Duration,
}

impl Internal {
    /// Binds the port; nothing is served yet.
    pub async fn bind(config: &InternalConfig, material: &TlsMaterial) -> Result<Self, Failure> {
        let wanted = SocketAddr::new(config.host, config.port);
        let fix = "end the process that listens there, or set internal.port (0 takes any free one)";
        let failed = |e: std::io::Error| {
            Failure::say(Exit::Address, format_args!("cannot listen on {wanted} (internal): {e}; {fix}"))
        };
        let listener = TcpListener::bind(wanted).await.map_err(failed)?;
        let address = listener.local_addr()?;
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&material.certificate, &material.key))
            .client_ca_root(Certificate::from_pem(&material.ca));
        Ok(Self {
            incoming: TcpIncoming::from(listener).with_nodelay(Some(true)),
            address,
            tls,
            calls_max: config.calls_max,
            call_timeout: Duration::from_millis(config.call_timeout_ms),
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then answers what is open and ends.
    pub async fn run(self, served: Served, stop: CancellationToken) -> Result<(), Failure> {
        let (health, health_service) = tonic_health::server::health_reporter();
        if served.directory.is_some() {
            health.set_serving::<DirectoryServer<Directory>>().await;
        }
        if served.conversations.is_some() {
            health.set_serving::<ConversationsServer<ConversationsService>>().await;
        }
        if served.links.is_some() {
            health.set_serving::<LinksServer<LinksService>>().await;
        }
        if served.media.is_some() {
            health.set_serving::<MediaServer<MediaService>>().await;
        }
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pli_api::DESCRIPTORS)
            .build_v1()
            .exit(Exit::Failed)?;
        let server = Server::builder()
            .tls_config(self.tls)
            .map_err(|error| Failure::new(Exit::Config, anyhow::Error::new(error).context("internal TLS")))?
            .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
            .http2_keepalive_timeout(Some(KEEPALIVE_WITHIN))
            .concurrency_limit_per_connection(self.calls_max)
            .load_shed(true)
            .timeout(self.call_timeout)
            .layer(Gate(understood))
            .layer(Gate(from_edges))
            .layer(Following(served.tracer))
            .add_service(health_service)
            .add_service(reflection)
            .add_optional_service(served.directory.map(DirectoryServer::new))
            .add_optional_service(served.conversations.map(ConversationsServer::new))
            .add_optional_service(served.links.map(LinksServer::new))
            .add_optional_service(served.media.map(MediaServer::new));
        server.serve_with_incoming_shutdown(self.incoming, stop.cancelled_owned()).await.exit(Exit::Failed)
    }
}
