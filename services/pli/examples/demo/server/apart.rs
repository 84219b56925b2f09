// SPDX-License-Identifier: MIT OR Apache-2.0
//! A cluster: NATS servers, CQL nodes, and every role a process of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use pli_client::{Fingerprint, ServerAddress};
use pli_domain::protocol::RoleProtocol;
use pli_testkit::cluster::{Cluster, ClusterSettings, Edge, Role, program};
use tokio::time::sleep;

use super::counter;

/// Shorter than the defaults, so that a fault is over sooner: leases of 3 s, settled every second, rows after two.
const SHORT_TIMES: &str = "[delivery]
lease_ttl_ms = 3000
lease_renew_ms = 1000
settle_every_ms = 1000
spill_after_ms = 2000
announce_round_ms = 1000
start_backoff_max_ms = 4000

[logs]
filter = \"info\"
";
/// Until processes are restarted one by one they speak the version before the newest.
const OLD: u16 = RoleProtocol::OLDEST.get();
/// Longer than such a lease, and than the time that it takes another worker to take it.
const LEASE_OVER: Duration = Duration::from_secs(8);
/// How long workers are watched to see which one has most to do.
const WATCHED: Duration = Duration::from_secs(1);

/// How many servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// One NATS server, one CQL node.
    Small,
    /// Three of each, two processes of every role.
    Full,
}

/// A running cluster.
pub struct Apart {
    /// Its processes.
    pub cluster: Cluster,
    edges: Vec<Edge>,
}

impl Apart {
    /// Starts it in a fresh folder.
    pub async fn start(size: Size, folder: &Path) -> anyhow::Result<Self> {
        let (program, folder) = (program()?, folder.join("cluster"));
        let settings = match size {
            Size::Small => ClusterSettings::small(program, folder),
            Size::Full => ClusterSettings::full(program, folder),
        };
        let begun = Instant::now();
        let told = |what: &str| println!("{:6.1} s  starting {what}", begun.elapsed().as_secs_f64());
        let settings = ClusterSettings { protocol_version: Some(OLD), more: SHORT_TIMES.into(), ..settings };
        let cluster = Cluster::start(settings, &told).await?;
        println!("{:6.1} s  the cluster is ready", begun.elapsed().as_secs_f64());
        let edges = cluster.edges();
        Ok(Self { cluster, edges })
    }

    /// Edges in turn: every second device begins at the second one.
    pub fn addresses(&self, device: usize) -> anyhow::Result<(ServerAddress, Vec<ServerAddress>)> {
        let mut all = self.edges.iter().map(|edge| edge.address.parse()).collect::<Result<Vec<ServerAddress>, _>>()?;
        anyhow::ensure!(!all.is_empty(), "the cluster has no edge");
        let turn = device % all.len();
        all.rotate_left(turn);
        let first = all.remove(0);
        Ok((first, all))
    }

    /// What every edge shows.
    pub fn fingerprint(&self) -> anyhow::Result<Fingerprint> {
        Ok(self.edges.first().context("the cluster has no edge")?.fingerprint.parse()?)
    }

    /// Where the conversations services tell metrics.
    pub fn conversations(&self) -> Vec<String> {
        let names = self.cluster.names(Some(Role::Conversations));
        names.iter().filter_map(|name| self.cluster.admin(name)).collect()
    }

    /// The delivery worker that rings most doorbells now: it owns shards of the people who talk.
    pub async fn busiest_worker(&self) -> anyhow::Result<String> {
        let workers = self.cluster.names(Some(Role::Delivery));
        let before = self.doorbells(&workers).await?;
        sleep(WATCHED).await;
        let after = self.doorbells(&workers).await?;
        let rung = before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before));
        let busiest = rung.zip(workers).max().filter(|(rung, _)| *rung > 0);
        Ok(busiest.context("no delivery worker rings anybody")?.1)
    }

    async fn doorbells(&self, workers: &[String]) -> anyhow::Result<Vec<u64>> {
        let mut rung = Vec::new();
        for worker in workers {
            let admin = self.cluster.admin(worker).context("a worker without an admin port")?;
            rung.push(counter(&admin, "pli_delivery_doorbells", |_| true).await?);
        }
        Ok(rung)
    }

    /// After this time others have taken the leases of a worker that is stopped.
    pub const fn lease_over(&self) -> Duration {
        LEASE_OVER
    }

    /// Ends all in order.
    pub async fn end(mut self) -> anyhow::Result<()> {
        let fallen = self.cluster.fallen();
        anyhow::ensure!(fallen.is_empty(), "ended by themselves: {}", fallen.join(", "));
        Ok(self.cluster.close(&|_| {}).await?)
    }
}
