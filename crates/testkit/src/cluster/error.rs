// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a cluster is not there.

use std::io;
use std::path::PathBuf;

use crate::engines::EngineError;

/// Why a cluster, or a process of it, is not as it was asked to be.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A server under it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The NATS servers.
    #[error("the NATS servers failed")]
    Nats(#[source] io::Error),
    /// A file, folder or process.
    #[error("{what} failed")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A certificate of the internal side.
    #[error("a certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    /// `pli migrate` never succeeded.
    #[error("`pli migrate` failed: {0}")]
    Migration(String),
    /// A process was not ready in its time, or ended.
    #[error("{name} {what}; its log, {log}, ends:\n{end}")]
    Member {
        /// Which.
        name: String,
        /// What it did.
        what: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        end: String,
    },
    /// The binary is not built.
    #[error("{0} is not there: run `cargo build --workspace --bins --examples`, which builds both")]
    NoProgram(PathBuf),
    /// No process has this name.
    #[error("no process of the cluster is called `{0}`")]
    NoMember(String),
}

impl ClusterError {
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    pub(super) const fn nats(source: io::Error) -> Self {
        Self::Nats(source)
    }

    pub(super) const fn unavailable(why: String) -> Self {
        Self::Engine(EngineError::Unavailable(why))
    }

    /// Whether this machine cannot run a cluster at all; a test is skipped then.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Engine(EngineError::Unavailable(_)))
    }
}
