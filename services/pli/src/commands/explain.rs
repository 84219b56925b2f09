// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli explain`: the way of one message through all processes.

mod ask;
mod gaps;
mod print;
mod story;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use futures::StreamExt;
use pli_domain::SendId;
use pli_runtime::Sources;
use pli_runtime::trail::{HopKind, HopQuery, NOWHERE, PLACE_MASK, tag};

use crate::config::Config;
use crate::exit::{Exit, ExitContext, Failure};
use crate::server::server_file::ServerFile;
use crate::terminal::put;
use ask::Asked;
use story::Story;

/// Places that are followed: an envelope stands once in each shard of its recipients, and again after a resend.
const PLACES_MAX: usize = 256;
/// Places that are asked for at a time: an admin port serves 64 connections.
const PLACES_AT_A_TIME: usize = 16;

/// Follow one message through the server's processes.
///
/// Asks the admin ports for their last hops and tells in order which edge accepted the message, where it stands in which
/// shard's log, who read it, whether it was rung, fetched, acknowledged or written as a row, with times; then what is
/// missing and why it may be. Nothing of the content is known to any of them, and no account or device is named. Times
/// are those of each process's own clock. The id is what `pli send --json` and `pli recv --json` print as `send_id`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pli explain 0f3a5c7e9b1d2f4a6c8e0b1d3f5a7c9e\n  pli explain 0f3a5c7e9b1d2f4a6c8e0b1d3f5a7c9e --admin 10.0.0.1:7481,10.0.0.2:7481 --json"
)]
pub struct ExplainArgs {
    /// The send id: 32 hexadecimal digits.
    #[arg(value_name = "SEND_ID", value_parser = send_id)]
    send: SendId,
    /// Admin ports to ask, as HOST:PORT, separated by commas [default: telemetry.processes, else the server of this folder].
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', value_parser = address)]
    admin: Vec<String>,
    /// One JSON object instead of the text for people.
    #[arg(long)]
    json: bool,
    /// The data folder of a server on this machine; its admin port is taken from there.
    #[arg(long, env = "PLI_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// The TOML file of a server; telemetry.processes names the admin ports of all.
    #[arg(long, env = "PLI_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

fn send_id(text: &str) -> Result<SendId, String> {
    let bytes = hex::decode(text).ok().and_then(|bytes| SendId::try_from(bytes.as_slice()).ok());
    bytes.ok_or_else(|| "give 32 hexadecimal digits, as `pli send --json` prints them for `send_id`".to_owned())
}

fn address(text: &str) -> Result<String, String> {
    let port =
        text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
    port.filter(|port| *port > 0).map(|_| text.to_owned()).ok_or_else(|| "give HOST:PORT of an admin port".to_owned())
}

/// Runs `pli explain`.
pub async fn run(args: ExplainArgs) -> Result<(), Failure> {
    let processes = processes(&args)?;
    let asked = Asked::all(&processes, HopQuery::Send(tag(args.send.as_bytes()))).await;
    if asked.answers.is_empty() {
        let why: Vec<String> =
            asked.silent.iter().map(|silent| format!("{}: {}", silent.process, silent.why)).collect();
        let text = format!("no process answered; name their admin ports with --admin ({})", why.join("; "));
        return Err(Failure::say(Exit::Unreachable, text));
    }
    let story = follow(args.send, asked).await;
    let told = if args.json { format!("{}\n", print::json(&story)) } else { print::text(&story) };
    put(&told)?;
    if story.is_empty() {
        return Err(Failure::say(Exit::Failed, "no process that answered knows anything of this message"));
    }
    Ok(())
}

/// From the send to its places in the logs, then everything that those who answered know of these places.
async fn follow(send: SendId, asked: Asked) -> Story {
    let mut places: BTreeSet<(u16, u64)> = BTreeSet::new();
    for (_, hop) in asked.hops().filter(|(_, hop)| hop.shard != NOWHERE) {
        places.insert((hop.shard, hop.place & PLACE_MASK));
    }
    let (answered, left_out) = (asked.answered(), places.len().saturating_sub(PLACES_MAX));
    let mut story = Story::new(send, asked, left_out);
    let answered = &answered;
    let each = places
        .into_iter()
        .take(PLACES_MAX)
        .map(|(shard, place)| async move { (shard, place, Asked::all(answered, HopQuery::Place(shard, place)).await) });
    let mut told = futures::stream::iter(each).buffered(PLACES_AT_A_TIME);
    while let Some((shard, place, more)) = told.next().await {
        story.add(shard, place, more);
    }
    story
}

/// Whom to ask.
fn processes(args: &ExplainArgs) -> Result<Vec<String>, Failure> {
    if !args.admin.is_empty() {
        return Ok(unique(args.admin.clone()));
    }
    let data = args.data.as_ref().map(|path| path.display());
    let sources = Sources::from_process().file(args.config.clone()).flag("server.data", data);
    let config = Config::load(&sources).exit(Exit::Config)?;
    if !config.telemetry.processes.is_empty() {
        return Ok(unique(config.telemetry.processes));
    }
    let running = ServerFile::running(&config.server.data).exit(Exit::Unreachable)?;
    match running {
        Some(file) => Ok(vec![file.admin.to_string()]),
        // Whoever names a folder means the server of that one, and no other.
        None if args.data.is_some() => {
            let folder = config.server.data.display();
            let fix = "start one with `pli dev`, or name the admin ports to ask with --admin";
            Err(Failure::say(Exit::Unreachable, format_args!("no server runs on {folder}; {fix}")))
        }
        None => Ok(vec![format!("{}:{}", config.server.admin_host, config.server.admin_port)]),
    }
}

fn unique(processes: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    processes.into_iter().filter(|process| seen.insert(process.clone())).collect()
}

/// The word for a hop, for people and in JSON.
const fn word(kind: HopKind) -> &'static str {
    match kind {
        HopKind::Admitted => "admitted",
        HopKind::Refused => "refused",
        HopKind::Accepted => "accepted",
        HopKind::Read => "read",
        HopKind::Rung => "rung",
        HopKind::PagedTail => "paged_tail",
        HopKind::PagedRows => "paged_rows",
        HopKind::Bell => "bell",
        HopKind::Told => "told",
        HopKind::Acked => "acked",
        HopKind::Passed => "passed",
        HopKind::Spilled => "spilled",
        HopKind::Expired => "expired",
        HopKind::Gone => "gone",
        HopKind::Floor => "floor",
        HopKind::Settled => "settled",
        HopKind::Stored => "stored",
        HopKind::Resend => "resend",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_send_id_or_address_is_refused_with_the_fix() {
        assert!(send_id("0f3a5c7e9b1d2f4a6c8e0b1d3f5a7c9e").is_ok());
        for bad in ["", "0f3a", "zz3a5c7e9b1d2f4a6c8e0b1d3f5a7c9e", "0f3a5c7e9b1d2f4a6c8e0b1d3f5a7c9e00"] {
            assert!(send_id(bad).is_err_and(|error| error.contains("32 hexadecimal digits")), "{bad}");
        }
        assert!(address("127.0.0.1:7481").is_ok() && address("[::1]:7481").is_ok() && address("host:1").is_ok());
        for bad in ["", "host", ":7481", "host:0", "host:port", "host:70000"] {
            assert!(address(bad).is_err_and(|error| error.contains("HOST:PORT")), "{bad}");
        }
    }
}
