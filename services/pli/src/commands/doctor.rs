// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli doctor`: what would keep a server from running well, each finding with its fix.

mod checks;
mod cluster;
mod data;
mod finding;

use std::path::PathBuf;

use clap::Args;
use pli_runtime::Sources;

use crate::config::Config;
use crate::exit::{Exit, ExitContext, Failure};
use finding::{Finding, Level};

/// Look for what would keep a server from running well.
///
/// Looks at the ports, the clock, the disk, the limit of open files, the data folder's version and modes, and the storage
/// engine: the folder's own, or with engine.kind = "cluster" the NATS and CQL servers. It changes nothing and may run beside a server. Every finding names its fix; with any the exit code is 9.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pli doctor\n  pli doctor --data /var/lib/pli --config /etc/pli.toml\n  pli doctor --config cluster.toml"
)]
pub struct DoctorArgs {
    /// The data folder to look at.
    #[arg(long, env = "PLI_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// The TOML file of the server.
    #[arg(long, env = "PLI_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs `pli doctor`.
pub async fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let data = args.data.as_ref().map(|path| path.display());
    let sources = Sources::from_process().file(args.config.clone()).flag("server.data", data);
    let config = Config::load(&sources).exit(Exit::Config)?;
    let findings = checks::all(&config).await;
    findings.iter().try_for_each(Finding::print)?;
    let bad = findings.iter().filter(|finding| finding.level != Level::Fine).count();
    if bad == 0 {
        return Ok(());
    }
    let them = if bad == 1 { "1 finding".to_string() } else { format!("{bad} findings") };
    Err(Failure::say(Exit::Findings, format_args!("{them}; see the fixes above")))
}
