// SPDX-License-Identifier: MIT OR Apache-2.0
//! Seeds.

use std::collections::BTreeMap;

use crate::faults::run::Run;
use crate::faults::schedule::{Fault, plan, schedule};
use crate::faults::servers::{Servers, servers};
use crate::simulation::cast::Outcome;
use crate::simulation::rare::Rare;
use crate::simulation::seeds::number;

/// Seeds that CI runs; 45 s each.
const SEEDS: u64 = 3;
/// Seeds of the long mode.
const SOAK_SEEDS: u64 = 40;
/// Overlaps of two owners that CI must have met.
const OVERLAPS_MIN: u64 = 20;
/// Messages that CI must have expected on devices.
const EXPECTED_MIN: u64 = 500;

/// One seed.
pub async fn run(servers: &Servers, seed: u64) -> Outcome {
    let run = Run::begin(servers, &format!("seed-{seed}"), plan(seed), &[]).await;
    run.striker().rage(&schedule(seed)).await;
    run.end().await
}

fn tell(seed: u64, failure: &str) {
    eprintln!("seed {seed} fails; replay its faults with: make faults SEED={seed}\n  {failure}");
    schedule(seed).iter().for_each(|blow| eprintln!("  {blow}"));
}

#[test]
fn a_seed_gives_one_schedule_with_every_kind_of_fault() {
    for seed in 0..100 {
        let blows = schedule(seed);
        assert_eq!(blows, schedule(seed));
        assert!(blows.is_sorted_by_key(|blow| blow.at));
        let kinds: std::collections::BTreeSet<Fault> = blows.iter().map(|blow| blow.fault).collect();
        assert_eq!(kinds.len(), Fault::ALL.len(), "seed {seed}");
    }
    assert_ne!(schedule(1), schedule(2));
}

#[tokio::test]
async fn nothing_accepted_is_lost_shown_twice_or_reordered_over_real_engines() {
    let name = "nothing_accepted_is_lost_shown_twice_or_reordered_over_real_engines";
    let Some(servers) = servers(name).await else { return };
    let soak = if std::env::var_os("PLI_SOAK").is_some() { SOAK_SEEDS } else { SEEDS };
    let one = number("PLI_FAULTS_SEED");
    let seeds = one.map_or(1..=number("PLI_FAULTS_SEEDS").unwrap_or(soak), |seed| seed..=seed);
    let (total, mut failed, mut expected) = (Rare::default(), Vec::new(), 0);
    let mut struck: BTreeMap<Fault, u32> = BTreeMap::new();
    for seed in seeds.clone() {
        let outcome = run(&servers, seed).await;
        total.add(&outcome.rare);
        expected += outcome.report.devices.values().map(|device| device.expected as u64).sum::<u64>();
        schedule(seed).iter().for_each(|blow| *struck.entry(blow.fault).or_default() += 1);
        if let Some(failure) = outcome.failure {
            tell(seed, &failure);
            failed.push(seed);
        }
    }
    println!("seeds {seeds:?}: {expected} messages expected on devices, faults {struck:?}");
    let few = ["overlap of two owners that settled", "reader created again", "hand-over with a non-empty tail"];
    let counted = total.rows().into_iter().filter(|(_, count, _)| *count > 0);
    counted.for_each(|(name, count, _)| println!("{count:>8}  {name}"));
    assert!(failed.is_empty(), "seeds {failed:?} fail");
    if one.is_none() && seeds.count() as u64 >= SEEDS {
        let rows = total.rows();
        let count = |name: &&str| rows.iter().find(|row| row.0 == *name).map_or(0, |row| row.1);
        assert!(total.overlap.get() >= OVERLAPS_MIN, "{} overlaps, fewer than {OVERLAPS_MIN}", total.overlap.get());
        few.iter().for_each(|name| assert!(count(name) > 0, "never reached: {name}"));
        assert!(expected >= EXPECTED_MIN, "{expected} messages, fewer than {EXPECTED_MIN}");
    }
}
