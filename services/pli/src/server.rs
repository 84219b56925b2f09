// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server in this process: every role over the embedded engine.

pub mod certificate;
pub mod data_folder;
mod engine;
mod roles;
pub mod server_file;

use std::net::SocketAddr;
use std::path::PathBuf;

use pli_engine_embedded::EmbeddedEngine;
use pli_runtime::{AdminServer, BuildInfo, Health, Shutdown, Telemetry};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ServerConfig};
use crate::exit::{Exit, ExitContext, Failure};
use roles::{Ground, Roles};
use server_file::ServerFile;

/// Where server info stands.
const INFO_PATH: &str = "/.well-known/pli";

/// A running server.
pub struct Server {
    about: ServerFile,
    engine: EmbeddedEngine,
    roles: Roles,
    admin: JoinSet<Result<(), pli_runtime::AdminError>>,
    admin_stop: CancellationToken,
    health: Health,
    shutdown: Shutdown,
}

impl Server {
    /// Opens the data folder, binds both ports and starts every role; returns when it is ready.
    pub async fn start(config: &Config, shutdown: Shutdown) -> Result<Self, Failure> {
        let telemetry = Telemetry::new("pli").exit(Exit::Failed)?;
        let health = Health::default();
        let engine = engine::open(&config.server.data, &config.engine).await?;
        let data = std::path::absolute(&config.server.data)?;
        let host = config.server.host.to_string();
        let identity = certificate::open_or_create(&data, &host).exit(Exit::Folder)?;
        let fingerprint = hex::encode(identity.sha256());
        let ground = Ground::new(config, &engine, &telemetry);
        let wired = ground.wire(&identity).await?;
        let admin = admin(&config.server, &health, &telemetry).await?;
        let about = about(data, wired.address(), admin.local_addr(), fingerprint);
        let roles = wired.start(&engine, &health);
        let admin_stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(admin.run(admin_stop.clone()));
        health.wait_started().await;
        about.write(&about.data).exit(Exit::Folder)?;
        Ok(Self { about, engine, roles, admin: serving, admin_stop, health, shutdown })
    }

    /// Where it is.
    pub const fn about(&self) -> &ServerFile {
        &self.about
    }

    /// Serves until the first signal, then drains; returns when everything is closed, or the grace period is over.
    pub async fn wait(mut self) -> Result<(), Failure> {
        let failed = tokio::select! {
            biased;
            () = self.shutdown.draining.cancelled() => None,
            failure = self.engine.failed() => Some(Failure::new(Exit::Failed, failure)),
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
        self.admin_stop.cancel();
        while self.admin.join_next().await.is_some() {}
    }
}

async fn admin(config: &ServerConfig, health: &Health, telemetry: &Telemetry) -> Result<AdminServer, Failure> {
    let address = SocketAddr::new(config.admin_host, config.admin_port);
    let build = BuildInfo::new("pli", env!("CARGO_PKG_VERSION"));
    AdminServer::bind(address, health.clone(), telemetry.clone(), build).await.exit(Exit::Address)
}

fn about(data: PathBuf, address: SocketAddr, admin: SocketAddr, fingerprint: String) -> ServerFile {
    let url = format!("https://{address}{INFO_PATH}");
    ServerFile { url, address: address.to_string(), fingerprint, admin, data, pid: std::process::id() }
}
