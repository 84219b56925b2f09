// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lease store loses what it knew, or is gone.

use pli_engine_nats::LEASE_STREAM;
use serde_json::json;

use super::{assert_whole, plan};
use crate::faults::run::Run;
use crate::faults::servers::{jetstream, migrate, purge_leases, servers};
use crate::simulation::stores::Place;

#[tokio::test]
async fn a_lease_store_that_forgot_or_was_deleted_is_taken_from_anew_and_nothing_is_lost() {
    let name = "a_lease_store_that_forgot_or_was_deleted_is_taken_from_anew_and_nothing_is_lost";
    let Some(servers) = servers(name).await else { return };
    let run = Run::begin(&servers, "leases-gone", plan(), &[]).await;
    run.shown(20).await;
    let starts = || run.cast.owners.counted(|count| count.starts);
    let before = starts();
    purge_leases(&servers.nats, None).await;
    run.until("shards are taken again", || starts() > before).await;
    run.shown(20).await;
    jetstream(&servers.nats, &format!("STREAM.DELETE.{LEASE_STREAM}"), json!({})).await;
    let nats = &run.connections.at(Place::Owner(0)).nats;
    let refusal = nats.check().await.into_result().expect_err("the bucket is gone").to_string();
    let said = format!("stream {LEASE_STREAM} is missing; migrate creates it");
    assert!(refusal.contains(&said), "{refusal}");
    let before = starts();
    // Owners go on until their leases would have ended, and nobody can take one.
    migrate(&servers.nats_options).await;
    run.until("shards are taken again", || starts() > before).await;
    run.shown(20).await;
    assert_whole(&run.end().await);
}
