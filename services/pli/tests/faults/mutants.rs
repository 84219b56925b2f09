// SPDX-License-Identifier: MIT OR Apache-2.0
//! Planted faults that show over the real engines too: those of delivery, edge and client that need neither a log that
//! loses its end nor a schedule of thousands of seeds.

use pli_domain::mutant::{Mutant, choose};

use crate::faults::servers::servers;
use crate::faults::suite::run;

/// Seeds after which a rule counts as unguarded here.
const SEEDS_MAX: u64 = 3;

const SHOWN: [Mutant; 4] =
    [Mutant::CheckpointPassesUnacked, Mutant::RingBeforeReadable, Mutant::DedupeMissing, Mutant::LaneOrderBroken];

#[tokio::test]
async fn mutants_show_over_real_engines() {
    let Some(servers) = servers("mutants_show_over_real_engines").await else { return };
    let mut missed = Vec::new();
    for mutant in SHOWN {
        let mut caught = None;
        for seed in 1..=SEEDS_MAX {
            choose(Some(mutant));
            let outcome = run(&servers, seed).await;
            choose(None);
            if let Some(failure) = outcome.failure {
                caught = Some((seed, failure));
                break;
            }
        }
        match caught {
            Some((seed, failure)) => {
                let check: String = failure.lines().next().unwrap_or_default().chars().take(100).collect();
                println!("{:<29} seeds needed {seed}: {check}", mutant.name());
            }
            None => missed.push(mutant.name()),
        }
    }
    println!("caught {} of {} over real engines", SHOWN.len() - missed.len(), SHOWN.len());
    assert_eq!(missed, [""; 0], "not caught");
}
