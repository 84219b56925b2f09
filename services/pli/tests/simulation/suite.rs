// SPDX-License-Identifier: MIT OR Apache-2.0
//! What CI runs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::simulation::cast::Outcome;
use crate::simulation::plan::Plan;
use crate::simulation::rare::Rare;
use crate::simulation::run::{run, run_told};
use crate::simulation::seeds::number;
use crate::simulation::world::lock;

/// Seeds that CI runs unless `PLI_SIM_SEEDS` says otherwise.
const SEEDS: u64 = 1_000;
/// Seeds that are run twice.
const TWICE: u64 = 20;
/// Events after which a seed is held up.
const HELD_UP_EVERY: u64 = 4_000;

/// Runs seeds on all cores and gives each outcome to `each`, in no order.
fn many(seeds: std::ops::Range<u64>, each: impl Fn(u64, Outcome) + Sync) {
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    each(seed, run(Plan::of(seed), false));
                }
            });
        }
    });
}

#[test]
fn nothing_accepted_is_lost_shown_twice_or_reordered() {
    if let Some(seed) = number("PLI_SIM_SEED") {
        let plan = Plan::of(seed);
        println!("{plan:#?}");
        let outcome = run(plan, true);
        println!("{}\nseed {seed}: {} events, hash {:016x}", outcome.rare, outcome.events, outcome.hash);
        assert_eq!(outcome.failure, None, "seed {seed}");
        return;
    }
    let seeds = number("PLI_SIM_SEEDS").unwrap_or(SEEDS);
    let (total, failures) = (Rare::default(), Mutex::new(Vec::new()));
    let (events, expected) = (AtomicU64::new(0), AtomicU64::new(0));
    many(0..seeds, |seed, outcome| {
        total.add(&outcome.rare);
        events.fetch_add(outcome.events, Ordering::Relaxed);
        let shown = outcome.report.devices.values().map(|d| d.expected as u64).sum();
        expected.fetch_add(shown, Ordering::Relaxed);
        if let Some(failure) = outcome.failure {
            eprintln!("seed {seed} fails; replay it with: make sim SEED={seed}\n  {failure}");
            lock(&failures).push(seed);
        }
    });
    let (events, expected) = (events.into_inner(), expected.into_inner());
    println!("{seeds} seeds, {events} events, {expected} messages expected on devices\n{total}");
    let failures = failures.into_inner().expect("no thread panicked");
    assert!(failures.is_empty(), "seeds {failures:?} fail");
    if seeds >= SEEDS {
        let few: Vec<_> = total.rows().into_iter().filter(|(_, count, least)| count < least).collect();
        assert!(few.is_empty(), "too seldom reached: {few:?}");
    }
}

#[test]
fn a_seed_run_twice_gives_one_trace() {
    let hashes = Mutex::new(std::collections::BTreeMap::new());
    for _ in 0..2 {
        many(0..TWICE, |seed, outcome| {
            let now = (outcome.hash, outcome.events);
            let before = *lock(&hashes).entry(seed).or_insert(now);
            assert_eq!(before, now, "seed {seed} gives another trace; compare two runs of: make sim SEED={seed}");
        });
    }
}

/// A busy machine must not change what a seed does: nothing may go by the clock of the machine.
#[test]
fn a_seed_that_the_machine_holds_up_gives_the_same_trace() {
    // Longer than a device's key is believed, and than a cache leaves its housekeeping; the machine's time itself is tested.
    let key = pli_edge::Config::default().device_key_ms + 1_000;
    let (mut events, mut pauses) = (0_u64, [key, 350, 350, 350].into_iter());
    let held_up = Box::new(move |_: u128, _: std::fmt::Arguments<'_>| {
        events += 1;
        if events.is_multiple_of(HELD_UP_EVERY)
            && let Some(pause) = pauses.next()
        {
            std::thread::sleep(Duration::from_millis(pause));
        }
    });
    let (slow, quick) = (run_told(Plan::of(5), Some(held_up)), run(Plan::of(5), false));
    assert_eq!((slow.hash, slow.events), (quick.hash, quick.events));
    assert!(quick.events > HELD_UP_EVERY * 4, "{} events: it is held up too seldom", quick.events);
}
