// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process that is killed: appends, settles and trims at random, and says on standard output what it is about to
//! do and what was acknowledged.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use pli_domain::{Checkpoint, EntryId, LogEpoch, Position, ShardId};
use pli_engine_embedded::{EmbeddedEngine, Synchronous};
use pli_ports::{DeviceQueues, DeviceRegister, QueueRow, Settle, ShardLog};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::{FAR, at, body, device, new_entry, options, seq};

pub const SHARDS: u16 = 4;
pub const DIR: &str = "PLI_WORKER_DIR";
pub const SEED: &str = "PLI_WORKER_SEED";
pub const UNSYNCED: &str = "PLI_WORKER_UNSYNCED";
/// The name of the test below.
pub const NAME: &str = "worker::a_worker_runs_where_another_test_asks_for_one";

/// Appenders per shard.
const APPENDERS: usize = 4;
/// A worker that nobody kills ends by itself.
const LIFE: Duration = Duration::from_secs(120);

/// What may be begun and acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Only acknowledged: there is no telling the sequence before.
    Appended(EntryId),
    /// The checkpoint, with rows up to it.
    Settle,
    /// The log, up to and including.
    Trim,
    /// Cursor and rows, up to and including.
    Ack,
}

/// One line of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    pub act: Act,
    pub shard: u16,
    pub seq: u64,
    pub done: bool,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.act {
            Act::Appended(id) => format!("append:{id}"),
            Act::Settle => "settle".into(),
            Act::Trim => "trim".into(),
            Act::Ack => "ack".into(),
        };
        write!(f, "@ {name} {} {} {} .", self.shard, self.seq, u8::from(self.done))
    }
}

impl FromStr for Line {
    type Err = ();
    /// A line that the kill cut short has no end mark.
    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<_> = text.split(' ').collect();
        let ["@", name, shard, seq, done, "."] = parts[..] else {
            return Err(());
        };
        let act = match name {
            "settle" => Act::Settle,
            "trim" => Act::Trim,
            "ack" => Act::Ack,
            other => Act::Appended(other.strip_prefix("append:").ok_or(())?.parse().map_err(|_| ())?),
        };
        let number = |text: &str| text.parse::<u64>().map_err(|_| ());
        Ok(Self { act, shard: u16::try_from(number(shard)?).map_err(|_| ())?, seq: number(seq)?, done: done == "1" })
    }
}

fn say(act: Act, shard: ShardId, seq: u64, done: bool) {
    println!("{}", Line { act, shard: shard.get(), seq, done });
}

#[test]
fn a_worker_runs_where_another_test_asks_for_one() {
    let Ok(dir) = std::env::var(DIR) else {
        return;
    };
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = runtime.block_on(async { tokio::time::timeout(LIFE, work(Path::new(&dir), seed)).await });
    assert!(outcome.is_err(), "the worker ended by itself");
}

async fn work(dir: &Path, seed: u64) {
    let mut options = options();
    if std::env::var_os(UNSYNCED).is_some() {
        options.synchronous = Synchronous::Off;
    }
    let engine = EmbeddedEngine::open(dir, options).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for shard in (0..SHARDS).map(ShardId::new) {
        let rng = |task: usize| ChaCha8Rng::seed_from_u64(seed ^ ((u64::from(shard.get()) << 8) | task as u64));
        for task in 1..=APPENDERS {
            tasks.spawn(append(engine.shard_log(), shard, rng(task)));
        }
        tasks.spawn(tend(engine.shard_log(), engine.device_queues(), shard, rng(0)));
    }
    println!("@ started");
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

async fn append(log: Arc<dyn ShardLog>, shard: ShardId, mut rng: ChaCha8Rng) {
    loop {
        let many = rng.random_range(1..4);
        let entries = (0..many).map(|_| new_entry(shard, &mut rng)).collect();
        for answer in log.append(entries).await {
            let entry = answer.unwrap();
            say(Act::Appended(entry.id), shard, entry.seq.get(), true);
        }
    }
}

async fn tend(log: Arc<dyn ShardLog>, queues: Arc<dyn DeviceQueues>, shard: ShardId, mut rng: ChaCha8Rng) {
    loop {
        let head = log.bounds(shard).await.unwrap().head.get();
        let settled = queues.shard_state(shard).await.unwrap().checkpoint.position.seq().get();
        match rng.random_range(0..4) {
            0 | 1 if head > settled => settle(&*queues, shard, settled, head.min(settled + 200)).await,
            2 if settled > 0 => {
                let through = rng.random_range(1..=settled);
                say(Act::Trim, shard, through, false);
                log.trim(shard, seq(through)).await.unwrap();
                say(Act::Trim, shard, through, true);
            }
            3 if settled > 0 => acknowledge(&*queues, shard, rng.random_range(1..=settled)).await,
            _ => tokio::task::yield_now().await,
        }
    }
}

/// Writes a row for every entry above `from` up to and including `to`, and the checkpoint there.
async fn settle(queues: &dyn DeviceQueues, shard: ShardId, from: u64, to: u64) {
    say(Act::Settle, shard, to, false);
    let position = Position::end_of(LogEpoch::new(1).unwrap(), seq(to));
    let settle = Settle {
        rows: (from + 1..=to).map(|value| row(shard, value)).collect(),
        checkpoint: Some(Checkpoint { position, entry: None }),
        ..Settle::default()
    };
    queues.settle(shard, settle).await.unwrap();
    say(Act::Settle, shard, to, true);
}

/// The row of the entry at `value`: a function of shard and sequence alone.
pub fn row(shard: ShardId, value: u64) -> QueueRow {
    let mut id = [shard.get() as u8; 16];
    id[8..].copy_from_slice(&value.to_be_bytes());
    QueueRow { device: device(shard), position: at(value), expires_at: FAR, envelope: body(EntryId::from_bytes(id)) }
}

async fn acknowledge(queues: &dyn DeviceQueues, shard: ShardId, through: u64) {
    say(Act::Ack, shard, through, false);
    let register = DeviceRegister { device: device(shard), cursor: Some(at(through)), floor: None };
    queues.settle(shard, Settle { registers: vec![register], ..Settle::default() }).await.unwrap();
    queues.trim(vec![(device(shard), at(through))]).await.unwrap();
    say(Act::Ack, shard, through, true);
}

#[test]
fn lines_are_read_as_they_were_written_and_cut_ones_are_refused() {
    let line = Line { act: Act::Appended(EntryId::from_bytes([3; 16])), shard: 2, seq: 77, done: true };
    let text = line.to_string();
    assert_eq!(text.parse(), Ok(line));
    for cut in 0..text.len() {
        assert_eq!(text[..cut].parse::<Line>(), Err(()));
    }
}
