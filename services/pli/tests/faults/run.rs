// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run over the real engines: connect, work, break as asked, mend, drain, judge.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pli_engine_cql::CqlOptions;
use pli_engine_nats::NatsOptions;

use crate::faults::connections::{Connections, Skew};
use crate::faults::servers::Servers;
use crate::faults::strike::Striker;
use crate::simulation::cast::{self, Cast, Outcome};
use crate::simulation::plan::Plan;
use crate::simulation::stores::Place;
use crate::simulation::trace::Told;

/// Time in which everything must have drained once faults are over: backoffs of clients and owners, leases, sessions
/// that look again, and everything once more for each log epoch that began meanwhile, on a machine that does other things
/// too.
const DRAIN_MAX: Duration = Duration::from_secs(300);

/// Runs over the servers of this process: the ids of each are its own.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// Everything at work on real engines.
pub struct Run<'a> {
    pub servers: &'a Servers,
    pub connections: Arc<Connections>,
    pub cast: Cast,
    pub plan: Arc<Plan>,
    story: PathBuf,
}

/// A story goes to a file, and is printed too when it is asked for.
fn story(path: &Path, printed: bool) -> Told {
    let mut file = std::fs::File::create(path).map(std::io::BufWriter::new).ok();
    Box::new(move |at, text| {
        if printed {
            println!("{:>7}.{:03} {text}", at / 1000, at % 1000);
        }
        // A story that cannot be written fails nothing.
        drop(file.as_mut().map(|file| writeln!(file, "{:>7}.{:03} {text}", at / 1000, at % 1000)));
    })
}

impl<'a> Run<'a> {
    /// Everything starts over these servers; clocks of places are off as said.
    pub async fn begin(servers: &'a Servers, name: &str, plan: Plan, skews: &[(Place, Skew)]) -> Run<'a> {
        Self::begin_over(servers, (&servers.nats_options, &servers.cql_options), name, plan, skews).await
    }

    /// The same over another log and other tables.
    pub async fn begin_over(
        servers: &'a Servers,
        engines: (&NatsOptions, &CqlOptions),
        name: &str,
        plan: Plan,
        skews: &[(Place, Skew)],
    ) -> Run<'a> {
        let connections = Connections::open(engines, plan.owners, plan.edges).await;
        for (place, skew) in skews {
            *crate::simulation::world::lock(&connections.at(*place).skew) = *skew;
        }
        let again = RUNS.fetch_add(1, Ordering::Relaxed);
        let (connections, plan) = (Arc::new(connections), Arc::new(Plan { again, ..plan }));
        let shards = connections.shard_map().await;
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{name}.log"));
        let told = story(&path, std::env::var_os("PLI_FAULTS_SEED").is_some());
        let cast = cast::build(&plan, connections.clone(), shards, Some(told));
        Self { servers, connections, cast, plan, story: path }
    }

    /// The means to break it.
    pub fn striker(&self) -> Striker<'_> {
        Striker {
            servers: self.servers,
            connections: self.connections.clone(),
            cast: &self.cast,
            owners: self.plan.owners,
            edges: self.plan.edges,
        }
    }

    /// Waits until so many messages more were shown than when it was called; panics where that takes too long.
    pub async fn shown(&self, more: usize) {
        let shown = || {
            let history = self.cast.world.history();
            history.iter().filter(|event| matches!(event, pli_testkit::history::Event::Shown { .. })).count()
        };
        let wanted = shown() + more;
        self.until(&format!("{more} more messages are shown"), || shown() >= wanted).await;
    }

    /// Waits for a condition.
    pub async fn until(&self, what: &str, holds: impl FnMut() -> bool) {
        let held = pli_testkit::time::eventually(DRAIN_MAX, holds).await;
        assert!(held, "not within {DRAIN_MAX:?}: {what}; the story is in {}", self.story.display());
    }

    /// Mends everything, waits until all has arrived, judges, and ends.
    pub async fn end(self) -> Outcome {
        self.striker().calm();
        self.cast.status.iter().for_each(|status| status.calm.store(true, Ordering::Relaxed));
        let drained = cast::drain(&self.cast, DRAIN_MAX).await;
        let mut outcome = cast::finish(&self.cast, drained);
        drop(self.cast);
        self.connections.close().await;
        if let Some(failure) = outcome.failure.as_mut() {
            *failure = format!("{failure}; the story is in {}", self.story.display());
        }
        outcome
    }
}
