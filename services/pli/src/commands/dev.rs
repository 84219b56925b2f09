// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli dev`: every role of the server in one process.

pub mod banner;

use std::path::PathBuf;

use clap::Args;
use pli_runtime::{Shutdown, Sources, init_logs};

use crate::config::{Config, EngineKind};
use crate::exit::{Exit, ExitContext, Failure};
use crate::server::Server;
use crate::server::role::Roles;

/// Run every role of the server in one process, for a laptop.
///
/// Listens on the loopback address with a certificate of its own, keeps everything in one folder and prints the lines
/// to copy into two other terminals. Ctrl-C ends it cleanly; a second start finds everything again, also after a crash.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pli dev\n  pli dev --data /tmp/pli --port 8000\n  pli dev --ephemeral --port 0 --admin-port 0 --ready-json"
)]
pub struct DevArgs {
    /// The data folder; made when it does not exist [default: ./pli-data].
    #[arg(long, env = "PLI_DATA", value_name = "DIR", conflicts_with = "ephemeral")]
    data: Option<PathBuf>,
    /// Keep the data in a temporary folder that is removed at the end.
    #[arg(long)]
    ephemeral: bool,
    /// Port of sessions and server info; 0 takes any free one [default: 7480].
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Port of health, metrics and build; 0 takes any free one [default: 7481].
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
    /// When ready, print one line of JSON instead of the text for people.
    #[arg(long)]
    ready_json: bool,
    /// A TOML file; `pli config print` shows all its keys.
    #[arg(long, env = "PLI_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs `pli dev`.
pub async fn run(args: DevArgs) -> Result<(), Failure> {
    let sources = Sources::from_process()
        .file(args.config.clone())
        .flag("server.data", args.data.as_ref().map(|path| path.display()))
        .flag("server.port", args.port)
        // Who asks for any free port does not want a fixed one beside it.
        .flag("server.admin_port", args.admin_port.or_else(|| args.port.filter(|&port| port == 0)));
    let mut config = Config::load(&sources).exit(Exit::Config)?;
    init_logs(&config.logs).exit(Exit::Config)?;
    let temporary = args.ephemeral.then(tempfile::tempdir).transpose()?;
    if let Some(folder) = &temporary {
        config.server.data = folder.path().to_path_buf();
    }
    if config.engine.kind != EngineKind::Embedded {
        let text = "`pli dev` runs on the embedded engine; use `pli serve` with engine.kind = \"cluster\"";
        return Err(Failure::say(Exit::Config, text));
    }
    let shutdown = Shutdown::on_signals(std::time::Duration::from_secs(config.server.shutdown_grace_s))?;
    let server = Server::start(&config, &Roles::all(), shutdown).await?;
    if args.ready_json {
        banner::print_json(server.about())?;
    } else {
        banner::print(server.about())?;
    }
    server.wait().await
}
