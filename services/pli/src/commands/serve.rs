// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli serve`: some roles of the server, or all of them, for an installation.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use pli_runtime::{Shutdown, Sources, init_logs};

use super::dev::banner;
use crate::config::{Config, EngineKind};
use crate::exit::{Exit, ExitContext, Failure};
use crate::server::Server;
use crate::server::role::{Role, Roles};

/// Run some roles of the server, or all, for an installation.
///
/// With the engine `embedded` one process serves every role and keeps everything in its data folder: enough for a small
/// installation. With `cluster` the roles run in as many processes as you like, over NATS and CQL, which `pli migrate`
/// has prepared; processes of the same role share the work. SIGTERM drains: sessions are told to go elsewhere, shards
/// are handed over. docs/operations.md says what the engines must be.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pli serve --engine embedded --config /etc/pli.toml\n  pli serve --role edge --config edge.toml\n  pli serve --role delivery,conversations,directory,links,media --config core.toml"
)]
pub struct ServeArgs {
    /// The roles of this process, separated by commas; `all` names every one [default: all].
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROLE")]
    role: Vec<Named>,
    /// What keeps the messages [default: engine.kind of the configuration].
    #[arg(long, value_enum)]
    engine: Option<EngineKind>,
    /// When ready, print one line of JSON instead of the text for people.
    #[arg(long)]
    ready_json: bool,
    /// A TOML file; `pli config print` shows all its keys.
    #[arg(long, env = "PLI_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What --role names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    All,
    One(Role),
}

impl ValueEnum for Named {
    fn value_variants<'a>() -> &'a [Self] {
        const {
            let [edge, delivery, conversations, directory, links, media] = Role::ALL;
            &[
                Self::All,
                Self::One(edge),
                Self::One(delivery),
                Self::One(conversations),
                Self::One(directory),
                Self::One(links),
                Self::One(media),
            ]
        }
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::All => Some(PossibleValue::new("all").help("Every role")),
            Self::One(role) => role.to_possible_value(),
        }
    }
}

/// All where it is named or nothing is.
fn roles(named: &[Named]) -> Roles {
    let each = named.iter().map(|named| match named {
        Named::All => None,
        Named::One(role) => Some(*role),
    });
    each.collect::<Option<Vec<_>>>().map_or_else(Roles::all, |roles| Roles::named(&roles))
}

/// Runs `pli serve`.
pub async fn run(args: ServeArgs) -> Result<(), Failure> {
    let engine = args.engine.map(|kind| match kind {
        EngineKind::Embedded => "embedded",
        EngineKind::Cluster => "cluster",
    });
    let sources = Sources::from_process().file(args.config.clone()).flag("engine.kind", engine);
    let config = Config::load(&sources).exit(Exit::Config)?;
    init_logs(&config.logs).exit(Exit::Config)?;
    let shutdown = Shutdown::on_signals(std::time::Duration::from_secs(config.server.shutdown_grace_s))?;
    let server = Server::start(&config, &roles(&args.role), shutdown).await?;
    if args.ready_json {
        banner::print_json(server.about())?;
    } else {
        banner::print_roles(server.about())?;
    }
    server.wait().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_roles_are_named_by_one_word_or_none() {
        let one = Named::One(Role::Edge);
        assert_eq!(roles(&[one]), Roles::named(&[Role::Edge]));
        for named in [&[][..], &[Named::All], &[one, Named::All]] {
            assert_eq!(roles(named), Roles::all(), "{named:?}");
        }
        assert_eq!(Named::value_variants().len(), Role::ALL.len() + 1);
    }
}
