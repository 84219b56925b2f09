// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one binary and the only composition root: every role of the server and the command line client.

mod cli;
mod commands;
mod config;
mod exit;
mod server;
mod terminal;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use pli_runtime::Sources;

use crate::cli::Cli;
use crate::config::Config;
use crate::exit::{Exit, Failure};

fn main() -> ExitCode {
    match Cli::try_parse().map_or_else(said, start) {
        Ok(()) => ExitCode::from(Exit::Ok as u8),
        Err(failure) => {
            crate::terminal::tell!("error: {}", sentence(&failure.error));
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// What the parser has to say instead of a command: help and the version on standard output, an error on standard error.
fn said(parsed: clap::Error) -> Result<(), Failure> {
    if parsed.use_stderr() {
        let said = parsed.render().to_string();
        let clean = terminal::clean(&said);
        if clean == said {
            parsed.exit();
        }
        // It repeats an argument that would steer the terminal.
        crate::terminal::tell!("{}", clean.trim_end());
        std::process::exit(parsed.exit_code());
    }
    parsed.print().and_then(|()| std::io::stdout().flush()).or_else(terminal::written)
}

fn start(cli: Cli) -> Result<(), Failure> {
    warn_of_variables();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(commands::run(cli.command));
    // A thread that still waits for the keyboard must not keep the process.
    runtime.shutdown_background();
    ended
}

/// Says which of our environment variables nothing reads.
fn warn_of_variables() {
    fn of_flags(command: &clap::Command) -> Vec<String> {
        let own = command.get_arguments().filter_map(|argument| Some(argument.get_env()?.to_str()?.to_string()));
        own.chain(command.get_subcommands().flat_map(of_flags)).collect()
    }
    for warning in Sources::from_process().unread::<Config>(&of_flags(&Cli::command())) {
        crate::terminal::tell!("warning: {warning}");
    }
}

/// The error with its causes, each said once.
fn sentence(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !said.contains(&cause) {
            let colon = if said.is_empty() { "" } else { ": " };
            said = format!("{said}{colon}{cause}");
        }
    }
    said
}
