// SPDX-License-Identifier: MIT OR Apache-2.0
//! Breaks one rule at a time and counts the seeds until the simulation notices.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use pli_domain::mutant::{Mutant, choose};

use crate::simulation::plan::{Lean, Plan};
use crate::simulation::run::run;
use crate::simulation::world::lock;

/// Seeds after which a rule counts as unguarded.
const SEEDS_MAX: u64 = 3_000;
/// The same for the demo, each of which kills a server eight times.
const DEMO_SEEDS_MAX: u64 = 5;
/// How the demo marks a ledger that shows a fault, and what its scene saw.
const DEMO_JUDGED: &str = "NOT as it should be";
const DEMO_FOUND: &str = "found: ";

/// Who is to notice.
enum Guard {
    /// The simulation, with schedules that lean towards the states in which the rule matters.
    Simulation(&'static [Lean]),
    /// The demo: real processes, SIGKILL and public seams, with the scene that lets the fault show.
    Demo(&'static str),
    /// Another suite, run by itself under `PLI_MUTANT`: what it is called, its target and test.
    Suite(&'static str, &'static str, &'static str),
}

fn guard(mutant: Mutant) -> Guard {
    use Guard::{Demo, Simulation, Suite};
    use Lean::{Bells, Devices, Even, Forks, Owners, Stores};
    match mutant {
        Mutant::FsyncLeftOut => Suite("the power cuts", "embedded", "a_power_cut_at_any_moment"),
        Mutant::FanoutForgotten | Mutant::EpochOpenEarly => Demo("commits"),
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

/// Runs another suite with the mutant; the first test that fails, or none.
fn suite_fails(mutant: Mutant, test: &str, filter: &str) -> Result<Option<String>, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let arguments = ["test", "--workspace", "--features", "pli/mutants", "--test", test, filter];
    let output = std::process::Command::new(cargo).args(arguments).env("PLI_MUTANT", mutant.name()).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // A suite that was not built, or in which nothing ran, has caught nothing.
    if !text.contains("test result: ") || text.contains("running 0 tests") {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(text.lines().find_map(|line| Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned())))
}

/// Builds demo and server with planted faults and shows that the scene is clean while none is chosen.
fn demo(scene: &str) -> Result<PathBuf, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let arguments = ["build", "--workspace", "--features", "pli/mutants", "--bins", "--examples"];
    let built = std::process::Command::new(cargo).args(arguments).output().map_err(|error| error.to_string())?;
    if !built.status.success() {
        return Err(String::from_utf8_lossy(&built.stderr).into_owned());
    }
    let here = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = here.parent().and_then(Path::parent).ok_or("the test is not in a build folder")?;
    let program = folder.join("examples/demo");
    let (clean, said) = play(&program, scene, 1, "")?;
    if clean { Ok(program) } else { Err(format!("without a fault: {said}")) }
}

/// Plays one scene under a mutant; whether the ledger is as it should be, and what was printed.
fn play(program: &Path, scene: &str, seed: u64, mutant: &str) -> Result<(bool, String), String> {
    let mut demo = std::process::Command::new(program);
    demo.args(["--scenes", scene, "--seed", &seed.to_string()]).env("PLI_MUTANT", mutant);
    let output = demo.output().map_err(|error| format!("{}: {error}", program.display()))?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Plays seeds until a ledger shows the fault: how many were played, and what was seen.
fn demo_fails(mutant: Mutant, scene: &str) -> Result<Option<(u64, String)>, String> {
    let program = demo(scene)?;
    for seed in 1..=DEMO_SEEDS_MAX {
        let (clean, said) = play(&program, scene, seed, mutant.name())?;
        if clean {
            continue;
        }
        // A demo that could not be played has caught nothing.
        if !said.contains(DEMO_JUDGED) {
            return Err(said);
        }
        let found = said.lines().find_map(|line| line.strip_prefix(DEMO_FOUND));
        let verdict = said.lines().last().unwrap_or_default();
        return Ok(Some((seed, found.unwrap_or(verdict).to_owned())));
    }
    Ok(None)
}

/// Hunts one mutant where its rule is guarded; what caught it, as a line.
fn caught(mutant: Mutant) -> Option<String> {
    match guard(mutant) {
        Guard::Simulation(leans) => {
            choose(Some(mutant));
            let found = hunt(leans, SEEDS_MAX);
            choose(None);
            let Caught { seed, lean, ran, failure } = found?;
            let check: String = failure.lines().next().unwrap_or_default().chars().take(100).collect();
            let lean = format!("{lean:?}").to_lowercase();
            Some(format!("the simulation, seeds needed {ran} ({lean} {seed}): {check}"))
        }
        Guard::Demo(scene) => {
            let failed = demo_fails(mutant, scene).unwrap_or_else(|why| panic!("the demo could not be played: {why}"));
            failed.map(|(seeds, found)| format!("the demo, seeds needed {seeds}: {found}"))
        }
        Guard::Suite(check, test, filter) => {
            let failed = suite_fails(mutant, test, filter);
            let failed = failed.unwrap_or_else(|why| panic!("{check} could not be run: {why}"));
            failed.map(|failed| format!("{check}, runs needed 1: {failed}"))
        }
    }
}

/// `PLI_SIM_MUTANT=name` hunts one only.
#[test]
fn every_mutant_is_caught() {
    let only = std::env::var("PLI_SIM_MUTANT").ok();
    let (mut all, mut missed) = (0, Vec::new());
    for mutant in Mutant::ALL.iter().copied().filter(|m| only.as_ref().is_none_or(|name| name == m.name())) {
        all += 1;
        let line = caught(mutant);
        println!("{:<29} {}", mutant.name(), line.as_deref().unwrap_or("NOT CAUGHT"));
        if line.is_none() {
            missed.push(mutant.name());
        }
    }
    println!("caught {} of {all}", all - missed.len());
    assert_eq!(missed, [""; 0], "not caught");
}
