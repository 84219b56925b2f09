// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a message and a session cost the whole server process, over real sockets.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pli_api::edge::{send_result, server_frame};
use pli_benches::load::{Device, Session, connector, converse, in_an_hour_ms, message};
use pli_benches::{
    Direction, ECHO, Process, Ready, Row, Summary, cpu_us_per_echo, cpu_us_per_handshake, data_folder, measure_limit,
    metric, seed, serve_echo, start_server,
};
use pli_domain::ConversationId;

const PAIRS: usize = 64;
const BYTES: usize = 256;
/// Sends that each sender keeps in flight.
const WINDOW: u64 = 16;
const MEASURED: Duration = Duration::from_secs(10);
const LIMIT_MEASURED: Duration = Duration::from_secs(2);
const IDLE: usize = 2_000;
/// Connections per figure: the system counts CPU in steps of 10 ms.
const CONNECTS: usize = 2_000;
const LIMIT_CONNECTS: usize = 500;
const ROWS_WRITTEN: &str = "pli_delivery_rows_written_total";
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if std::env::var_os(ECHO).is_some() {
        return runtime.block_on(serve_echo());
    }
    let folder = data_folder()?;
    let mut summary = Summary::open();
    if asked("traffic") {
        let limit = measure_limit("CPU of one echo of a bare TLS WebSocket server", || {
            runtime.block_on(cpu_us_per_echo(PAIRS, BYTES, LIMIT_MEASURED))
        })?;
        let traffic = runtime.block_on(traffic(&folder.path().join("traffic")))?;
        summary.add(Row::limited("ws_message_cpu_us", traffic.cpu_us, "us", &limit, Direction::Less)?);
        summary.add(Row::plain("ws_messages_per_s", traffic.per_s, "1/s"));
        summary.add(Row::plain("rows_per_message_fast_ack", traffic.rows, "rows"));
        let envelope = pli_benches::Limit { name: "bytes of the envelope".into(), value: traffic.envelope_bytes };
        summary.add(Row::limited("disk_bytes_per_message", traffic.disk_bytes, "B", &envelope, Direction::Less)?);
    }
    if asked("idle") {
        summary.add(Row::plain("idle_ws_bytes", runtime.block_on(idle_bytes(&folder.path().join("idle")))?, "B"));
    }
    for resumed in [false, true].into_iter().filter(|_| asked("ready")) {
        summary.add(ready_row(&runtime, folder.path(), resumed)?);
    }
    if asked("accounts") {
        runtime.block_on(ratios(folder.path()))?.into_iter().for_each(|row| summary.add(row));
    }
    summary.save()?;
    Ok(())
}

/// Whether the command line names this part, or none: `cargo bench --bench session -- traffic idle ready accounts`.
fn asked(part: &str) -> bool {
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    named.is_empty() || named.iter().any(|name| name == part)
}

/// CPU of a session's beginning, beside a bare TLS handshake of the same kind.
fn ready_row(runtime: &tokio::runtime::Runtime, folder: &Path, resumed: bool) -> Result<Row> {
    let kind = if resumed { "resumed" } else { "full" };
    let limit = measure_limit(&format!("CPU of a bare {kind} TLS 1.3 handshake"), || {
        runtime.block_on(cpu_us_per_handshake(resumed, LIMIT_CONNECTS))
    })?;
    let figure = runtime.block_on(ready_cpu_us(&folder.join(format!("ready-{kind}")), resumed))?;
    Ok(Row::limited(&format!("session_ready_cpu_us_{kind}"), figure, "us", &limit, Direction::Less)?)
}

struct Traffic {
    cpu_us: f64,
    per_s: f64,
    rows: f64,
    disk_bytes: f64,
    envelope_bytes: f64,
}

/// Two sessions and the conversation that the first one writes into.
type Pair = (ConversationId, Session, Session);

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
    exchange(&server, &ready, pairs).await
}

/// Lets every pair send, deliver and acknowledge as fast as its window allows.
async fn exchange(server: &Process, ready: &Ready, pairs: Vec<Pair>) -> Result<Traffic> {
    let (cpu, disk, started) = (server.cpu_us()?, server.written_bytes()?, Instant::now());
    let rows = metric(&ready.admin, ROWS_WRITTEN).await?;
    let tasks: Vec<_> = pairs
        .into_iter()
        .map(|(conversation, to, from)| {
            let sending = tokio::spawn(send(to, vec![conversation], started + MEASURED));
            (sending, tokio::spawn(receive(from)))
        })
        .collect();
    let (mut sent, mut envelope_bytes, mut receivers) = (0_u64, 0, Vec::new());
    for (sending, receiving) in tasks {
        let (count, _) = sending.await??;
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
        rows: (metric(&ready.admin, ROWS_WRITTEN).await? - rows) / messages,
        disk_bytes: (server.written_bytes()? - disk) / messages,
        envelope_bytes: envelope_bytes as f64,
    })
}

