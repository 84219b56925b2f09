// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cluster, the devices that talk through it, and the rows.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use pli_benches::traffic::{Friends, Pace, Pair, exchange};
use pli_benches::{Direction, Limit, LimitError, Measured, Ready, Row, Summary, Target, data_folder, metric};
use pli_client::Transport;
use pli_testkit::cluster::{Cluster, ClusterSettings, Role, program};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::form::Form;

/// Delivery workers at the start; some are ended for most parts.
pub const WORKERS: usize = 4;
/// Pairs that meet or connect at once.
const CONNECTING: usize = 8;
/// Limits that would bound the load instead of the server.
const LIMITS: &str = "[directory.registrations_per_address]
burst = 1000000
per_minute = 1000000

[conversations.changes_per_account]
burst = 1000000
per_minute = 1000000

[edge.limits.session_deliveries]
burst = 100000000
per_second = 100000000

[edge.limits.session_sends]
burst = 1000000
per_second = 1000000

[logs]
filter = \"warn\"

";

/// A running cluster with devices.
pub struct Bench {
    /// Runs the clients.
    pub runtime: Runtime,
    /// How much is measured.
    pub form: Form,
    /// Roles and engines.
    pub cluster: Cluster,
    /// Rows so far.
    pub summary: Summary,
    /// Data of servers of its own; the cluster's lies there too.
    pub folder: TempDir,
    edges: Vec<Ready>,
    friends: Vec<Friends>,
    /// Rises with every set of sessions.
    round: u64,
}

impl Bench {
    /// Starts the cluster and registers the devices.
    pub fn start(form: Form) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let folder = data_folder()?;
        let place = folder.path().join("cluster");
        let base = if form.small { ClusterSettings::small } else { ClusterSettings::full }(program()?, place);
        let workers = |(role, count)| (role, if role == Role::Delivery { WORKERS } else { count });
        let roles = base.roles.iter().copied().map(workers).collect();
        let settings = ClusterSettings { roles, more: [LIMITS, form.more].concat(), ..base };
        let begun = Instant::now();
        let told = |what: &str| println!("{:6.1} s  starting {what}", begun.elapsed().as_secs_f64());
        let cluster = runtime.block_on(Cluster::start(settings, &told))?;
        let edge = |edge: pli_testkit::cluster::Edge| Ready {
            transport: Transport::WebSocket,
            address: edge.address,
            fingerprint: edge.fingerprint,
            admin: edge.admin,
        };
        let edges: Vec<Ready> = cluster.edges().into_iter().map(edge).collect();
        let meeting = (0..form.pairs + form.away).map(|n| Friends::meet(&edges, n));
        let friends: Result<Vec<Friends>> =
            runtime.block_on(futures::stream::iter(meeting).buffered(CONNECTING).try_collect());
        let friends = friends.context("two devices meet")?;
        println!("{:6.1} s  {} pairs of devices are registered", begun.elapsed().as_secs_f64(), friends.len());
        let summary = if form.small { Summary::trial() } else { Summary::open() };
        Ok(Self { runtime, form, cluster, summary, folder, edges, friends, round: 0 })
    }

    /// The processes that run now.
    pub fn target(&self) -> Target {
        let admins = self.cluster.running(None).iter().filter_map(|name| self.cluster.admin(name)).collect();
        Target { roles: self.cluster.process_ids(), engines: self.cluster.engine_process_ids(), admins }
    }

    /// Opens the sessions of the first `count` pairs.
    pub fn connect(&mut self, count: usize) -> Result<Vec<Pair>> {
        self.round += 1;
        let friends = self.friends.iter().enumerate().take(count);
        let opening = friends.map(|(n, friends)| friends.connect(&self.edges, n, self.round));
        self.runtime.block_on(futures::stream::iter(opening).buffered(CONNECTING).try_collect())
    }

    /// Opens the senders' sessions of the pairs whose receivers are away.
    pub fn connect_away(&mut self) -> Result<Vec<Pair>> {
        self.round += 1;
        let friends = self.friends.iter().enumerate().skip(self.form.pairs);
        let opening = friends.map(|(n, friends)| friends.connect_sender(&self.edges, n, self.round));
        self.runtime.block_on(futures::stream::iter(opening).buffered(CONNECTING).try_collect())
    }

    /// Lets the pairs exchange for a moment that is not measured.
    pub fn warm(&self, pairs: Vec<Pair>, pace: Pace) -> Result<Vec<Pair>> {
        Ok(self.runtime.block_on(exchange(pairs, pace, self.form.warm))?.0)
    }

    /// Measures; prints what bounded it.
    pub fn measure(&self, pairs: Vec<Pair>, pace: Pace, lasting: Duration) -> Result<(Vec<Pair>, Measured)> {
        let (pairs, measured) = self.runtime.block_on(pli_benches::measure(&self.target(), pairs, pace, lasting))?;
        println!("  {pace:?}: {:.0} messages/s; {}", measured.per_s(), measured.bound());
        Ok((pairs, measured))
    }

    /// Warms up, measures for the form's time, and fails where anything was refused.
    pub fn run(&self, pairs: Vec<Pair>, pace: Pace) -> Result<(Vec<Pair>, Measured)> {
        let pairs = self.warm(pairs, pace)?;
        let (pairs, measured) = self.measure(pairs, pace, self.form.measured)?;
        Ok((pairs, measured.whole()?))
    }

    /// Statements that each role has sent to the database so far, repetitions included.
    pub fn statements(&self) -> Result<Vec<(Role, f64)>> {
        let sum = |role| {
            let names = self.cluster.running(Some(role));
            let admins: Vec<String> = names.iter().filter_map(|name| self.cluster.admin(name)).collect();
            let each = admins.iter().map(|admin| metric(admin, "pli_cql_statements_total"));
            let sum = self.runtime.block_on(futures::future::try_join_all(each))?.iter().sum();
            Ok((role, sum))
        };
        Role::ALL.into_iter().map(sum).collect()
    }

    /// Adds a row held against a limit. In the small form, whose machine may be busy, a limit that is refused is printed
    /// and the row stands alone.
    pub fn add_limited(
        &mut self,
        (name, unit): (&str, &str),
        value: f64,
        limit: Result<Limit, LimitError>,
    ) -> Result<()> {
        let held = |limit: Limit| Ok(Row::limited(name, value, unit, &limit, Direction::Less)?);
        let row = match limit.map_err(anyhow::Error::from).and_then(held) {
            Err(error) if self.form.small => {
                println!("  left out, in the small form only: {error:#}");
                Row::plain(name, value, unit)
            }
            row => row?,
        };
        self.summary.add(row);
        Ok(())
    }

    /// Ends everything and writes the rows.
    pub fn end(mut self) -> Result<()> {
        let fallen = self.cluster.fallen();
        ensure!(fallen.is_empty(), "ended by themselves: {}", fallen.join(", "));
        self.runtime.block_on(self.cluster.close(&|_| {}))?;
        Ok(self.summary.save()?)
    }
}
