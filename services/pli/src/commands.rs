// SPDX-License-Identifier: MIT OR Apache-2.0
//! One file per command, and what they share.

mod about;
mod advice;
pub mod backup;
pub mod chat;
pub mod config;
pub mod dev;
pub mod device;
pub mod doctor;
pub mod explain;
pub mod group;
mod json;
mod lines;
mod link;
pub mod migrate;
mod names;
mod number;
mod options;
mod output;
pub mod pipe;
pub mod printed;
mod progress;
pub mod recv;
pub mod restore;
pub mod send;
pub mod serve;
mod session;
mod target;
mod to_copy;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::Command;
use crate::exit::Failure;

/// Does what the command line says.
pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Dev(args) => dev::run(args).await,
        Command::Serve(args) => serve::run(args).await,
        Command::Migrate(args) => migrate::run(&args).await,
        Command::Chat(args) => chat::run(args).await,
        Command::Send(args) => send::run(args).await,
        Command::Recv(args) => recv::run(args).await,
        Command::Pipe(args) => pipe::run(args).await,
        Command::Group(args) => group::run(args).await,
        Command::Device(args) => device::run(args).await,
        Command::Config(args) => config::run(&args),
        Command::Backup(args) => backup::run(args).await,
        Command::Restore(args) => restore::run(args).await,
        Command::Doctor(args) => doctor::run(&args).await,
        Command::Explain(args) => explain::run(args).await,
    }
}

/// A token that Ctrl-C and SIGTERM cancel; the command then ends cleanly.
fn interrupted() -> Result<CancellationToken, Failure> {
    cancelled_by(&[SignalKind::interrupt(), SignalKind::terminate()])
}

/// The same, also by a terminal that goes away: for a command that asks there. One that needs no terminal may outlive it.
fn interrupted_or_hung_up() -> Result<CancellationToken, Failure> {
    cancelled_by(&[SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()])
}

fn cancelled_by(kinds: &[SignalKind]) -> Result<CancellationToken, Failure> {
    let token = CancellationToken::new();
    for kind in kinds {
        let (mut heard, cancelled) = (signal(*kind)?, token.clone());
        tokio::spawn(async move {
            heard.recv().await;
            cancelled.cancel();
        });
    }
    Ok(token)
}
