// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fuzz targets without a fuzzer: over their seeds, over everything that fuzzing has found, and over some of these
//! mutated at random. What libFuzzer notices is noticed here too: panics, of tasks too, and memory.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "fuzzing/reading.rs"]
mod reading;
#[path = "fuzzing/recorded.rs"]
mod recorded;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use peak_alloc::PeakAlloc;
use pli_fuzzing::{TARGETS, Target};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Memory is the process's: one input at a time.
static ALONE: Mutex<()> = Mutex::new(());
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn alone() -> MutexGuard<'static, ()> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string());
            before(info);
        }));
    });
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    PANICS.lock().unwrap_or_else(PoisonError::into_inner).clear();
    guard
}

/// Those since it was asked last, of tasks too.
fn panics() -> Vec<String> {
    std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Runs one input as a fuzzer does.
fn run(target: &Target, input: &[u8]) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    (target.run)(input);
    target.check_memory(input, MEMORY.peak_usage().saturating_sub(before));
    let panics = panics();
    assert!(panics.is_empty(), "{} panicked: {panics:?}; the input is {}", target.name, hex::encode(input));
}

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target of that name")
}

/// What fuzzing has found, and was mended.
fn found(name: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("found").join(name);
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("read")).collect()
}

/// Runs `inputs`, and so many made of them.
fn hold(name: &str, mutated: usize) {
    let _alone = alone();
    pli_fuzzing::prepare();
    let target = target(name);
    let inputs = [pli_fuzzing::seeds(name), found(name)].concat();
    inputs.iter().for_each(|input| run(target, input));
    let soak = if std::env::var_os("PLI_SOAK").is_some() { 20 } else { 1 };
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for _ in 0..mutated * soak {
        let mut input = inputs[rng.next_u32() as usize % inputs.len()].clone();
        for _ in 0..=rng.next_u32() % 8 {
            change(&mut input, &mut rng);
        }
        run(target, &input);
    }
}

/// One of the changes that fuzzers make.
fn change(input: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    let (draw, byte) = (rng.next_u32() as usize, rng.next_u32().to_le_bytes()[0]);
    let at = draw % (input.len() + 1);
    match rng.next_u32() % 5 {
        0 => input.insert(at, byte),
        1 => input.truncate(at.max(1)),
        2 => input.extend_from_within(at..),
        _ => {
            if let Some(there) = input.get_mut(at) {
                *there = byte;
            }
        }
    }
    input.truncate(100_000);
}

#[test]
fn every_decoder_answers_or_refuses_whatever_the_bytes_are() {
    hold("decoders", 4_000);
}

#[test]
fn a_client_whose_server_lies_shows_only_what_people_wrote() {
    hold("client", 60);
}

#[test]
fn two_people_talk_whatever_other_sessions_do() {
    hold("sessions", 20);
}

#[test]
#[should_panic(expected = "bytes in use for an input of 3")]
fn too_much_memory_is_noticed() {
    let _alone = alone();
    let greedy =
        Target { name: "greedy", run: |_| drop(std::hint::black_box(vec![1u8; 5_000_000])), memory_max: |_| 4_000_000 };
    run(&greedy, &[1, 2, 3]);
}

#[test]
#[should_panic(expected = "clumsy panicked")]
fn a_panic_in_a_task_is_noticed() {
    let _alone = alone();
    let panics = |_: &[u8]| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _ = runtime.block_on(async { tokio::spawn(async { panic!("planted") }).await });
    };
    run(&Target { name: "clumsy", run: panics, memory_max: |_| usize::MAX }, &[]);
}
