// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kills and power cuts at any moment: nothing that was acknowledged is lost, nothing is torn, no sequence is given out
//! again. And the proof that the check can fail: without the fsync, power cuts lose what was acknowledged.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};

use pli_domain::{Seq, ShardId};
use pli_engine_embedded::{EmbeddedEngine, VERSION_FILE};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::ledger::Ledger;
use crate::support::{new_entry, options, own_test, seed, shim, soaking};
use crate::worker::{self, Line};

const SIGKILL: i32 = 9;

fn worker_in(dir: &Path, seed: u64) -> Command {
    let mut command = own_test(worker::NAME);
    command.env(worker::DIR, dir).env(worker::SEED, seed.to_string()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// Runs a worker until it has said `lines` lines and kills it, or until it dies; answers what it said.
fn run(mut command: Command, lines: usize) -> Vec<Line> {
    let mut worker = command.spawn().unwrap();
    let mut said = BufReader::new(worker.stdout.take().unwrap());
    let mut heard = hear(&mut said, lines);
    if heard.len() == lines {
        worker.kill().unwrap();
        // What stood in the pipe was said before the kill.
        heard.extend(hear(&mut said, usize::MAX));
    }
    let status = worker.wait().unwrap();
    assert_eq!(status.signal(), Some(SIGKILL), "the worker ended by itself: {status}");
    heard
}

fn hear(said: &mut BufReader<ChildStdout>, lines: usize) -> Vec<Line> {
    let mut heard = Vec::new();
    let mut text = String::new();
    while heard.len() < lines && said.read_line(&mut text).unwrap() > 0 {
        heard.extend(text.trim_end_matches('\n').parse::<Line>());
        text.clear();
    }
    heard
}

/// Opens the folder as the next process would and compares.
fn check(dir: &Path, ledger: &mut Ledger) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let engine = EmbeddedEngine::open(dir, options()).unwrap();
        ledger.check(&engine).await;
        engine.close().await;
    });
}

#[test]
fn a_kill_at_any_moment_loses_nothing() {
    let rounds = if soaking() { 200 } else { 20 };
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::default();
    for round in 1..=rounds {
        let lines = rng.random_range(1..3_000);
        ledger.note(&run(worker_in(dir.path(), rng.random()), lines));
        check(dir.path(), &mut ledger);
        assert!(ledger.faults.is_empty(), "round {round}: {:#?}", ledger.faults);
    }
    println!("{rounds} kills, {} acknowledged entries, 0 lost", ledger.appended);
    assert!(ledger.appended > 0);
}

