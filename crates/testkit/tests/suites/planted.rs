// SPDX-License-Identifier: MIT OR Apache-2.0
//! Models that break one rule each: the suite must name the case that states the rule.

mod bus;
mod links;
mod log;
mod media;
mod queues;
mod tables;

use std::sync::Arc;

use pli_testkit::conformance::{Case, run};
use pli_testkit::memory::{FaultPlan, MemoryWorld, WorldOptions};

use super::models::Models;

/// Runs the suite on the broken model and expects it to report at least the named case.
async fn caught<P>(cases: &[Case<P>], expected: &str, open: impl Fn(&MemoryWorld) -> Arc<P> + Send + Sync + 'static)
where
    P: ?Sized + Send + Sync + 'static,
{
    let mut models = Models::new(WorldOptions::default(), FaultPlan::default(), Box::new(open));
    named(cases, expected, &mut models).await;
}

async fn named<P: ?Sized + Send + Sync + 'static>(cases: &[Case<P>], expected: &str, models: &mut Models<P>) {
    assert!(cases.iter().any(|case| case.name == expected), "no case is called {expected}");
    let report = run("planted", cases, models).await;
    assert!(report.names(expected), "{expected} does not notice the planted fault:\n{report}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_forgets_is_caught_by_every_suite() {
    use pli_testkit::conformance as suites;
    let (options, plan) = (WorldOptions::default(), FaultPlan::default());
    for how in ["restart", "kill", "power_cut"] {
        let mut log = Models::of_log(options, plan).forgetful();
        named(suites::shard_log::CASES, &format!("acknowledged_appends_survive_a_{how}"), &mut log).await;
        named(suites::shard_log::CASES, &format!("sequences_are_not_reused_after_trim_and_{how}"), &mut log).await;
        let mut queues = Models::of_queues(options, plan).forgetful();
        for what in ["what_was_settled_survives", "trims_and_removals_survive", "decisions_survive"] {
            named(suites::device_queues::CASES, &format!("{what}_a_{how}"), &mut queues).await;
        }
        let mut accounts = Models::of_accounts(options, plan).forgetful();
        named(suites::accounts::CASES, &format!("accounts_survive_a_{how}"), &mut accounts).await;
        let mut conversations = Models::of_conversations(options, plan).forgetful();
        named(suites::conversations::CASES, &format!("conversations_survive_a_{how}"), &mut conversations).await;
        let mut links = Models::of_links(options, plan).forgetful();
        named(suites::links::CASES, &format!("rendezvous_survive_a_{how}"), &mut links).await;
        let mut media = Models::of_media(options, plan).forgetful();
        named(suites::media::CASES, &format!("uploads_survive_a_{how}"), &mut media).await;
        let mut payloads = Models::of_payloads(options, plan).forgetful();
        named(suites::payloads::CASES, &format!("payloads_survive_a_{how}"), &mut payloads).await;
    }
    let mut leases = Models::of_leases(options, plan).forgetful();
    named(suites::leases::CASES, "generations_grow_across_a_kill", &mut leases).await;
}
