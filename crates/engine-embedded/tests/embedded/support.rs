// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests share.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use pli_domain::{DeviceId, EntryId, LogEpoch, Position, Seq, ShardId, UnixMillis};
use pli_engine_embedded::{EmbeddedEngine, EmbeddedOptions};
use pli_ports::NewEntry;
use pli_testkit::time::ManualClock;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Later than any row of these tests is swept.
pub const FAR: UnixMillis = UnixMillis(1 << 45);

/// Options with a clock that stands still, so that nothing expires by itself.
pub fn options() -> EmbeddedOptions {
    EmbeddedOptions { clock: Arc::new(ManualClock::default()), ..EmbeddedOptions::default() }
}

pub fn open(dir: &Path) -> EmbeddedEngine {
    EmbeddedEngine::open(dir, options()).unwrap()
}

pub fn soaking() -> bool {
    std::env::var_os("PLI_SOAK").is_some()
}

/// `PLI_SEED`, or a new one; printed.
pub fn seed() -> u64 {
    let seed = std::env::var("PLI_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    println!("PLI_SEED={seed}");
    seed
}

pub fn seq(value: u64) -> Seq {
    Seq::new(value).unwrap()
}

/// The position of the only envelope of entry `value`, in log epoch 1.
pub fn at(value: u64) -> Position {
    Position::new(LogEpoch::new(1).unwrap(), seq(value), 0)
}

/// The one device of these tests that lives in a shard.
pub fn device(shard: ShardId) -> DeviceId {
    let mut id = [7; 16];
    id[..2].copy_from_slice(&shard.get().to_be_bytes());
    DeviceId::from_bytes(id)
}

/// Bytes that only this id has: mostly short, at times as long as entries get.
pub fn body(id: EntryId) -> Bytes {
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(id.as_bytes());
    let mut rng = ChaCha8Rng::from_seed(seed);
    let len = if rng.random_ratio(1, 64) { rng.random_range(0..60_000) } else { rng.random_range(0..1_500) };
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    bytes.into()
}

pub fn new_entry(shard: ShardId, rng: &mut ChaCha8Rng) -> NewEntry {
    let id = EntryId::from_bytes(rng.random());
    NewEntry { shard, id, bytes: body(id) }
}

/// The power-cut shim, compiled once per test process.
pub fn shim() -> &'static Path {
    static SHIM: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = SHIM.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("powercut.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../testkit/shim/powercut.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-shared", "-fPIC", "-o"]).arg(&path).arg(source);
        assert!(compiler.args(["-ldl", "-lpthread"]).status().unwrap().success());
        (dir, path)
    });
    path
}

/// This test binary, to run one of its tests in another process.
pub fn own_test(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]);
    command
}