/// Cost per message beside 100,000 accounts over the cost beside 1,000: of pairs that are connected, and of messages that
/// are spread over all accounts, none of them connected.
async fn ratios(folder: &Path) -> Result<[Row; 4]> {
    let (few, many) = (folder.join("few"), folder.join("many"));
    let (few, many) = (beside(&few, 1_000).await?, beside(&many, 100_000).await?);
    Ok([
        Row::plain("message_cpu_us_100k_accounts", many.0, "us"),
        Row::plain("message_cpu_us_100k_recipients", many.1, "us"),
        Row::plain("cpu_ratio_100k_accounts", many.0 / few.0, "ratio"),
        Row::plain("cpu_ratio_100k_recipients", many.1 / few.1, "ratio"),
    ])
}

/// CPU of a message among connected pairs, and of one to somebody of all the others.
async fn beside(folder: &Path, accounts: u64) -> Result<(f64, f64)> {
    let pairs = PAIRS as u64;
    let talks = (0..pairs).map(|n| (2 * n, 2 * n + 1));
    let others = (2 * pairs..accounts).map(|n| (2 * (n % pairs), n));
    let talks: Vec<_> = talks.chain(others).collect();
    std::fs::create_dir_all(folder)?;
    let (devices, ids) = seed(&folder.join("data"), accounts, &talks).await?;
    let (server, ready) = start_server(folder)?;
    let mut open = Vec::new();
    for n in 0..PAIRS {
        let (to, from) = (devices[2 * n].connect(&ready).await?, devices[2 * n + 1].connect(&ready).await?);
        open.push((ids[n], to, from));
    }
    let connected = exchange(&server, &ready, open).await?.cpu_us;
    let (mut tasks, rows) = (Vec::new(), metric(&ready.admin, ROWS_WRITTEN).await?);
    let (before, end) = (server.cpu_us()?, Instant::now() + MEASURED);
    for n in 0..PAIRS {
        let to = devices[2 * n].connect(&ready).await?;
        let rooms = ids[PAIRS..].iter().skip(n).step_by(PAIRS).copied().collect();
        tasks.push(tokio::spawn(send(to, rooms, end)));
    }
    let mut sent = 0.0;
    for task in tasks {
        sent += task.await??.0 as f64;
    }
    until_written(&ready, rows + sent).await?;
    Ok((connected, (server.cpu_us()? - before) / sent))
}

/// Sends round the conversations with a window until `end`, then waits for the last results. Answers how many were
/// accepted, and the session.
async fn send(mut session: Session, rooms: Vec<ConversationId>, end: Instant) -> Result<(u64, Session)> {
    let expires = in_an_hour_ms()?;
    let (mut next, mut open, mut accepted) = (0_u64, 0_u64, 0_u64);
    loop {
        if Instant::now() < end && open < WINDOW {
            let room = |n: u64| rooms[n as usize % rooms.len()];
            let batch = (next..next + WINDOW - open).map(|n| message(room(n), n, BYTES, expires)).collect();
            next += WINDOW - open;
            open = WINDOW;
            session.send(batch).await?;
        }
        if open == 0 {
            return Ok((accepted, session));
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

/// Memory of each of 2,000 sessions that have received and acknowledged a first message, then say nothing.
async fn idle_bytes(folder: &Path) -> Result<f64> {
    let (server, ready) = start_server(folder)?;
    let hub = Device::register(&ready, 0).await?;
    let mut devices = Vec::with_capacity(IDLE);
    for n in 1..=IDLE as u64 {
        let device = Device::register(&ready, n).await?;
        let (mut to, mut from) = (hub.connect(&ready).await?, device.connect(&ready).await?);
        converse((&hub, &mut to), (&device, &mut from)).await?;
        devices.push(device);
    }
    let before = settled_bytes(&server).await?;
    let mut sessions = Vec::with_capacity(IDLE);
    for device in &devices {
        let mut session = device.connect(&ready).await?;
        first_message(&mut session).await?;
        sessions.push(session);
    }
    let after = settled_bytes(&server).await?;
    Ok((after - before) / sessions.len() as f64)
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
async fn ready_cpu_us(folder: &Path, resumed: bool) -> Result<f64> {
    let (server, ready) = start_server(folder)?;
    let (device, warm) = (Device::register(&ready, 0).await?, connector(&ready)?);
    device.connect_by(&ready, &warm).await.context("a first session, which gets a ticket")?;
    let before = server.cpu_us()?;
    for _ in 0..CONNECTS {
        let session = match resumed {
            true => device.connect_by(&ready, &warm).await,
            false => device.connect(&ready).await,
        };
        let is = session.context("a session")?.resumed;
        ensure!(is == resumed, "the TLS session was resumed: {is}, wanted {resumed}");
    }
    Ok((server.cpu_us()? - before) / CONNECTS as f64)
}

/// Waits until so many rows were written in all: what is still to be written costs CPU too.
async fn until_written(ready: &Ready, rows: f64) -> Result<()> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    while metric(&ready.admin, ROWS_WRITTEN).await? < rows {
        ensure!(Instant::now() < deadline, "the owners did not write {rows} rows within {SETTLED_WITHIN:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Resident memory once it stays within 1 % for a second.
async fn settled_bytes(server: &Process) -> Result<f64> {
    let (mut last, deadline) = (server.resident_bytes()?, Instant::now() + SETTLED_WITHIN);
    loop {
        ensure!(Instant::now() < deadline, "resident memory does not come to rest");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = server.resident_bytes()?;
        if (now - last).abs() < last * 0.01 {
            return Ok(now);
        }
        last = now;
    }
}