/// A worker under the shim that cuts the power at its `at`-th write or sync.
fn cut_at(dir: &Path, seed: u64, at: u64) -> Command {
    let mut command = worker_in(dir, seed);
    command
        .env("LD_PRELOAD", shim())
        .env("PLI_POWERCUT_DIR", dir)
        .env("PLI_POWERCUT_SEED", seed.to_string())
        .env("PLI_POWERCUT_AT", at.to_string());
    command
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing() {
    let rounds = if soaking() { 50 } else { 5 };
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let parent = tempfile::tempdir().unwrap();
    let mut appended = 0;
    // One folder lives through several cuts, and every few cuts there is a new one, cut while it is made.
    for folder in 0..rounds / 5 {
        let dir = parent.path().join(folder.to_string());
        let mut ledger = Ledger::default();
        for round in 0..5 {
            let at = if round == 0 { rng.random_range(1..150) } else { rng.random_range(50..8_000) };
            ledger.note(&run(cut_at(&dir, rng.random(), at), usize::MAX));
            check(&dir, &mut ledger);
            assert!(ledger.faults.is_empty(), "folder {folder}, cut at {at}: {:#?}", ledger.faults);
        }
        appended += ledger.appended;
    }
    println!("{rounds} power cuts, {appended} acknowledged entries, 0 lost");
    assert!(appended > 0);
}

#[test]
fn a_power_cut_during_the_first_start_leaves_a_folder_that_starts() {
    let step = if soaking() { 1 } else { 4 };
    let seed = seed();
    let parent = tempfile::tempdir().unwrap();
    let (mut unmarked, mut marked) = (0, 0);
    for at in (1 + seed % step..=180).step_by(step as usize) {
        let dir = parent.path().join(at.to_string());
        run(cut_at(&dir, seed ^ at, at), usize::MAX);
        match std::fs::read_to_string(dir.join(VERSION_FILE)).map(|text| text.lines().count()) {
            Ok(2) => marked += 1,
            _ => unmarked += 1,
        }
        check(&dir, &mut Ledger::default());
    }
    println!("{unmarked} cuts before the folder had its mark, {marked} after");
    assert!(unmarked > 0 && marked > 0);
}

#[test]
fn without_the_fsync_power_cuts_lose_what_was_acknowledged() {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let parent = tempfile::tempdir().unwrap();
    let (mut caught, rounds) = (0, 5);
    for round in 0..rounds {
        let dir = parent.path().join(round.to_string());
        let mut command = cut_at(&dir, rng.random(), rng.random_range(500..3_000));
        command.env(worker::UNSYNCED, "1");
        let mut ledger = Ledger::default();
        ledger.note(&run(command, usize::MAX));
        caught += u32::from(is_lost(&dir, ledger));
    }
    println!("{caught} of {rounds} power cuts lost something acknowledged without the fsync");
    assert!(caught > 0, "the check cannot fail");
}

/// Whether something acknowledged is missing, or the folder is past reading.
fn is_lost(dir: &Path, mut ledger: Ledger) -> bool {
    assert!(ledger.appended > 0);
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(dir, &mut ledger)));
    checked.is_err() || ledger.lost > 0
}

const FAILING: &str = "PLI_POWERCUT_FAIL";

/// Runs in a process in which one fsync fails; a second one would succeed.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_meets_a_failing_fsync_where_another_test_asks_for_it() {
    if std::env::var_os(FAILING).is_none() {
        return;
    }
    let dir = std::env::var_os("PLI_POWERCUT_DIR").unwrap();
    let engine = EmbeddedEngine::open(Path::new(&dir), options()).unwrap();
    let log = engine.shard_log();
    let mut reader = log.reader(ShardId::new(0), Seq::ZERO).await.unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut accepted = 0;
    while log.append(vec![new_entry(ShardId::new(0), &mut rng)]).await.remove(0).is_ok() {
        accepted += 1;
        assert!(accepted < 100_000, "the fsync never failed");
    }
    engine.failed().await;
    for _ in 0..3 {
        assert!(log.append(vec![new_entry(ShardId::new(0), &mut rng)]).await.remove(0).is_err());
    }
    assert!(log.trim(ShardId::new(0), Seq::MAX).await.is_err());
    assert!(engine.device_queues().shard_state(ShardId::new(0)).await.is_err());
    assert!(reader.next(1).await.is_err());
    engine.close().await;
    println!("stopped after {accepted} accepted entries");
}

#[test]
fn a_failed_fsync_stops_the_engine_and_is_not_retried() {
    for at in [300, 700, 2_000] {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        let mut command = own_test("crash::an_engine_meets_a_failing_fsync_where_another_test_asks_for_it");
        command.env("LD_PRELOAD", shim()).env("PLI_POWERCUT_DIR", &dir).env(FAILING, at.to_string());
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("stopped after"), "fsync {at}: {text}");
    }
}

#[cfg(feature = "mutants")]
#[test]
fn an_accept_before_it_is_durable_is_caught() {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let parent = tempfile::tempdir().unwrap();
    let mut caught = 0;
    for round in 0..5 {
        let dir = parent.path().join(round.to_string());
        let mut command = cut_at(&dir, rng.random(), rng.random_range(500..3_000));
        command.env("PLI_MUTANT", pli_domain::mutant::Mutant::AcceptBeforeDurable.name());
        let mut ledger = Ledger::default();
        ledger.note(&run(command, usize::MAX));
        caught += u32::from(is_lost(&dir, ledger));
    }
    assert!(caught > 0, "the check cannot fail");
}
