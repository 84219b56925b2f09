// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one place that runs statements: prepares the table of them, repeats what may be repeated, and says what the
//! rest is worth.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pli_domain::UnixMillis;
use pli_ports::{Clock, StoreError};
use rand::Rng;
use scylla::client::session::Session;
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::ExecutionError;
use scylla::response::query_result::QueryResult;
use scylla::response::{PagingState, PagingStateResponse};
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency};
use scylla::value::{CqlValue, Row};
use tokio::time::Instant;

use crate::codec::Damaged;
use crate::error::{Failed, can_help};
use crate::locks::Locks;
use crate::schema::applied;
use crate::stamps::Stamps;
use crate::statements::{Kind, STATEMENTS, Statement};
use crate::{CqlOptions, OpenError};

/// Pauses between attempts grow from here …
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// … to here, each drawn between nothing and twice its length.
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// A session with every statement prepared.
pub(crate) struct Store {
    session: Session,
    prepared: Vec<PreparedStatement>,
    deadline: Duration,
    /// Most statements of one call on their way at once.
    pub(crate) in_flight: usize,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stamps: Stamps,
    pub(crate) locks: Locks,
    /// Names this opening of the engine in what is decided, so that a retry knows its own win.
    pub(crate) token: [u8; 16],
    sent: AtomicU64,
}

/// Some rows of a larger answer, and where it goes on.
pub(crate) struct Part<T> {
    pub(crate) rows: Vec<T>,
    pub(crate) rest: Option<PagingState>,
}

impl Store {
    /// Prepares the table of statements on a session that uses the keyspace.
    pub(crate) async fn new(session: Session, options: &CqlOptions) -> Result<Self, OpenError> {
        let mut prepared = Vec::with_capacity(STATEMENTS.len());
        for entry in STATEMENTS {
            let statement = session.prepare(entry.cql).await;
            let mut statement = statement.map_err(OpenError::statement(entry.name))?;
            statement.set_consistency(match entry.kind {
                Kind::SerialRead => Consistency::LocalSerial,
                _ => Consistency::LocalQuorum,
            });
            statement.set_serial_consistency(Some(SerialConsistency::LocalSerial));
            statement.set_is_idempotent(entry.kind != Kind::DecideOnce);
            statement.set_request_timeout(Some(options.attempt_timeout));
            prepared.push(statement);
        }
        Ok(Self {
            session,
            prepared,
            deadline: options.deadline,
            in_flight: options.in_flight,
            clock: Arc::clone(&options.clock),
            stamps: Stamps::new(Arc::clone(&options.clock)),
            locks: Locks::new(),
            token: rand::random(),
            sent: AtomicU64::new(0),
        })
    }

    /// One read at the quorum of every other read.
    pub(crate) async fn probe(&self) -> Result<(), OpenError> {
        let keyspace = self.session.get_keyspace();
        applied(&self.session, keyspace.as_ref().map_or("", |keyspace| keyspace.as_str())).await.map(|_| ())
    }

    /// Statements and batches sent so far, repetitions included.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// What is left of a life that ends at `expires_at`, in whole seconds and a minute more: expiry is judged by the
    /// stored time, the database only clears up. From a minute to 20 years, which is as long as CQL allows.
    pub(crate) fn ttl(&self, expires_at: UnixMillis) -> i32 {
        const SLACK_S: u64 = 60;
        const MOST_S: i32 = 600_000_000;
        let left = expires_at.since(self.now()).as_millis().div_ceil(1_000);
        let left = u64::try_from(left).unwrap_or(u64::MAX).saturating_add(SLACK_S);
        i32::try_from(left).unwrap_or(MOST_S).min(MOST_S)
    }

    /// Runs a write.
    pub(crate) async fn write(
        &self,
        op: Op,
        statement: Statement,
        values: impl SerializeRow,
    ) -> Result<(), StoreError> {
        self.run(op, statement, values).await.map(drop)
    }

    /// Runs a compare-and-set; whether it was applied. After a repetition, "not applied" may be one's own win: read
    /// what was decided.
    pub(crate) async fn decide(
        &self,
        op: Op,
        statement: Statement,
        values: impl SerializeRow,
    ) -> Result<bool, StoreError> {
        let answer = self.run(op, statement, values).await?;
        let rows = answer.into_rows_result().map_err(|error| StoreError::never(op.0, error))?;
        let first: Row = rows.first_row().map_err(|error| StoreError::never(op.0, error))?;
        Ok(matches!(first.columns.first(), Some(Some(CqlValue::Boolean(true)))))
    }

