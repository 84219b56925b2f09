// SPDX-License-Identifier: MIT OR Apache-2.0
//! One suite per port: a list of named cases that every engine and every model must pass.
//!
//! An engine implements [`Harness`] for each port it offers and runs the list in one small test:
//!
//! ```text
//! let report = conformance::run("shard log", conformance::shard_log::CASES, &mut harness).await;
//! report.assert_whole();
//! ```
//!
//! Cases wait on the runtime's timers only, so a model runs them in paused time.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

/// Fails the case unless the condition holds.
macro_rules! check {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err(crate::conformance::Stop::failed(format!($($message)+)));
        }
    };
}

/// Fails the case unless both are equal.
macro_rules! check_eq {
    ($left:expr, $right:expr, $($message:tt)+) => {
        match (&$left, &$right) {
            (left, right) => check!(left == right, "{}: {left:?} is not {right:?}", format_args!($($message)+)),
        }
    };
}

/// The list of a suite: functions from a harness to an outcome, named by themselves.
macro_rules! cases {
    ($port:ty: $($name:ident),+ $(,)?) => {
        /// The cases of this suite, in the order in which they run.
        pub const CASES: &[crate::conformance::Case<$port>] = &[
            $(crate::conformance::Case { name: stringify!($name), run: |harness| Box::pin($name(harness)) },)+
        ];
    };
}

pub mod accounts;
pub mod conversations;
pub mod device_queues;
pub mod leases;
pub mod links;
pub mod media;
pub mod payloads;
pub mod shard_log;
pub mod signals;

/// No case takes longer, on the runtime's timers.
const CASE_TIME_MAX: Duration = Duration::from_secs(120);
/// What must come has come by then.
const SOON: Duration = Duration::from_secs(10);
/// What has not come by then does not come.
const QUIET: Duration = Duration::from_millis(60);

/// How a store goes down before it is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Stopped in order.
    Clean,
    /// Killed: what the operating system was given stays.
    Kill,
    /// Power is lost: only what was synced stays.
    PowerCut,
}

/// Makes stores of one port and breaks them.
#[async_trait]
pub trait Harness<P: ?Sized + Send + Sync>: Send {
    /// An empty store. What an earlier call made may be thrown away.
    async fn fresh(&mut self) -> Arc<P>;

    /// Takes the store of the last [`Harness::fresh`] down and opens it again. Cases have dropped every handle they
    /// were given. None when this engine cannot be broken in this way here: the case is skipped, counted and named.
    async fn restart(&mut self, how: Restart) -> Option<Arc<P>>;

    /// Whether calls cross a network: races are then run with fewer rivals.
    fn is_networked(&self) -> bool;

    /// Whether the store forgets what has expired by itself, so that nobody has to ask it to.
    fn forgets_by_itself(&self) -> bool {
        false
    }
}

/// How many rivals take part in a race.
fn rivals<P: ?Sized + Send + Sync>(harness: &dyn Harness<P>) -> usize {
    if harness.is_networked() { 32 } else { 1_000 }
}

async fn restarted<P: ?Sized + Send + Sync>(harness: &mut dyn Harness<P>, how: Restart) -> Result<Arc<P>, Stop> {
    harness.restart(how).await.ok_or_else(|| Stop::Skipped(format!("this harness cannot do {how:?}")))
}

/// Why a case ended early.
#[derive(Debug)]
pub enum Stop {
    /// The engine broke a rule.
    Failed(String),
    /// The harness cannot run the case.
    Skipped(String),
}

impl Stop {
    /// The engine broke a rule.
    pub fn failed(why: impl Into<String>) -> Self {
        Self::Failed(why.into())
    }
}

impl<E: Error> From<E> for Stop {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::Failed(text)
    }
}

/// What a case answers.
pub type Outcome = Result<(), Stop>;

/// What runs a case.
pub type Run<P> = for<'a> fn(&'a mut dyn Harness<P>) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// One named case.
pub struct Case<P: ?Sized> {
    /// States the behaviour.
    pub name: &'static str,
    /// Checks it.
    pub run: Run<P>,
}

/// What became of a suite.
#[derive(Debug, Default)]
pub struct Report {
    /// Which suite.
    pub suite: String,
    /// Cases that hold.
    pub passed: Vec<&'static str>,
    /// Cases that the harness cannot run, with the reason.
    pub skipped: Vec<(&'static str, String)>,
    /// Cases that do not hold, with what was seen.
    pub failed: Vec<(&'static str, String)>,
}

impl Report {
    /// Whether this case failed.
    pub fn names(&self, case: &str) -> bool {
        self.failed.iter().any(|(name, _)| *name == case)
    }

    /// Prints every case with its outcome and fails the test when one does not hold.
    ///
    /// # Panics
    /// When a case failed, or when nothing was run.
    #[expect(clippy::print_stdout, reason = "a test's summary")]
    pub fn assert_whole(&self) {
        println!("{self}");
        assert!(self.failed.is_empty() && !self.passed.is_empty(), "conformance: {self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.passed {
            writeln!(f, "{}: {name} ... ok", self.suite)?;
        }
        for (name, why) in &self.skipped {
            writeln!(f, "{}: {name} ... skipped: {why}", self.suite)?;
        }
        for (name, why) in &self.failed {
            writeln!(f, "{}: {name} ... FAILED: {why}", self.suite)?;
        }
        let (passed, skipped, failed) = (self.passed.len(), self.skipped.len(), self.failed.len());
        write!(f, "{}: {passed} passed, {skipped} skipped, {failed} failed", self.suite)
    }
}

/// Runs every case on a store of its own, one after the other.
pub async fn run<P>(suite: &str, cases: &[Case<P>], harness: &mut dyn Harness<P>) -> Report
where
    P: ?Sized + Send + Sync,
{
    let mut report = Report { suite: suite.to_owned(), ..Report::default() };
    for case in cases {
        let late = Err(Stop::failed(format!("no end within {CASE_TIME_MAX:?}")));
        match tokio::time::timeout(CASE_TIME_MAX, (case.run)(harness)).await.unwrap_or(late) {
            Ok(()) => report.passed.push(case.name),
            Err(Stop::Skipped(why)) => report.skipped.push((case.name, why)),
            Err(Stop::Failed(why)) => report.failed.push((case.name, why)),
        }
    }
    report
}

/// Ids that differ from each other, for cases.
fn id_bytes(kind: u8, number: u64) -> [u8; 16] {
    let mut bytes = [kind; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes
}
