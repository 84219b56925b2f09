// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every fuzz target is: its body stands in `pli_fuzzing`, here is how libFuzzer calls it and how much memory it may
//! use.

pub use libfuzzer_sys;

use peak_alloc::PeakAlloc;
use pli_fuzzing::{TARGETS, Target};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The target of this name.
///
/// # Panics
/// When there is none.
pub fn named(name: &str) -> Target {
    *TARGETS.iter().find(|target| target.name == name).expect("a target of that name")
}

/// What is done once: recording, and writing the seeds of the target to the folder that `PLI_FUZZ_SEEDS` names, after which
/// the process ends.
///
/// # Panics
/// When they cannot be written.
pub fn prepare(name: &str) {
    pli_fuzzing::prepare();
    if let Some(folder) = std::env::var_os("PLI_FUZZ_SEEDS").map(std::path::PathBuf::from) {
        for (n, seed) in pli_fuzzing::seeds(name).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{n:04}")), seed).expect("the folder can be written");
        }
        std::process::exit(0);
    }
}

/// Runs one input and looks at the memory that it took.
///
/// # Panics
/// When the target does what it must not; libFuzzer ends then and keeps the input. Panics of tasks end it too.
pub fn run(target: &Target, data: &[u8]) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    (target.run)(data);
    target.check_memory(data, MEMORY.peak_usage().saturating_sub(before));
}

/// The entry points of the target of this name.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        $crate::libfuzzer_sys::fuzz_target!(
            init: $crate::prepare($name),
            |data: &[u8]| $crate::run(&$crate::named($name), data)
        );
    };
}
