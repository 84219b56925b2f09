// SPDX-License-Identifier: MIT OR Apache-2.0
//! Breaks one rule at a time and counts the seeds until the simulation notices.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use pli_domain::mutant::{Mutant, choose};

use crate::simulation::plan::{Lean, Plan};
use crate::simulation::run::run;
use crate::simulation::world::lock;

/// Seeds after which a rule counts as unguarded.
const SEEDS_MAX: u64 = 3_000;

/// Who is to notice.
enum Guard {
    /// The simulation, with schedules that lean towards the states in which the rule matters.
    Simulation(&'static [Lean]),
    /// Another check, run by itself under `PLI_MUTANT`.
    Elsewhere(&'static str),
}

fn guard(mutant: Mutant) -> Guard {
    use Guard::{Elsewhere, Simulation};
    use Lean::{Bells, Devices, Even, Forks, Owners, Stores};
    match mutant {
        Mutant::FsyncLeftOut => Elsewhere("the power cuts"),
        Mutant::FanoutForgotten | Mutant::EpochOpenEarly => Elsewhere("the demo"),
        Mutant::AcceptBeforeDurable => Simulation(&[Stores]),
        Mutant::NoEpochAfterUncleanStart
        | Mutant::LastReadUnchecked
        | Mutant::MarkNotCleared
        | Mutant::NoCheckpointReadBack
        | Mutant::StoredWithoutEntry => Simulation(&[Forks]),
        Mutant::UnknownPrevIsZero => Simulation(&[Bells]),
        Mutant::RowsAboveCheckpointRead => Simulation(&[Bells, Owners, Stores]),
        Mutant::CursorGoesBack => Simulation(&[Devices]),
        _ => Simulation(&[Even, Owners, Devices]),
    }
}

/// A seed that fails.
struct Caught {
    seed: u64,
    lean: Lean,
    /// Seeds run until then.
    ran: u64,
    failure: String,
}

/// Runs seeds until one fails.
fn hunt(leans: &[Lean], seeds_max: u64) -> Option<Caught> {
    let (next, ran) = (AtomicU64::new(0), AtomicU64::new(0));
    let caught = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while lock(&caught).is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds_max {
                        return;
                    }
                    let lean = leans[usize::try_from(seed).unwrap_or(0) % leans.len()];
                    let outcome = run(Plan::leaning(seed, lean), false);
                    let so_far = ran.fetch_add(1, Ordering::Relaxed) + 1;
                    if let Some(failure) = outcome.failure {
                        lock(&caught).get_or_insert(Caught { seed, lean, ran: so_far, failure });
                    }
                }
            });
        }
    });
    caught.into_inner().expect("no thread panicked")
}

/// `PLI_SIM_MUTANT=name` hunts one only.
#[test]
fn every_mutant_is_caught() {
    let only = std::env::var("PLI_SIM_MUTANT").ok();
    let (mut caught, mut all, mut missed) = (0, 0, Vec::new());
    for mutant in Mutant::ALL.iter().copied().filter(|m| only.as_ref().is_none_or(|name| name == m.name())) {
        all += 1;
        match guard(mutant) {
            Guard::Simulation(leans) => {
                choose(Some(mutant));
                let found = hunt(leans, SEEDS_MAX);
                choose(None);
                if let Some((seed, seeds, failure)) = found {
                    caught += 1;
                    let check: String = failure.lines().next().unwrap_or_default().chars().take(90).collect();
                    println!(
                        "{:<30} caught by the simulation after {seeds} seeds (seed {seed}): {check}",
                        mutant.name()
                    );
                } else {
                    missed.push(mutant.name());
                    println!("{:<30} NOT CAUGHT in {SEEDS_MAX} seeds", mutant.name());
                }
            }
            Guard::Elsewhere(check) => {
                missed.push(mutant.name());
                println!("{:<30} left to {check}", mutant.name());
            }
        }
    }
    println!("caught {caught} of {all}");
    assert_eq!(missed, [""; 0], "not caught");
}
