// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use pli_client::{Fingerprint, InvalidServerAddress, ServerAddress, Suite, Transport};

use crate::commands::{
    backup, chat, config, dev, device, doctor, explain, group, migrate, pipe, recv, restore, send, serve,
};
use crate::exit::TABLE;

/// End-to-end encrypted messaging: server and clients in one binary.
///
/// Try it in three terminals: `pli dev` starts a server, `pli chat alice` and `pli chat bob` open two
/// conversations with it. The server prints the lines to copy.
#[derive(Debug, Parser)]
#[command(name = "pli", version, after_help = TABLE, max_term_width = 110, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands, each in a file of its own.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run every role of the server in one process, for a laptop.
    Dev(dev::DevArgs),
    /// Run some roles of the server, or all, for an installation.
    Serve(serve::ServeArgs),
    /// Make or update the streams and tables of a cluster.
    Migrate(migrate::MigrateArgs),
    /// Chat in the terminal.
    Chat(chat::ChatArgs),
    /// Send a message.
    Send(send::SendArgs),
    /// Print what arrives.
    Recv(recv::RecvArgs),
    /// Send what is read, print what arrives.
    Pipe(pipe::PipeArgs),
    /// Make groups and change who is in them.
    Group(group::GroupArgs),
    /// Add, list, rename and remove the devices of an account.
    Device(device::DeviceArgs),
    /// Show or check the configuration.
    Config(config::ConfigArgs),
    /// Copy a server's data, also while it runs.
    Backup(backup::BackupArgs),
    /// Make a data folder from a backup.
    Restore(restore::RestoreArgs),
    /// Look for what would keep a server from running well.
    Doctor(doctor::DoctorArgs),
    /// Follow one message through the server's processes.
    Explain(explain::ExplainArgs),
}

/// A server's address as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedServer {
    /// The address.
    pub address: ServerAddress,
    /// No port was written, and none that a scheme means.
    pub without_port: bool,
}

impl FromStr for NamedServer {
    type Err = InvalidServerAddress;
    fn from_str(text: &str) -> Result<Self, InvalidServerAddress> {
        let (text, address) = (text.trim(), text.trim().parse::<ServerAddress>()?);
        // Behind the bracket of an IPv6 address, whose own colons are none.
        let behind = text.trim_end_matches('/').rsplit(']').next().unwrap_or_default();
        let written = text.starts_with("https://") || behind.contains(':');
        Ok(Self { address, without_port: !written })
    }
}

/// Which server and which profiles a client command uses.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// Log lines on standard error, for example `debug` or pli_client=debug; left out, errors of this program's own, and
    /// nothing of the libraries in it.
    #[arg(long, env = "PLI_LOG", value_name = "FILTER", default_value = "off,pli=error")]
    pub log: String,
    /// The server, as HOST:PORT; several addresses of it with commas or with the flag again.
    ///
    /// The first one names the profile; whenever a connection is lost or cannot be had, the next one is tried, in turn. All
    /// must have the same certificate: a command ends where each of them shows another one than is pinned, and after a minute
    /// where it was connected before. Left out, it is read from the file `server.json` that `pli dev` writes into its
    /// data folder and leaves there (see --data).
    #[arg(long, env = "PLI_SERVER", value_name = "HOST:PORT", value_delimiter = ',')]
    pub server: Vec<NamedServer>,
    /// What to connect over: `quic`, `ws` (WebSocket), or `auto`, which is QUIC where it works and else WebSocket.
    #[arg(long, env = "PLI_TRANSPORT", value_name = "auto|quic|ws", default_value = "auto")]
    pub transport: Transport,
    /// The server's UDP port for QUIC, where it is not the number of --server.
    #[arg(long, env = "PLI_QUIC_PORT", value_name = "PORT")]
    pub quic_port: Option<u16>,
    /// The data folder of a `pli dev` on this machine; its address and certificate are taken from there.
    #[arg(long, env = "PLI_DATA", value_name = "DIR", default_value = "pli-data")]
    pub data: PathBuf,
    /// The fingerprint of the server's certificate, as `pli dev` prints it.
    ///
    /// Left out, the one in the data folder counts, else the first certificate seen. The one of the first connection is
    /// trusted from then on; one that no server has shown is not kept.
    #[arg(long, value_name = "HEX")]
    pub fingerprint: Option<Fingerprint>,
    /// Where profiles (keys, history, outbox) live; each in <HOME>/<server>/<handle>, a companion device in <handle>+<name>.
    ///
    /// Left out: $XDG_DATA_HOME/pli, else ~/.local/share/pli.
    #[arg(long, env = "PLI_HOME", value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// The MLS suite of a handle that is new: `0x0001`, `0x0003`, or `0x004f`, which is proof against quantum computers.
    ///
    /// The last one needs a server with directory.post_quantum, and without it no handle is registered. Devices of different
    /// suites cannot write to each other; a handle that is registered keeps its own.
    #[arg(
        long,
        env = "PLI_SUITE",
        value_name = "0x0001|0x0003|0x004f",
        default_value = "0x0001",
        hide_short_help = true
    )]
    pub suite: Suite,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_not_written_is_known() {
        let without = |text: &str| text.parse::<NamedServer>().map(|named| named.without_port).ok();
        for (text, is_without) in [("localhost", true), ("10.0.0.443", true), ("[::1]", true), ("[::443]", true)] {
            assert_eq!(without(text), Some(is_without), "{text}");
        }
        for text in ["localhost:443", "https://chat.example/", " [::1]:7480", "10.0.0.1:443/"] {
            assert_eq!(without(text), Some(false), "{text}");
        }
        assert_eq!(without("host:"), None);
    }
}
