// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making and updating the tables.

use std::time::Duration;

use scylla::client::session::Session;
use scylla::value::{CqlValue, Row};
use tokio::time::Instant;

use crate::schema::{FILES, SCHEMA_VERSION, applied, connect, digest};
use crate::{CqlOptions, OpenError};

/// A migration waits this long for another one.
const LOCK_WAIT: Duration = Duration::from_secs(150);
/// A migration that dies leaves its lock for this long.
const LOCK_TTL_S: i32 = 120;
/// Pause between two looks at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(200);
/// Rivals that make the first tables at once may fail each other; so often is it tried.
const ATTEMPTS_MAX: u32 = 5;

/// What a migration did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Version that was found; 0 where there was none.
    pub from: i32,
    /// Version that is there now.
    pub to: i32,
}

/// Makes the keyspace and brings its tables to this program's version. Idempotent; two at once take turns. Every
/// statement may be run again, so a migration that died is finished by the next.
pub async fn migrate(options: &CqlOptions) -> Result<Migrated, OpenError> {
    let session = connect(options).await?;
    prepare(&session, options).await?;
    let holder: [u8; 16] = rand::random();
    lock(&session, options, &holder).await?;
    let outcome = apply(&session, options).await;
    unlock(&session, options, &holder).await;
    outcome
}

/// The keyspace and the tables that a migration itself needs.
async fn prepare(session: &Session, options: &CqlOptions) -> Result<(), OpenError> {
    let CqlOptions { keyspace, datacentre, replication, .. } = options;
    for cql in [
        format!(
            "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = \
             {{'class': 'NetworkTopologyStrategy', '{datacentre}': {replication}}}"
        ),
        format!("CREATE TABLE IF NOT EXISTS {keyspace}.schema_lock (name text PRIMARY KEY, holder blob)"),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.schema_version \
             (component text, version int, file text, sha256 blob, PRIMARY KEY (component, version))"
        ),
    ] {
        define(session, "making the keyspace", &cql).await?;
    }
    Ok(())
}

async fn define(session: &Session, what: &'static str, cql: &str) -> Result<(), OpenError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match session.query_unpaged(cql, ()).await {
            Ok(_) => return Ok(()),
            Err(error) if attempts >= ATTEMPTS_MAX => return Err(OpenError::statement(what)(error)),
            Err(error) => tracing::debug!(%error, what, attempts, "repeating"),
        }
        tokio::time::sleep(LOCK_PAUSE * attempts).await;
    }
}

async fn lock(session: &Session, options: &CqlOptions, holder: &[u8]) -> Result<(), OpenError> {
    const WHAT: &str = "locking the schema";
    let keyspace = &options.keyspace;
    let take = format!(
        "INSERT INTO {keyspace}.schema_lock (name, holder) VALUES ('pli', ?) IF NOT EXISTS USING TTL {LOCK_TTL_S}"
    );
    let renew =
        format!("UPDATE {keyspace}.schema_lock USING TTL {LOCK_TTL_S} SET holder = ? WHERE name = 'pli' IF holder = ?");
    let end = Instant::now() + LOCK_WAIT;
    loop {
        // The second finds a win whose answer was lost.
        let taken = session.query_unpaged(take.as_str(), (holder,)).await;
        if won(taken, WHAT)? || won(session.query_unpaged(renew.as_str(), (holder, holder)).await, WHAT)? {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(OpenError::Locked { keyspace: keyspace.clone() });
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

type Answer = Result<scylla::response::query_result::QueryResult, scylla::errors::ExecutionError>;

/// Whether a compare-and-set was applied; rivals that time each other out have not won.
fn won(answer: Answer, what: &'static str) -> Result<bool, OpenError> {
    let answer = match answer {
        Err(error) if crate::error::can_help(&error) => return Ok(false),
        other => other.map_err(OpenError::statement(what))?,
    };
    let rows = answer.into_rows_result().map_err(OpenError::statement(what))?;
    let first = rows.first_row::<Row>().map_err(OpenError::statement(what))?;
    Ok(matches!(first.columns.first(), Some(Some(CqlValue::Boolean(true)))))
}

/// A lock that stays ends by itself.
async fn unlock(session: &Session, options: &CqlOptions, holder: &[u8]) {
    let cql = format!("DELETE FROM {}.schema_lock WHERE name = 'pli' IF holder = ?", options.keyspace);
    if let Err(error) = session.query_unpaged(cql, (holder,)).await {
        tracing::warn!(%error, "the lock of the schema stays for up to {LOCK_TTL_S} s");
    }
}

async fn apply(session: &Session, options: &CqlOptions) -> Result<Migrated, OpenError> {
    let keyspace = options.keyspace.as_str();
    let done = applied(session, keyspace).await?;
    let from = done.keys().copied().max().unwrap_or(0);
    if from > SCHEMA_VERSION {
        return Err(OpenError::SchemaNew { keyspace: keyspace.to_owned(), found: from, wanted: SCHEMA_VERSION });
    }
    let record =
        format!("INSERT INTO {keyspace}.schema_version (component, version, file, sha256) VALUES ('pli', ?, ?, ?)");
    session.use_keyspace(keyspace, false).await.map_err(OpenError::statement("using the keyspace"))?;
    for (version, (file, text)) in (1..).zip(FILES) {
        match done.get(&version) {
            Some(known) if *known == digest(text) => continue,
            Some(_) => return Err(OpenError::SchemaChanged { version }),
            None => {}
        }
        for cql in statements(text, options) {
            define(session, "making a table", &cql).await?;
        }
        let row = (version, *file, digest(text));
        session.query_unpaged(record.as_str(), row).await.map_err(OpenError::statement("recording a version"))?;
        tracing::info!(file, keyspace, "schema file applied");
    }
    Ok(Migrated { from, to: SCHEMA_VERSION })
}

/// The statements of a schema file, comments left out.
fn statements(text: &str, options: &CqlOptions) -> Vec<String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    let text = lines.join("\n").replace("${compaction}", options.compaction.cql());
    text.split(';').map(str::trim).filter(|cql| !cql.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_files_are_numbered_and_may_run_twice() {
        for (version, (file, text)) in (1..).zip(FILES) {
            assert!(file.starts_with(&format!("{version:04}_")), "{file} is not version {version}");
            let cql = statements(text, &CqlOptions::default());
            assert!(!cql.is_empty());
            for cql in cql {
                assert!(cql.contains(" IF NOT EXISTS ") && !cql.contains("${"), "{cql}");
                assert!(cql.contains("gc_grace_seconds") && cql.contains("IncrementalCompactionStrategy"), "{cql}");
            }
        }
    }
}
