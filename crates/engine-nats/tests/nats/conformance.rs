// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conformance suites, with restarts and kills of the servers.

use std::sync::Arc;

use async_trait::async_trait;
use pli_engine_nats::{NatsEngine, NatsOptions};
use pli_ports::{Leases, ShardLog, Signals};
use pli_testkit::conformance::{self, Case, Harness, Restart};
use pli_testkit::engines::nats::{Down, NatsServers, NatsSettings};

use crate::support::{delete_streams, engine, one_server, options, servers};

/// Running servers, one engine at a time, and the port that a suite asks of it.
struct Suite<P: ?Sized> {
    servers: NatsServers,
    options: NatsOptions,
    engine: Option<NatsEngine>,
    port: fn(&NatsEngine) -> Arc<P>,
}

impl<P: ?Sized> Suite<P> {
    fn new(servers: NatsServers, port: fn(&NatsEngine) -> Arc<P>) -> Self {
        // One stream: what the suite does to one shard must not reach the others in it.
        let options = options(&servers);
        Self { servers, options, engine: None, port }
    }

    async fn close(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.close().await;
        }
    }
}

#[async_trait]
impl<P: ?Sized + Send + Sync> Harness<P> for Suite<P> {
    async fn fresh(&mut self) -> Arc<P> {
        self.close().await;
        delete_streams(&self.servers).await;
        (self.port)(self.engine.insert(engine(self.options.clone()).await))
    }

    async fn restart(&mut self, how: Restart) -> Option<Arc<P>> {
        let how = match how {
            Restart::Clean => Down::Stopped,
            Restart::Kill => Down::Killed,
            Restart::PowerCut => return None,
        };
        self.close().await;
        self.servers.all_down(how);
        self.servers.start_all().await.unwrap();
        Some((self.port)(self.engine.insert(engine(self.options.clone()).await)))
    }

    fn is_networked(&self) -> bool {
        true
    }
}

async fn hold<P>(suite: &str, cases: &[Case<P>], mut servers: Suite<P>)
where
    P: ?Sized + Send + Sync,
{
    let report = conformance::run(suite, cases, &mut servers).await;
    report.assert_whole();
    let power_cuts_only = report.skipped.iter().all(|(case, _)| case.ends_with("power_cut"));
    assert!(power_cuts_only, "skipped: {:?}", report.skipped);
    servers.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shard_log_on_one_server() {
    let Some(servers) = one_server("shard_log_on_one_server").await else { return };
    let suite = Suite::<dyn ShardLog>::new(servers, NatsEngine::shard_log);
    hold("shard log (R1)", conformance::shard_log::CASES, suite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shard_log_on_three_servers() {
    let settings = NatsSettings { servers: 3, ..NatsSettings::default() };
    let Some(servers) = servers("shard_log_on_three_servers", settings).await else { return };
    let suite = Suite::<dyn ShardLog>::new(servers, NatsEngine::shard_log);
    hold("shard log (R3)", conformance::shard_log::CASES, suite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_on_one_server() {
    let Some(servers) = one_server("signals_on_one_server").await else { return };
    let suite = Suite::<dyn Signals>::new(servers, NatsEngine::signals);
    hold("signals", conformance::signals::CASES, suite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_on_one_server() {
    let Some(servers) = one_server("leases_on_one_server").await else { return };
    let mut suite = Suite::<dyn Leases>::new(servers, NatsEngine::leases);
    // The suite leases shards up to 300, more than one stream of logs takes.
    (suite.options.layout.shards, suite.options.layout.streams) = (1_024, 8);
    hold("leases", conformance::leases::CASES, suite).await;
}

#[test]
fn acknowledged_appends_survive_a_power_cut() {
    println!(
        "skipped: nats acknowledged_appends_survive_a_power_cut and sequences_are_not_reused_after_trim_and_power_cut: \
         the server is a static binary whose files cannot be held back here; kills are tested, and a server that does \
         not sync is refused"
    );
}
