// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers that tests start, break and end. Each listens on loopback addresses of its own, keeps its files in a folder
//! that the test names, and ends with the test's process, however that ends.

pub mod cassandra;
pub(crate) mod child;
pub mod nats;
pub mod ports;

use std::path::PathBuf;

/// Why a server is not there.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// This machine lacks something; the test that needs the server is skipped.
    #[error("{0}")]
    Unavailable(String),
    /// The folder or the process cannot be used.
    #[error("{what} failed")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It did not answer in time; the end of its log is part of the text.
    #[error("the server at {address} was not ready in time; its log, {log}, ends:\n{end}")]
    NotReady {
        /// Where it should listen.
        address: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        end: String,
    },
}

impl EngineError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
