// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measurements with their limits.
//!
//! Every figure that has a natural ceiling is put beside it: the limit is code here, runs within a minute of the figure,
//! prints its raw value, and is refused when its own runs scatter too far. `target/bench/summary.json` holds all rows;
//! each bench target replaces its own and leaves the others.

#![allow(clippy::print_stdout, reason = "figures are printed as they are taken")]

mod echo;
pub mod group;
mod limit;
pub mod load;
mod reading;
mod seed;
mod server;
pub mod traffic;

pub use echo::{ECHO, cpu_us_per_echo, cpu_us_per_handshake, cpu_us_per_quic_handshake, serve as serve_echo};
pub use limit::{LimitError, measure_limit};
pub use pli_testkit::summary::{Direction, Limit, Row, Summary, SummaryError, data_folder};
pub use reading::{Measured, Reading, Target, measure};
pub use seed::seed;
pub use server::{Process, Ready, cpu_us, metric, start_server};

/// Whether the command line names this part of a measurement, or no part: `cargo bench --bench session -- traffic idle`.
pub fn asked(part: &str) -> bool {
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    named.is_empty() || named.iter().any(|name| name == part)
}
