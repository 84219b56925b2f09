// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a message and a session cost the whole server process, over real sockets.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pli_api::edge::{send_result, server_frame};
use pli_benches::load::{Device, Session, converse, in_an_hour_ms, message};
use pli_benches::{
    Direction, ECHO, Process, Ready, Row, Summary, cpu_us_per_echo, data_folder, measure_limit, metric, serve_echo,
    start_server,
};

const PAIRS: usize = 64;
const BYTES: usize = 256;
/// Sends that each sender keeps in flight.
const WINDOW: u64 = 16;
const MEASURED: Duration = Duration::from_secs(10);
const LIMIT_MEASURED: Duration = Duration::from_secs(2);
const IDLE: usize = 2_000;
const CONNECTS: usize = 200;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if std::env::var_os(ECHO).is_some() {
        return runtime.block_on(serve_echo());
    }
    let folder = data_folder()?;
    let mut summary = Summary::open();
    let limit = measure_limit("CPU of one echo of a bare TLS WebSocket server", || {
        runtime.block_on(cpu_us_per_echo(PAIRS, BYTES, LIMIT_MEASURED)).unwrap_or(0.0)
    })?;
    let traffic = runtime.block_on(traffic(&folder.path().join("traffic")))?;
    summary.add(Row::limited("ws_message_cpu_us", traffic.cpu_us, "us", &limit, Direction::Less)?);
    summary.add(Row::plain("ws_messages_per_s", traffic.per_s, "1/s"));
    summary.add(Row::plain("rows_per_message_fast_ack", traffic.rows, "rows"));
    let envelope = pli_benches::Limit { name: "bytes of the envelope".into(), value: traffic.envelope_bytes };
    summary.add(Row::limited("disk_bytes_per_message", traffic.disk_bytes, "B", &envelope, Direction::Less)?);
    let idle = runtime.block_on(idle(&folder.path().join("idle")))?;
    summary.add(Row::plain("idle_ws_bytes", idle.bytes, "B"));
    summary.add(Row::plain("session_ready_cpu_us_full", idle.ready_cpu_us, "us"));
    summary.save()?;
    Ok(())
}

struct Traffic {
    cpu_us: f64,
    per_s: f64,
    rows: f64,
    disk_bytes: f64,
    envelope_bytes: f64,
}

/// 64 senders, each to a receiver of its own that acknowledges everything.
async fn traffic(folder: &Path) -> Result<Traffic> {
    let (server, ready) = start_server(folder)?;
    let mut pairs = Vec::new();
    for n in 0..PAIRS as u64 {
        let (alice, bob) = (Device::register(&ready, 2 * n).await?, Device::register(&ready, 2 * n + 1).await?);
        let (mut to, mut from) = (alice.connect(&ready).await?, bob.connect(&ready).await?);
        let conversation = converse((&alice, &mut to), (&bob, &mut from)).await?;
        pairs.push((conversation, to, from));
    }
    let (cpu, disk, started) = (server.cpu_us()?, server.written_bytes()?, Instant::now());
    let rows = metric(&ready.admin, "pli_delivery_rows_written_total").await?;
    let tasks: Vec<_> = pairs
        .into_iter()
        .map(|(conversation, to, from)| {
            let sending = tokio::spawn(send(to, conversation, started + MEASURED));
            (sending, tokio::spawn(receive(from)))
        })
        .collect();
    let (mut sent, mut envelope_bytes, mut receivers) = (0_u64, 0, Vec::new());
    for (sending, receiving) in tasks {
        let count = sending.await??;
        sent += count;
        receivers.push((count, receiving));
    }
    let elapsed = started.elapsed();
    // Deliveries follow within moments; the receivers stop when nothing came for a second.
    for (count, receiving) in receivers {
        let (received, bytes) = receiving.await??;
        ensure!(received >= count, "{received} of {count} messages arrived");
        envelope_bytes = bytes;
    }
    let messages = sent as f64;
    Ok(Traffic {
        cpu_us: (server.cpu_us()? - cpu) / messages,
        per_s: messages / elapsed.as_secs_f64(),
        rows: (metric(&ready.admin, "pli_delivery_rows_written_total").await? - rows) / messages,
        disk_bytes: (server.written_bytes()? - disk) / messages,
        envelope_bytes: envelope_bytes as f64,
    })
}

