// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli migrate`: the streams and tables of a cluster.

use std::path::PathBuf;

use clap::Args;
use pli_runtime::{Sources, init_logs};

use crate::config::{Config, EngineKind};
use crate::exit::{Exit, ExitContext, Failure};
use crate::server::engine::migrate;
use crate::terminal::say;

/// Make or update the streams and tables of a cluster.
///
/// Creates what is missing on NATS and in the CQL keyspace and brings the rest up to this program's version. It may run
/// any number of times and twice at once, and never touches messages. Run it before the first start and before the
/// first process of a new version. Needs the operator's credentials (docs/operations.md).
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pli migrate --config operator.toml")]
pub struct MigrateArgs {
    /// The TOML file of the cluster.
    #[arg(long, env = "PLI_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs `pli migrate`.
pub async fn run(args: &MigrateArgs) -> Result<(), Failure> {
    let config = Config::load(&Sources::from_process().file(args.config.clone())).exit(Exit::Config)?;
    init_logs(&config.logs).exit(Exit::Config)?;
    if config.engine.kind != EngineKind::Cluster {
        let text = "engine.kind is \"embedded\", which needs no migration: a data folder is brought up to date when it \
                    is opened; set engine.kind = \"cluster\" to migrate NATS and CQL";
        return Err(Failure::say(Exit::Config, text));
    }
    let tables = migrate(&config).await?;
    say!("streams: {} with {} replicas, as configured", config.nats.streams, config.nats.replicas)?;
    if tables.from == tables.to {
        say!("tables: version {}, nothing to do", tables.to)
    } else {
        say!("tables: version {} to version {}", tables.from, tables.to)
    }
}
