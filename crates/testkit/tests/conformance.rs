// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every suite on the models, and every suite on models with a planted fault, which it must report.

mod suites {
    pub mod models;
    mod planted;
    mod retried;
}

use pli_domain::ShardId;
use pli_testkit::conformance;

use suites::models::{Models, paces, worlds};

#[tokio::test(start_paused = true)]
async fn shard_log() {
    for (name, options, plan) in worlds() {
        let mut models = Models::of_log(options, plan);
        let suite = format!("shard log ({name})");
        conformance::run(&suite, conformance::shard_log::CASES, &mut models).await.assert_whole();
        assert!(models.world().log_entries(ShardId::new(0)).is_empty(), "a case used another shard than it said");
    }
}

#[tokio::test(start_paused = true)]
async fn device_queues() {
    for (name, options, plan) in paces() {
        let mut models = Models::of_queues(options, plan);
        let suite = format!("device queues ({name})");
        conformance::run(&suite, conformance::device_queues::CASES, &mut models).await.assert_whole();
    }
}

#[tokio::test(start_paused = true)]
async fn leases() {
    for (name, options, plan) in paces() {
        let mut models = Models::of_leases(options, plan);
        let suite = format!("leases ({name})");
        conformance::run(&suite, conformance::leases::CASES, &mut models).await.assert_whole();
    }
}

#[tokio::test(start_paused = true)]
async fn signals() {
    for (name, options, plan) in paces() {
        let mut models = Models::of_signals(options, plan);
        let suite = format!("signals ({name})");
        conformance::run(&suite, conformance::signals::CASES, &mut models).await.assert_whole();
    }
}

#[tokio::test(start_paused = true)]
async fn accounts() {
    for (name, options, plan) in paces() {
        let mut models = Models::of_accounts(options, plan);
        let suite = format!("accounts ({name})");
        conformance::run(&suite, conformance::accounts::CASES, &mut models).await.assert_whole();
    }
}

#[tokio::test(start_paused = true)]
async fn conversations() {
    for (name, options, plan) in paces() {
        let mut models = Models::of_conversations(options, plan);
        let suite = format!("conversations ({name})");
        conformance::run(&suite, conformance::conversations::CASES, &mut models).await.assert_whole();
    }
}

#[tokio::test(start_paused = true)]
async fn payloads() {
    for (name, options, plan) in paces() {
        let mut models = Models::of_payloads(options, plan);
        let suite = format!("payloads ({name})");
        conformance::run(&suite, conformance::payloads::CASES, &mut models).await.assert_whole();
    }
}

#[tokio::test(start_paused = true)]
async fn links() {
    for (name, options, plan) in paces() {
        let mut models = Models::of_links(options, plan);
        let suite = format!("links ({name})");
        conformance::run(&suite, conformance::links::CASES, &mut models).await.assert_whole();
    }
}

#[tokio::test(start_paused = true)]
async fn media() {
    for (name, options, plan) in paces() {
        let mut models = Models::of_media(options, plan);
        let suite = format!("media ({name})");
        conformance::run(&suite, conformance::media::CASES, &mut models).await.assert_whole();
    }
}
