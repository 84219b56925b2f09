// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every role in a process of its own over real servers, small: one NATS server, one CQL node. The demo plays the same
//! scenes with three of each (`make demo-cluster`).
#![allow(clippy::print_stdout, reason = "a transcript, and a line that says why a test is skipped")]

#[path = "../examples/demo/main.rs"]
#[allow(dead_code, reason = "a test plays some of the demo's scenes")]
mod demo;

use std::time::Duration;

use pli_testkit::cluster::ClusterError;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use demo::scenes::{self, Fault, Scene, Script};
use demo::server::{Kind, Size};
use demo::stage::Stage;

/// Start, conversation, faults and end.
const TIME_MAX: Duration = Duration::from_secs(480);

/// The cluster, or none and a line that says why.
async fn stage(test: &str, seed: u64) -> Option<Stage> {
    match Stage::set(Kind::Cluster(Size::Small), seed).await {
        Ok(stage) => Some(stage),
        Err(error) if error.downcast_ref().is_some_and(ClusterError::is_unavailable) => {
            println!("skipped: {test}: {error:#}");
            None
        }
        Err(error) => panic!("{error:#}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_twice_or_reordered_while_edges_and_owners_die_and_come_back() {
    let seed = rand::random();
    println!("seed {seed}");
    let name = "nothing_is_lost_twice_or_reordered_while_edges_and_owners_die_and_come_back";
    let Some(mut stage) = stage(name, seed).await else { return };
    let mut faults = vec![Fault::KillEdge, Fault::KillWorker, Fault::Zombie];
    faults.shuffle(&mut StdRng::seed_from_u64(seed));
    // From the older protocol between roles to the newest; what comes before it struck the older one.
    faults.insert(1, Fault::Rolling);
    let script = Script { scenes: vec![Scene::Away, Scene::Faults], queued: 50, kills: 0, faults, races: 0 };
    let played = tokio::time::timeout(TIME_MAX, scenes::play(&mut stage, &script)).await;
    let outcome = played.map_err(|_| anyhow::anyhow!("no end within {TIME_MAX:?}")).and_then(|outcome| outcome);
    let (report, ended) = stage.clear(outcome.is_err()).await;
    let outcome = outcome.unwrap();
    println!("{outcome}\n{report}");
    ended.unwrap();
    assert!(outcome.is_whole(&script), "{outcome}");
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.accepted, report.stored), (report.intended, report.intended), "{report:?}");
    let missing: usize = report.devices.values().map(|device| device.missing.len()).sum();
    assert_eq!(missing, 0, "{report:?}");
}
