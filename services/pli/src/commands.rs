// SPDX-License-Identifier: MIT OR Apache-2.0
//! One file per command.

pub mod config;
pub mod dev;
pub mod doctor;

use crate::cli::Command;
use crate::exit::Failure;

/// Does what the command line says.
pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Dev(args) => dev::run(args).await,
        Command::Config(args) => config::run(&args),
        Command::Doctor(args) => doctor::run(&args).await,
    }
}
