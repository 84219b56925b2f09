// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conformance suites of the five ports, with new openings and killed nodes.

use std::sync::Arc;

use async_trait::async_trait;
use pli_engine_cql::CqlEngine;
use pli_ports::{Accounts, Conversations, DeviceQueues, Links, Media, Payloads};
use pli_testkit::conformance::{self, Case, Harness, Restart};
use scylla::client::session::Session;

use crate::support::{Turn, server, truncate};

/// One engine at a time, the port that a suite asks of it, and the tables of that port.
struct Node<P: ?Sized> {
    server: Turn,
    engine: Option<CqlEngine>,
    raw: Option<Session>,
    port: fn(&CqlEngine) -> Arc<P>,
    tables: &'static [&'static str],
}

impl<P: ?Sized> Node<P> {
    async fn opened(&mut self) -> Arc<P> {
        if self.engine.is_none() {
            self.engine = Some(self.server.engine().await);
        }
        (self.port)(self.engine.as_ref().unwrap())
    }
}

#[async_trait]
impl<P: ?Sized + Send + Sync> Harness<P> for Node<P> {
    async fn fresh(&mut self) -> Arc<P> {
        if self.raw.is_none() {
            self.raw = Some(self.server.raw().await);
        }
        truncate(self.raw.as_ref().unwrap(), &self.server.options, self.tables).await;
        self.opened().await
    }

    /// In order: the engine is closed and opened again. Killed: so is the node.
    async fn restart(&mut self, how: Restart) -> Option<Arc<P>> {
        self.engine = None;
        match how {
            Restart::Clean => {}
            Restart::Kill if self.server.ring.is_some() => {
                self.raw = None;
                self.server.kill_and_resume().await;
            }
            Restart::Kill | Restart::PowerCut => return None,
        }
        Some(self.opened().await)
    }

    fn is_networked(&self) -> bool {
        true
    }

    fn forgets_by_itself(&self) -> bool {
        true
    }
}

async fn hold<P>(suite: &str, cases: &[Case<P>], port: fn(&CqlEngine) -> Arc<P>, tables: &'static [&'static str])
where
    P: ?Sized + Send + Sync,
{
    let Some(server) = server(&format!("conformance of {suite} on CQL")).await else { return };
    let mut node = Node { server, engine: None, raw: None, port, tables };
    let started = std::time::Instant::now();
    let report = conformance::run(suite, cases, &mut node).await;
    println!("{suite}: {:.1} s", started.elapsed().as_secs_f32());
    report.assert_whole();
    let survived =
        report.passed.iter().filter(|case| case.ends_with("_survive_a_kill") || case.ends_with("_survives_a_kill"));
    assert!(node.server.ring.is_none() || survived.count() > 0, "no case was run across a kill");
}

#[tokio::test(flavor = "multi_thread")]
async fn device_queues_hold_across_openings_and_kills() {
    let tables = &["device_queue", "device_cursor", "shard_state", "aside_entry"];
    hold::<dyn DeviceQueues>("device queues", conformance::device_queues::CASES, CqlEngine::device_queues, tables)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_hold_across_openings_and_kills() {
    let tables = &["account", "handle", "device_account", "device_list", "device_removal", "key_package"];
    hold::<dyn Accounts>("accounts", conformance::accounts::CASES, CqlEngine::accounts, tables).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_hold_across_openings_and_kills() {
    let tables = &["conversation", "conversation_epoch", "account_conversation", "unfinished_commit"];
    hold::<dyn Conversations>("conversations", conformance::conversations::CASES, CqlEngine::conversations, tables)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_hold_across_openings_and_kills() {
    hold::<dyn Payloads>("payloads", conformance::payloads::CASES, CqlEngine::payloads, &["payload"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_hold_across_openings_and_kills() {
    hold::<dyn Links>("links", conformance::links::CASES, CqlEngine::links, &["rendezvous"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn media_hold_across_openings_and_kills() {
    let tables = &["media_upload", "media_part"];
    hold::<dyn Media>("media", conformance::media::CASES, CqlEngine::media, tables).await;
}

/// The commit log is mapped into memory, where the shim that cuts power under SQLite does not see writes.
#[test]
fn power_cuts_lose_nothing() {
    println!("skipped: power cuts under the CQL engine: this harness cannot cut the power of a database node");
}
