// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measurements with their limits.
//!
//! Every figure that has a natural ceiling is put beside it: the limit is code here, runs within a minute of the figure,
//! prints its raw value, and is refused when its own runs scatter too far. `target/bench/summary.json` holds all rows;
//! each bench target replaces its own and leaves the others.

#![allow(clippy::print_stdout, reason = "figures are printed as they are taken")]

mod echo;
mod limit;
pub mod load;
mod seed;
mod server;
mod summary;

pub use echo::{ECHO, cpu_us_per_echo, cpu_us_per_handshake, serve as serve_echo};
pub use limit::{Limit, LimitError, measure_limit};
pub use seed::seed;
pub use server::{Process, Ready, metric, start_server};
pub use summary::{Direction, Row, Summary, SummaryError, data_folder};
