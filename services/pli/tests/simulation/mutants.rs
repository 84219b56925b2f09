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
    /// Another suite, run by itself under `PLI_MUTANT`: what it is called, its package and test.
    Suite(&'static str, &'static str, &'static str, &'static str),
}

fn guard(mutant: Mutant) -> Guard {
    use Guard::{Simulation, Suite};
    use Lean::{Bells, Devices, Even, Forks, Owners, Stores};
    match mutant {
        Mutant::FsyncLeftOut => Suite("the power cuts", "pli-engine-embedded", "embedded", "a_power_cut_at_any_moment"),
        Mutant::FanoutForgotten | Mutant::EpochOpenEarly => {
            Suite("the crashes of committers", "pli-conversations", "conversations", "crash::")
        }
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

/// Runs a suite of another package with the mutant; the first test that fails, or none.
fn suite_fails(mutant: Mutant, package: &str, test: &str, filter: &str) -> Result<Option<String>, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let arguments = ["test", "--package", package, "--features", "mutants", "--test", test, filter];
    let output = std::process::Command::new(cargo).args(arguments).env("PLI_MUTANT", mutant.name()).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // A suite that was not built, or in which nothing ran, has caught nothing.
    if !text.contains("test result: ") || text.contains("running 0 tests") {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(text.lines().find_map(|line| Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned())))
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
                if let Some(Caught { seed, lean, ran, failure }) = found {
                    caught += 1;
                    let check: String = failure.lines().next().unwrap_or_default().chars().take(100).collect();
                    let lean = format!("{lean:?}").to_lowercase();
                    println!("{:<29} the simulation, seeds needed {ran} ({lean} {seed}): {check}", mutant.name());
                } else {
                    missed.push(mutant.name());
                    println!("{:<30} NOT CAUGHT in {SEEDS_MAX} seeds", mutant.name());
                }
            }
            Guard::Suite(check, package, test, filter) => match suite_fails(mutant, package, test, filter) {
                Ok(Some(failed)) => {
                    caught += 1;
                    println!("{:<29} {check}, runs needed 1: {failed}", mutant.name());
                }
                Ok(None) => {
                    missed.push(mutant.name());
                    println!("{:<29} NOT CAUGHT by {check}", mutant.name());
                }
                Err(why) => panic!("{check} could not be run: {why}"),
            },
        }
    }
    println!("caught {caught} of {all}");
    assert_eq!(missed, [""; 0], "not caught");
}
