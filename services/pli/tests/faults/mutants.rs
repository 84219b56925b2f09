// SPDX-License-Identifier: MIT OR Apache-2.0
//! Planted faults that show over the real engines too: those of delivery, edge and client that need neither a log that
//! loses its end nor a schedule of thousands of seeds. A broken lane order shows only where something is lost on its way
//! and sent again, which the simulation brings about.

use pli_domain::mutant::{Mutant, choose};

use crate::faults::servers::servers;
use crate::faults::suite::run;

/// Seeds after which a rule counts as unguarded here.
const SEEDS_MAX: u64 = 3;

/// Each with what the judges must say of it, one of these: any other failure is none of the rule's and catches nothing.
const SHOWN: [(Mutant, &[&str]); 3] = [
    (Mutant::CheckpointPassesUnacked, &["Q7: "]),
    // A session that hears of what it cannot read yet is sent something over it.
    (Mutant::RingBeforeReadable, &["Q1, Q4: ", "Q2: "]),
    (Mutant::DedupeMissing, &["twice "]),
];

/// Whether the failure is one of those that the rule's breach must show as.
fn is_of_rule(failure: &str, expected: &[&str]) -> bool {
    let says = |part: &str| expected.iter().any(|expected| part.starts_with(expected));
    says(failure) || failure.strip_prefix("the history: ").is_some_and(|found| found.split("; ").any(says))
}

#[test]
fn only_the_rule_that_was_broken_counts() {
    for (_, expected) in SHOWN {
        assert!(is_of_rule(&format!("{}and so on", expected[0]), expected));
        for other in ["Q8: not drained 90s after the last fault", "", "the history: lost 1 on 80: a/1"] {
            assert!(!is_of_rule(other, expected), "{other}");
        }
    }
    assert!(is_of_rule("the history: lost 1 on 80: a/1; twice 2 on 81: b/1 b/2", &["twice "]));
}

#[tokio::test]
async fn mutants_show_over_real_engines() {
    let Some(servers) = servers("mutants_show_over_real_engines").await else { return };
    let mut missed = Vec::new();
    for (mutant, expected) in SHOWN {
        let mut caught = None;
        for seed in 1..=SEEDS_MAX {
            choose(Some(mutant));
            let outcome = run(&servers, seed).await;
            choose(None);
            match outcome.failure {
                Some(failure) if is_of_rule(&failure, expected) => {
                    caught = Some((seed, failure));
                    break;
                }
                Some(failure) => println!("{:<29} seed {seed} fails otherwise: {failure}", mutant.name()),
                None => {}
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
