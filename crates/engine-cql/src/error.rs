// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why the engine does not open, and what became of a statement.

use std::error::Error;
use std::path::PathBuf;

use scylla::errors::{DbError, ExecutionError, NewSessionError, PrepareError, RequestAttemptError};

/// Why the database is not used. Every text names the fix.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An option cannot work.
    #[error("{option}: {fix}")]
    Option {
        /// Which one.
        option: &'static str,
        /// What to do.
        fix: &'static str,
    },
    /// The file with the authorities cannot be used.
    #[error("ca_file {path} cannot be used; give a PEM file with at least one certificate")]
    Authorities {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// No contact point answers.
    #[error("no database node answers at {contact_points}; start it, or correct contact_points or ca_file")]
    Unreachable {
        /// Who was asked.
        contact_points: String,
        /// What the driver said last.
        #[source]
        source: Box<NewSessionError>,
    },
    /// The database does not know this user or its password.
    #[error("the database refuses the credentials of user {user}; correct user and password")]
    Credentials {
        /// Who logged in.
        user: String,
        /// What the driver said.
        #[source]
        source: Box<NewSessionError>,
    },
    /// No node stands in the datacentre.
    #[error("no node is in datacentre {datacentre}; the database has {known}: correct datacentre")]
    Datacentre {
        /// The one asked for.
        datacentre: String,
        /// Those there are.
        known: String,
    },
    /// The keyspace or its tables are not there.
    #[error("keyspace {keyspace} has no tables of Pli; run the migration")]
    SchemaMissing {
        /// Which keyspace.
        keyspace: String,
    },
    /// The tables are older than this program.
    #[error("keyspace {keyspace} has schema version {found} and this program needs {wanted}; run the migration")]
    SchemaOld {
        /// Which keyspace.
        keyspace: String,
        /// Its version.
        found: i32,
        /// The program's.
        wanted: i32,
    },
    /// The tables are newer than this program.
    #[error("keyspace {keyspace} has schema version {found} and this program knows {wanted}; run a newer program")]
    SchemaNew {
        /// Which keyspace.
        keyspace: String,
        /// Its version.
        found: i32,
        /// The program's.
        wanted: i32,
    },
    /// A schema file is not what was applied under its version.
    #[error("schema version {version} was applied with another text; run the program that the database was made with")]
    SchemaChanged {
        /// Which version.
        version: i32,
    },
    /// Too few replicas for production.
    #[error(
        "keyspace {keyspace} keeps {found} replicas in datacentre {datacentre}; alter it to 3 and repair, or leave \
         production mode"
    )]
    Replication {
        /// Which keyspace.
        keyspace: String,
        /// Where.
        datacentre: String,
        /// How many.
        found: u32,
    },
    /// The database acknowledges writes before they are on disk.
    #[error(
        "the database's commit log is synced {found}, after it acknowledges; set commitlog_sync to group or batch on \
         every node, or leave production mode"
    )]
    CommitLog {
        /// How it is synced.
        found: String,
    },
    /// Another migration has held the lock for too long.
    #[error("another migration holds the lock of keyspace {keyspace}; wait for it, it ends by itself in two minutes")]
    Locked {
        /// Which keyspace.
        keyspace: String,
    },
    /// A statement of the start failed.
    #[error("{what} failed; look at the database's log")]
    Statement {
        /// What was asked.
        what: &'static str,
        /// What the driver said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl OpenError {
    pub(crate) fn statement<E>(what: &'static str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        move |source| Self::Statement { what, source: source.into() }
    }
}

/// A statement that did not succeed within its deadline, or cannot.
#[derive(Debug, thiserror::Error)]
#[error("statement {statement} failed after {attempts} attempts")]
pub(crate) struct Failed {
    pub(crate) statement: &'static str,
    pub(crate) attempts: u32,
    #[source]
    pub(crate) source: ExecutionError,
}

/// Whether the same statement may succeed when it is sent again.
pub(crate) fn can_help(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::BadQuery(_) | ExecutionError::UseKeyspaceError(_) => false,
        ExecutionError::PrepareError(error) => matches!(error, PrepareError::ConnectionPoolError(_)),
        ExecutionError::LastAttemptError(error) => attempt_can_help(error),
        // Pools, timeouts, empty plans: the node may be back.
        _ => true,
    }
}

fn attempt_can_help(error: &RequestAttemptError) -> bool {
    use RequestAttemptError as E;
    match error {
        E::DbError(error, _) => !matches!(
            error,
            DbError::SyntaxError
                | DbError::Invalid
                | DbError::AlreadyExists { .. }
                | DbError::FunctionFailure { .. }
                | DbError::AuthenticationError
                | DbError::Unauthorized
                | DbError::ConfigError
                | DbError::ProtocolError
        ),
        E::UnableToAllocStreamId | E::BrokenConnectionError(_) | E::RepreparedIdMissingInBatch => true,
        _ => false,
    }
}

/// Whether the driver could not log in: the text of the failure deepest down says so on every database.
pub(crate) fn is_refused_login(error: &NewSessionError) -> bool {
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        let text = error.to_string().to_lowercase();
        if text.contains("authentication") || text.contains("credentials") || text.contains("authenticator") {
            return true;
        }
        cause = error.source();
    }
    false
}
