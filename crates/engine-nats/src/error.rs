// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the server's answers mean: ask again, no room, or an operator is needed.

use std::error::Error;
use std::path::PathBuf;

use async_nats::jetstream;
use async_nats::jetstream::context::PublishError;
use pli_ports::{AppendError, StoreError};

use crate::wire::{NO_RESOURCES, NOT_ENABLED, STORE_FAILED, STREAM_NOT_FOUND};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// An option has a value that cannot be used.
    #[error("the NATS options cannot be used: {0}")]
    Options(String),
    /// The seed file cannot be read.
    #[error("the NKey seed file {} cannot be read; give this user read access to it", file.display())]
    SeedFile {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The seed file holds something else.
    #[error("{} holds no NKey user seed; it must be one line that begins with SU", file.display())]
    Seed {
        /// The file.
        file: PathBuf,
    },
    /// The server does not know these credentials.
    #[error("{servers} refused the credentials; add this NKey to the server's authorization or name another seed file")]
    Refused {
        /// The addresses.
        servers: String,
        /// What the client library said.
        #[source]
        source: async_nats::ConnectError,
    },
    /// TLS could not be set up or the other side is not trusted.
    #[error("no TLS with {servers}; check the CA file, the client certificate and the host name in the address")]
    Tls {
        /// The addresses.
        servers: String,
        /// What the client library said.
        #[source]
        source: async_nats::ConnectError,
    },
    /// Nobody answers.
    #[error("no connection to {servers}; check the addresses and that a server runs there")]
    Unreachable {
        /// The addresses.
        servers: String,
        /// What the client library said.
        #[source]
        source: async_nats::ConnectError,
    },
}

/// Why a question to the server has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// It answered with an error.
    #[error("{description} (JetStream error {code})")]
    Server {
        /// JetStream's number for it.
        code: u64,
        /// What it said.
        description: String,
    },
    /// The credentials do not allow it.
    #[error("{0}; give this role's credentials the permissions that its table names")]
    Refused(String),
    /// Nobody serves the subject: JetStream is off, or a stream has no leader at the moment.
    #[error("nobody answers on {0}; JetStream is off, the stream is missing, or it has no leader at the moment")]
    NoResponder(String),
    /// No answer in time; it may have been acted upon.
    #[error("no answer on {0} in time")]
    Timeout(String),
    /// The connection is down.
    #[error("the connection to NATS is down")]
    Disconnected(#[source] Box<dyn Error + Send + Sync>),
    /// The answer cannot be read.
    #[error("an answer of the server cannot be read")]
    Malformed(#[source] serde_json::Error),
}

impl ApiError {
    /// The JetStream error number, if the server sent one.
    pub fn code(&self) -> Option<u64> {
        match self {
            Self::Server { code, .. } => Some(*code),
            _ => None,
        }
    }

    fn needs_an_operator(&self) -> bool {
        match self {
            Self::Server { code, .. } => *code == STREAM_NOT_FOUND || NOT_ENABLED.contains(code),
            Self::Refused(_) | Self::Malformed(_) => true,
            Self::NoResponder(_) | Self::Timeout(_) | Self::Disconnected(_) => false,
        }
    }

    /// As a port says it.
    pub(crate) fn of(self, operation: &'static str) -> StoreError {
        if self.needs_an_operator() { StoreError::never(operation, self) } else { StoreError::later(operation, self) }
    }
}

/// The JetStream error under an error of the client library.
fn jetstream_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a jetstream::Error> {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref::<jetstream::Error>() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

/// Whether the server says that there is no room.
fn is_full(error: &jetstream::Error) -> bool {
    let code = error.error_code().0;
    let text = error.to_string();
    NO_RESOURCES.contains(&code) || (code == STORE_FAILED && (text.contains("maximum bytes") || text.contains("space")))
}

/// What a failed publish means for an append: no room, or an unknown outcome.
pub(crate) fn append_error(error: PublishError, full_retry_after_ms: u32) -> AppendError {
    if jetstream_error(&error).is_some_and(is_full) {
        return AppendError::Full { retry_after_ms: full_retry_after_ms };
    }
    StoreError::later("append", error).into()
}