    /// All rows of a statement whose answer is bounded.
    pub(crate) async fn rows<T>(
        &self,
        op: Op,
        statement: Statement,
        values: impl SerializeRow,
    ) -> Result<Vec<T>, StoreError>
    where
        T: for<'f> DeserializeRow<'f, 'f>,
    {
        let answer = self.run(op, statement, values).await?;
        decoded(op, answer)
    }

    /// The first row, if there is one.
    pub(crate) async fn first<T>(
        &self,
        op: Op,
        statement: Statement,
        values: impl SerializeRow,
    ) -> Result<Option<T>, StoreError>
    where
        T: for<'f> DeserializeRow<'f, 'f>,
    {
        Ok(self.rows(op, statement, values).await?.into_iter().next())
    }

    /// At most `rows_max` rows of an answer, from where an earlier part ended.
    pub(crate) async fn part<T>(
        &self,
        op: Op,
        statement: Statement,
        values: impl SerializeRow,
        (rows_max, from): (usize, PagingState),
    ) -> Result<Part<T>, StoreError>
    where
        T: for<'f> DeserializeRow<'f, 'f>,
    {
        let mut prepared = self.prepared[statement as usize].clone();
        prepared.set_page_size(i32::try_from(rows_max.max(1)).unwrap_or(i32::MAX));
        let bound = prepared.bind(&values).map_err(|error| StoreError::never(op.0, error))?;
        let ask = || self.session.execute_bound_single_page(&bound, from.clone());
        let (answer, rest) = self.repeat(op, statement, ask).await?;
        let rest = match rest {
            PagingStateResponse::HasMorePages { state } => Some(state),
            PagingStateResponse::NoMorePages => None,
        };
        Ok(Part { rows: decoded(op, answer)?, rest })
    }

    /// Writes of one partition that become visible together: one unlogged batch.
    pub(crate) async fn batch<V>(&self, op: Op, writes: Vec<(Statement, V)>) -> Result<(), StoreError>
    where
        V: SerializeRow,
    {
        let Some((first, _)) = writes.first() else { return Ok(()) };
        let first = *first;
        if writes.len() == 1 {
            let mut writes = writes;
            let Some((_, values)) = writes.pop() else { return Ok(()) };
            return self.write(op, first, values).await;
        }
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_consistency(Consistency::LocalQuorum);
        batch.set_is_idempotent(true);
        let timeout = self.prepared[first as usize].get_request_timeout();
        batch.set_request_timeout(timeout);
        let mut values = Vec::with_capacity(writes.len());
        for (statement, value) in writes {
            batch.append_statement(self.prepared[statement as usize].clone());
            values.push(value);
        }
        self.repeat(op, first, || self.session.batch(&batch, &values)).await.map(drop)
    }

    async fn run(&self, op: Op, statement: Statement, values: impl SerializeRow) -> Result<QueryResult, StoreError> {
        let prepared = self.prepared[statement as usize].clone();
        let bound = prepared.bind(&values).map_err(|error| StoreError::never(op.0, error))?;
        drop(values);
        self.repeat(op, statement, || self.session.execute_bound_unpaged(&bound)).await
    }

    /// Sends until it succeeds, cannot, or the deadline is over. The bound is the deadline.
    async fn repeat<T, F>(&self, op: Op, statement: Statement, ask: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, ExecutionError>>,
    {
        let entry = statement.entry();
        let end = Instant::now() + self.deadline;
        let (mut attempts, mut pause) = (0, PAUSE_MIN);
        loop {
            attempts += 1;
            self.sent.fetch_add(1, Ordering::Relaxed);
            let source = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(source) => source,
            };
            let helps = can_help(&source);
            let wait = rand::rng().random_range(Duration::ZERO..pause * 2);
            let over = Instant::now() + wait >= end;
            if !helps || over || entry.kind == Kind::DecideOnce {
                let failed = Failed { statement: entry.name, attempts, source };
                return Err(if helps { StoreError::later(op.0, failed) } else { StoreError::never(op.0, failed) });
            }
            let (statement, table, key) = (entry.name, entry.table, entry.key);
            tracing::debug!(statement, table, ?key, attempts, error = %source, "repeating");
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// What is asked, in the words of the port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op(pub(crate) &'static str);

impl Op {
    /// What was read is not what the engine writes.
    pub(crate) fn damaged(self) -> impl Fn(Damaged) -> StoreError {
        move |error| StoreError::never(self.0, error)
    }
}

fn decoded<T>(op: Op, answer: QueryResult) -> Result<Vec<T>, StoreError>
where
    T: for<'f> DeserializeRow<'f, 'f>,
{
    let rows = answer.into_rows_result().map_err(|error| StoreError::never(op.0, error))?;
    let rows = rows.rows::<T>().map_err(|error| StoreError::never(op.0, error))?;
    rows.collect::<Result<_, _>>().map_err(|error| StoreError::never(op.0, error))
}
