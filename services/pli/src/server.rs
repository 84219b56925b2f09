// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server in this process: its roles over an engine.

pub mod certificate;
pub mod data_folder;
pub mod engine;
mod internal;
mod listeners;
mod no_media;
pub mod role;
mod roles;
pub mod server_file;
mod traced;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use pli_edge::Identity;
use pli_runtime::trail::Tracer;
use pli_runtime::{AdminServer, BuildInfo, Health, Shutdown, Telemetry, Trail};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ServerConfig, read_pem};
use crate::exit::{Exit, ExitContext, Failure};
use engine::Engine;
use listeners::Listeners;
use role::{Role, Roles};
use roles::{Ground, Running};
use server_file::ServerFile;

/// Where server info stands.
const INFO_PATH: &str = "/.well-known/pli";

/// A running server.
pub struct Server {
    about: About,
    engine: Engine,
    roles: Running,
    admin: JoinSet<Result<(), pli_runtime::AdminError>>,
    admin_stop: CancellationToken,
    health: Health,
    tracer: Tracer,
    shutdown: Shutdown,
}

impl Server {
    /// Opens the engine, binds the ports and starts these roles; returns when they are ready. Errors also when an engine
    /// or role fails meanwhile, or a signal ends the process before it was ready.
    pub async fn start(config: &Config, roles: &Roles, shutdown: Shutdown) -> Result<Self, Failure> {
        let draining = shutdown.draining.clone();
        tokio::select! {
            biased;
            started = Self::begin(config, roles, shutdown) => started,
            () = draining.cancelled() => Err(Failure::say(Exit::Failed, "ended by a signal before it was ready")),
        }
    }

    async fn begin(config: &Config, roles: &Roles, shutdown: Shutdown) -> Result<Self, Failure> {
        let telemetry = Telemetry::new("pli").exit(Exit::Failed)?;
        let trail = Trail::new(&config.telemetry, &roles.to_string()).exit(Exit::Config)?;
        let health = Health::default();
        let engine = Engine::open(config, roles).await?;
        let data = std::path::absolute(&config.server.data)?;
        let identity = roles.has(Role::Edge).then(|| identity(config, &data)).transpose()?;
        let ground = Ground::new(config, &engine, (&telemetry, &trail), roles)?;
        let wired = ground.wire(identity.as_ref()).await?;
        let admin = admin(&config.server, &health, (&telemetry, &trail)).await?;
        let sessions = wired.listeners().zip(identity).map(|(listeners, shown)| Sessions::new(listeners, &shown));
        let about = About {
            roles: roles.clone(),
            sessions,
            internal: wired.internal(),
            admin: admin.local_addr(),
            data,
            pid: std::process::id(),
        };
        let mut roles = wired.start(&engine, &health);
        let admin_stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(admin.run(admin_stop.clone()));
        tokio::select! {
            biased;
            failure = engine.failed() => return Err(failure),
            failure = roles.failed() => return Err(failure),
            () = health.wait_started() => {}
        }
        about.write_file()?;
        Ok(Self { about, engine, roles, admin: serving, admin_stop, health, tracer: trail.tracer, shutdown })
    }

    /// Where it is.
    pub const fn about(&self) -> &About {
        &self.about
    }

    /// Serves until the first signal, then drains; returns when everything is closed, or the grace period is over.
    pub async fn wait(mut self) -> Result<(), Failure> {
        let failed = tokio::select! {
            biased;
            () = self.shutdown.draining.cancelled() => None,
            failure = self.engine.failed() => Some(failure),
            failure = self.roles.failed() => Some(failure),
        };
        self.health.dependency("process").not_ready("draining");
        let stop = self.shutdown.stop.clone();
        // A failure starts the grace period too.
        self.shutdown.draining.cancel();
        let drained = tokio::select! {
            biased;
            () = self.close() => true,
            () = stop.cancelled() => false,
        };
        match (failed, drained) {
            (Some(failure), _) => Err(failure),
            (None, true) => Ok(()),
            (None, false) => Err(Failure::say(Exit::Failed, "not everything ended within the grace period")),
        }
    }

    async fn close(&mut self) {
        self.roles.close().await;
        self.engine.close().await;
        self.tracer.close().await;
        self.admin_stop.cancel();
        while self.admin.join_next().await.is_some() {}
    }
}

async fn admin(
    config: &ServerConfig,
    health: &Health,
    (telemetry, trail): (&Telemetry, &Trail),
) -> Result<AdminServer, Failure> {
    let address = SocketAddr::new(config.admin_host, config.admin_port);
    let build = BuildInfo::new("pli", env!("CARGO_PKG_VERSION"));
    let (health, telemetry, hops) = (health.clone(), telemetry.clone(), trail.hops.clone());
    AdminServer::bind(address, health, telemetry, hops, build).await.exit(Exit::Address)
}

/// What the edge shows to clients: the certificate that is configured, else a self-made one in the data folder.
fn identity(config: &Config, data: &Path) -> Result<Identity, Failure> {
    let server = &config.server;
    if server.certificate_file.as_os_str().is_empty() {
        make_folder(data)?;
        return certificate::open_or_create(data, &server.host.to_string()).exit(Exit::Folder);
    }
    let chain = read_pem("server.certificate_file", &server.certificate_file)?;
    Identity::from_pem(&chain, &read_pem("server.key_file", &server.key_file)?).exit(Exit::Config)
}

/// An embedded engine has made it already.
fn make_folder(data: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data);
    made.map_err(|error| Failure::say(Exit::Folder, format_args!("cannot make {}: {error}", data.display())))
}

/// Where a running server is, also as one line of JSON.
#[derive(Debug, Clone, Serialize)]
pub struct About {
    /// What it does.
    pub roles: Roles,
    /// Where clients reach it; only an edge has it.
    #[serde(flatten)]
    pub sessions: Option<Sessions>,
    /// Where other processes reach its directory, conversations, links and media.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal: Option<SocketAddr>,
    /// Health, metrics, build.
    pub admin: SocketAddr,
    /// The data folder.
    pub data: PathBuf,
    /// The process.
    pub pid: u32,
}

/// Where clients reach an edge.
#[derive(Debug, Clone, Serialize)]
pub struct Sessions {
    /// Server info.
    pub url: String,
    /// Host and port of sessions over WebSocket.
    pub address: String,
    /// Host and UDP port of sessions over QUIC, where they are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quic: Option<SocketAddr>,
    /// SHA-256 of the certificate in hexadecimal.
    pub fingerprint: String,
}

impl Sessions {
    fn new(listeners: &Listeners, identity: &Identity) -> Self {
        let (address, quic) = (listeners.address(), listeners.quic_address());
        let url = format!("https://{address}{INFO_PATH}");
        Self { url, address: address.to_string(), quic, fingerprint: hex::encode(identity.sha256()) }
    }
}

impl About {
    /// Writes `server.json`, by which clients on this machine find an edge.
    fn write_file(&self) -> Result<(), Failure> {
        let Some(Sessions { url, address, quic, fingerprint }) = self.sessions.clone() else { return Ok(()) };
        let (admin, data, pid) = (self.admin, self.data.clone(), self.pid);
        make_folder(&data)?;
        ServerFile { url, address, quic, fingerprint, admin, data, pid }.write(&self.data).exit(Exit::Folder)
    }
}
