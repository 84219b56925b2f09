// SPDX-License-Identifier: MIT OR Apache-2.0
//! Durable accepts per second at the ShardLog port of the embedded engine, against a preallocated file that takes the
//! same bytes with one write and one fdatasync per group.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use pli_benches::{Direction, Limit, Row, Summary, data_folder, measure_limit};
use pli_domain::{EntryId, Seq, ShardId};
use pli_engine_embedded::{EmbeddedEngine, EmbeddedOptions};
use pli_ports::{NewEntry, ShardLog};

const BYTES: usize = 256;
const SHARDS: u64 = 16;
const MEASURED: Duration = Duration::from_secs(3);
const LIMIT_MEASURED: Duration = Duration::from_millis(500);
/// The raw file is written round and round, as a log that is trimmed behind would reuse its space.
const RAW_FILE_BYTES: u64 = 64 << 20;

fn main() -> Result<()> {
    let folder = data_folder()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut summary = Summary::open();
    for in_flight in [1_usize, 64, 1_024] {
        let limit = raw_limit(&folder.path().join("raw"), in_flight)?;
        let data = folder.path().join(format!("engine-{in_flight}"));
        let figure = runtime.block_on(engine_rate(&data, in_flight))?;
        let name = format!("append_per_s_{in_flight}");
        summary.add(Row::limited(&name, figure.per_s, "1/s", &limit, Direction::More)?);
        if in_flight == 1_024 {
            summary.add(Row::plain("fsyncs_per_append_1024", figure.fsyncs_per_append, "fsyncs"));
        }
    }
    summary.save()?;
    Ok(())
}

fn raw_limit(path: &Path, in_flight: usize) -> Result<Limit> {
    let file = preallocated(path)?;
    let group = vec![0x5A_u8; BYTES * in_flight];
    let mut at = 0_u64;
    let name = format!("write + fdatasync of {in_flight} x {BYTES} B into a preallocated file");
    Ok(measure_limit(&name, || {
        let started = Instant::now();
        let mut groups = 0_u64;
        while started.elapsed() < LIMIT_MEASURED {
            if at + group.len() as u64 > RAW_FILE_BYTES {
                at = 0;
            }
            file.write_all_at(&group, at)?;
            file.sync_data()?;
            at += group.len() as u64;
            groups += 1;
        }
        std::io::Result::Ok((groups * in_flight as u64) as f64 / started.elapsed().as_secs_f64())
    })?)
}

fn preallocated(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    let block = vec![0_u8; 1 << 20];
    for n in 0..RAW_FILE_BYTES >> 20 {
        file.write_all_at(&block, n << 20)?;
    }
    file.sync_all()?;
    Ok(file)
}

struct Figure {
    per_s: f64,
    fsyncs_per_append: f64,
}

/// `in_flight` tasks, each with one append at a time, for three seconds; trimmed behind every 50 ms.
async fn engine_rate(data: &Path, in_flight: usize) -> Result<Figure> {
    let engine = EmbeddedEngine::open(data, EmbeddedOptions::default()).context("the engine opens")?;
    let log = engine.shard_log();
    let accepted = Arc::new(AtomicU64::new(0));
    let (fsyncs, started) = (engine.stats().fsyncs, Instant::now());
    let tasks: Vec<_> = (0..in_flight as u64)
        .map(|task| tokio::spawn(append_until(log.clone(), task, started + MEASURED, accepted.clone())))
        .collect();
    while started.elapsed() < MEASURED {
        tokio::time::sleep(Duration::from_millis(50)).await;
        trim_all(&*log).await?;
    }
    for task in tasks {
        task.await??;
    }
    let count = accepted.load(Ordering::Relaxed) as f64;
    let figure = Figure {
        per_s: count / started.elapsed().as_secs_f64(),
        fsyncs_per_append: (engine.stats().fsyncs - fsyncs) as f64 / count,
    };
    engine.close().await;
    Ok(figure)
}

async fn append_until(log: Arc<dyn ShardLog>, task: u64, end: Instant, accepted: Arc<AtomicU64>) -> Result<()> {
    let shard = ShardId::new(u16::try_from(task % SHARDS)?);
    let bytes = Bytes::from(vec![0x5A_u8; BYTES]);
    for n in 0_u64.. {
        if Instant::now() >= end {
            break;
        }
        let mut id = [0; 16];
        id[..8].copy_from_slice(&task.to_be_bytes());
        id[8..].copy_from_slice(&n.to_be_bytes());
        let entry = NewEntry { shard, id: EntryId::from_bytes(id), bytes: bytes.clone() };
        for result in log.append(vec![entry]).await {
            result.context("an append is refused")?;
            accepted.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

async fn trim_all(log: &dyn ShardLog) -> Result<()> {
    for shard in 0..SHARDS {
        let shard = ShardId::new(u16::try_from(shard)?);
        let head = log.bounds(shard).await?.head;
        if head > Seq::ZERO {
            log.trim(shard, head).await?;
        }
    }
    Ok(())
}
