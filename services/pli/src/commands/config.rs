// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli config`: show or check the configuration.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pli_runtime::Sources;

use crate::config::{Config, EngineKind};
use crate::exit::{Exit, ExitContext, Failure};
use crate::terminal::{put, say};

/// Show or check the configuration.
///
/// Values come, the later winning, from: defaults, a TOML file (--config), environment variables, flags. A key in the
/// environment is written PLI_<SECTION>__<KEY>, for example PLI_SERVER__PORT=8000 or PLI_EDGE__SESSION__IDLE_MS=60000.
/// The elements of a list are separated by commas there. A key that nothing reads is an error, so a typing mistake is
/// found at start; another variable that begins with PLI_ and that nothing reads is warned of.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pli config print > pli.toml\n  pli config check --config pli.toml")]
pub struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the whole configuration in effect, as TOML that can be read back.
    Print(FileArgs),
    /// Check it; says nothing but `ok` when it is right.
    Check(FileArgs),
}

#[derive(Debug, Args)]
struct FileArgs {
    /// The TOML file.
    #[arg(long, env = "PLI_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder, as a server is given it; it stands as `server.data`.
    #[arg(long, env = "PLI_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What only a cluster needs, as far as no server has to be asked, and whatever the roles are: `pli doctor` asks.
fn check_cluster(config: &Config) -> Result<(), Failure> {
    if config.engine.kind != EngineKind::Cluster {
        return Ok(());
    }
    let (nats, cql) = (config.nats.options(config.engine.shards, Vec::new()), config.cql.options());
    match (config.nats.servers.is_empty(), config.cql.contact_points.is_empty()) {
        // Edges alone have no tables, links and media alone are not on the bus.
        (false, true) => nats.map(|_| ()),
        (true, false) => cql.map(|_| ()),
        _ => nats.map(|_| ()).and(cql.map(|_| ())),
    }?;
    if config.media.folder.as_os_str().is_empty() {
        crate::terminal::tell!("media.folder is empty: a process with the role media needs one that all of them share");
    }
    Ok(())
}

/// Runs `pli config`.
pub fn run(args: &ConfigArgs) -> Result<(), Failure> {
    let load = |file: &FileArgs| {
        let data = file.data.as_ref().map(|path| path.display());
        let sources = Sources::from_process().file(file.config.clone()).flag("server.data", data);
        Config::load(&sources).exit(Exit::Config)
    };
    match &args.action {
        Action::Print(file) => put(&toml::to_string(&load(file)?).exit(Exit::Config)?)?,
        Action::Check(file) => {
            let config = load(file)?;
            check_cluster(&config)?;
            say!("ok")?;
        }
    }
    Ok(())
}