/// Sends with a window until `end`, then waits for the last results. Answers how many were accepted.
async fn send(mut session: Session, conversation: pli_domain::ConversationId, end: Instant) -> Result<u64> {
    let expires = in_an_hour_ms()?;
    let (mut next, mut open, mut accepted) = (0_u64, 0_u64, 0_u64);
    loop {
        if Instant::now() < end && open < WINDOW {
            let batch = (open..WINDOW).map(|i| message(conversation, next + i, BYTES, expires)).collect();
            next += WINDOW;
            open = WINDOW;
            session.send(batch).await?;
        }
        if open == 0 {
            return Ok(accepted);
        }
        if let Some(server_frame::Frame::SendResults(results)) = session.next().await?.frame {
            for result in results.results {
                let taken = matches!(result.result, Some(send_result::Result::Accepted(_)));
                ensure!(taken, "a send is refused: {:?}", result.result);
                accepted += 1;
                open -= 1;
            }
        }
    }
}

/// Acknowledges everything until nothing comes for a second; answers count and bytes of the last envelope.
async fn receive(mut session: Session) -> Result<(u64, usize)> {
    let (mut count, mut bytes) = (0, 0);
    loop {
        let Ok(frame) = tokio::time::timeout(Duration::from_secs(1), session.next()).await else {
            return Ok((count, bytes));
        };
        if let Some(server_frame::Frame::Deliver(deliver)) = frame?.frame {
            session.ack(deliver.position).await?;
            bytes = deliver.envelope.len();
            count += 1;
        }
    }
}

struct Idle {
    bytes: f64,
    ready_cpu_us: f64,
}

/// 2,000 sessions that have received and acknowledged a first message, then say nothing.
async fn idle(folder: &Path) -> Result<Idle> {
    let (server, ready) = start_server(folder)?;
    let hub = Device::register(&ready, 0).await?;
    let mut devices = Vec::with_capacity(IDLE);
    for n in 1..=IDLE as u64 {
        let device = Device::register(&ready, n).await?;
        let (mut to, mut from) = (hub.connect(&ready).await?, device.connect(&ready).await?);
        converse((&hub, &mut to), (&device, &mut from)).await?;
        devices.push(device);
    }
    let full = ready_cpu_us(&server, &ready, &devices[..CONNECTS]).await?;
    let before = settled_bytes(&server).await?;
    let mut sessions = Vec::with_capacity(IDLE);
    for device in &devices {
        let mut session = device.connect(&ready).await?;
        first_message(&mut session).await?;
        sessions.push(session);
    }
    let after = settled_bytes(&server).await?;
    Ok(Idle { bytes: (after - before) / sessions.len() as f64, ready_cpu_us: full })
}

/// Its welcome waits: the session reads it and acknowledges.
async fn first_message(session: &mut Session) -> Result<()> {
    loop {
        if let Some(server_frame::Frame::Deliver(deliver)) = session.next().await?.frame {
            return session.ack(deliver.position).await;
        }
    }
}

/// CPU from the TCP handshake to `Ready`, one connection after the other.
async fn ready_cpu_us(server: &Process, ready: &Ready, devices: &[Device]) -> Result<f64> {
    let before = server.cpu_us()?;
    for device in devices {
        device.connect(ready).await.context("a session")?;
    }
    Ok((server.cpu_us()? - before) / devices.len() as f64)
}

/// Resident memory once it stays within 1 % for a second.
async fn settled_bytes(server: &Process) -> Result<f64> {
    let mut last = server.resident_bytes()?;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = server.resident_bytes()?;
        if (now - last).abs() < last * 0.01 {
            return Ok(now);
        }
        last = now;
    }
}
