// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a full queue through its owner: 20,000 envelopes from the tail, and 20,000 from rows.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use opentelemetry::metrics::MeterProvider;
use pli_api::delivery::{Announce, OwnerReply, OwnerRequest, Page, ReadPage, owner_reply, owner_request};
use pli_api::{device_bytes, log};
use pli_benches::{Row, Summary, data_folder};
use pli_delivery::{Config, Delivery, DeliveryPorts};
use pli_domain::{AccountId, DeviceId, EntryId, Position, Seq, ShardId};
use pli_engine_embedded::{EmbeddedEngine, EmbeddedOptions};
use pli_ports::{Clock, NewEntry, Signals, Subject, SystemClock};
use prost::Message;
use tokio_util::sync::CancellationToken;

/// The bound of a device's queue: one more raises its floor.
const ENVELOPES: usize = pli_domain::limits::QUEUE_ROWS_MAX;
const BYTES: usize = 256;
const PER_ENTRY: usize = 200;
const DEVICE: DeviceId = DeviceId::from_bytes([7; 16]);
const DEADLINE: Duration = Duration::from_secs(60);
const NEVER_MS: u64 = 3_600_000;

fn main() -> Result<()> {
    let folder = data_folder()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut summary = Summary::open();
    for (name, spill_after_ms) in [("drain_tail_20000_s", NEVER_MS), ("drain_rows_20000_s", 0)] {
        let seconds = runtime.block_on(drain(&folder.path().join(name), spill_after_ms))?;
        summary.add(Row::plain(name, seconds, "s"));
    }
    summary.save()?;
    Ok(())
}

/// Queues everything, waits until it is where the figure wants it, then reads it page by page.
async fn drain(data: &Path, spill_after_ms: u64) -> Result<f64> {
    let engine = EmbeddedEngine::open(data, EmbeddedOptions::default())?;
    let shard = engine.shard_map().shard_of(AccountId::from_bytes([7; 16]));
    let head = fill(&engine, shard).await?;
    let stop = CancellationToken::new();
    let config = Config { spill_after_ms, settle_every_ms: 100, announce_round_ms: 100, ..Config::default() };
    let ports = DeliveryPorts {
        log: engine.shard_log(),
        signals: engine.signals(),
        leases: engine.leases(),
        queues: engine.device_queues(),
        clock: Arc::new(SystemClock),
        trail: Default::default(),
        beside: None,
    };
    let meter = opentelemetry_sdk::metrics::SdkMeterProvider::default().meter("bench");
    let delivery = tokio::spawn(Delivery::new(ports, engine.shard_map(), config, &meter, 1).run(stop.clone()));
    let signals = engine.signals();
    announce(&*signals, shard).await?;
    if spill_after_ms == 0 {
        until_settled(&engine, shard, head).await?;
    } else {
        until_read(&engine, shard, head).await?;
    }
    let started = Instant::now();
    let read = read_all(&*signals, shard).await?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(read == ENVELOPES, "{read} of {ENVELOPES} envelopes were read");
    stop.cancel();
    delivery.await??;
    engine.close().await;
    Ok(seconds)
}

/// Appends the envelopes; answers the position at which the log ends.
async fn fill(engine: &EmbeddedEngine, shard: ShardId) -> Result<u64> {
    let log = engine.shard_log();
    let expires_at_ms = SystemClock.now().after(Duration::from_secs(3600)).0;
    let envelope = Bytes::from(vec![0xC3; BYTES]);
    let item =
        log::Item { devices: vec![device_bytes(DEVICE)], expires_at_ms, class: log::Class::Message.into(), envelope };
    let entry = log::Entry { items: vec![item; PER_ENTRY], origin: Bytes::new() };
    let bytes = Bytes::from(entry.encode_to_vec());
    for n in 0..(ENVELOPES / PER_ENTRY) as u64 {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        let entry = NewEntry { shard, id: EntryId::from_bytes(id), bytes: bytes.clone() };
        for result in log.append(vec![entry]).await {
            result?;
        }
    }
    Ok(log.bounds(shard).await?.head.get())
}

async fn request(signals: &dyn Signals, shard: ShardId, request: owner_request::Request) -> Result<OwnerReply> {
    let message = OwnerRequest { shard: u32::from(shard.get()), request: Some(request) };
    let bytes = Bytes::from(message.encode_to_vec());
    let reply = signals.request(&Subject::owner(shard), bytes, Duration::from_secs(5)).await?;
    Ok(OwnerReply::decode(reply)?)
}

/// Asks until `done` takes the answer; the owner may still be starting.
async fn asked<T>(
    signals: &dyn Signals,
    shard: ShardId,
    question: owner_request::Request,
    done: impl Fn(OwnerReply) -> Option<T>,
) -> Result<T> {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        if let Ok(reply) = request(signals, shard, question.clone()).await
            && let Some(answer) = done(reply)
        {
            return Ok(answer);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("the owner of {shard} did not get there in {DEADLINE:?}")
}

async fn announce(signals: &dyn Signals, shard: ShardId) -> Result<()> {
    let announce = Announce {
        session: Bytes::from_static(&[1; 16]),
        edge: Bytes::from_static(&[2; 16]),
        device: device_bytes(DEVICE),
        committed: 0,
        first: true,
    };
    let question = owner_request::Request::Announce(announce);
    asked(signals, shard, question, |r| matches!(r.reply, Some(owner_reply::Reply::Registered(_))).then_some(())).await
}

async fn until_settled(engine: &EmbeddedEngine, shard: ShardId, head: u64) -> Result<()> {
    let (queues, deadline) = (engine.device_queues(), Instant::now() + DEADLINE);
    while queues.shard_state(shard).await?.checkpoint.position.seq().get() < head {
        ensure!(Instant::now() < deadline, "the checkpoint did not reach the head in {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The owner has read to the end of the log when a page from just below the last entry has something.
async fn until_read(engine: &EmbeddedEngine, shard: ShardId, head: u64) -> Result<()> {
    let epoch = engine.device_queues().shard_state(shard).await?.log_epoch.epoch;
    let below = Position::end_of(epoch, Seq::new(head - 1)?);
    asked(&*engine.signals(), shard, page_question(below.get()), |reply| match reply.reply {
        Some(owner_reply::Reply::Page(page)) => (!page.deliveries.is_empty()).then_some(()),
        _ => None,
    })
    .await
}

fn page_question(after: u64) -> owner_request::Request {
    let session = Bytes::from_static(&[1; 16]);
    let read = ReadPage { device: device_bytes(DEVICE), after, rows_max: 256, bytes_max: 256 * 1024, session };
    owner_request::Request::ReadPage(read)
}

/// Reads from the start to the head; counts what came and checks its order.
async fn read_all(signals: &dyn Signals, shard: ShardId) -> Result<usize> {
    let (mut after, mut count, mut last) = (0, 0, 0);
    loop {
        let page: Page = match request(signals, shard, page_question(after)).await?.reply {
            Some(owner_reply::Reply::Page(page)) => page,
            other => bail!("no page but {other:?}"),
        };
        for delivery in &page.deliveries {
            ensure!(delivery.position > last, "positions do not increase");
            last = delivery.position;
        }
        count += page.deliveries.len();
        after = page.next;
        if page.at_head {
            return Ok(count);
        }
    }
}
