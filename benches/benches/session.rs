// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a message and a session cost the whole server process, over real sockets.
#![allow(clippy::print_stdout, reason = "rounds and what bounds a rate are printed as they are taken")]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pli_api::edge::server_frame;
use pli_benches::load::{Device, Session, connector, converse};
use pli_benches::traffic::{BYTES, Friends, Pace, Pair, exchange};
use pli_benches::{
    Direction, ECHO, Process, Reading, Ready, Row, Summary, Target, asked, cpu_us_per_echo, cpu_us_per_handshake,
    cpu_us_per_quic_handshake, data_folder, measure, measure_limit, seed, serve_echo, start_server,
};
use pli_client::Transport;
use pli_domain::ConversationId;

const PAIRS: usize = 64;
/// Sends that each sender keeps in flight.
const WINDOW: usize = 16;
/// Before a measurement, so that what waited is delivered and caches are filled.
const WARM: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(10);
/// Rounds of each of two servers that take turns; odd.
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_secs(3);
/// Messages a second in such a round: what one server holds with ease.
const ROUND_PER_S: f64 = 4_000.0;
const LIMIT_MEASURED: Duration = Duration::from_secs(2);
const IDLE: usize = 2_000;
/// Connections per figure: the system counts CPU in steps of 10 ms.
const CONNECTS: usize = 2_000;
const LIMIT_CONNECTS: usize = 500;
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Ok(transport) = std::env::var(ECHO) {
        return runtime.block_on(serve_echo(&transport));
    }
    let folder = data_folder()?;
    let mut summary = Summary::open();
    if asked("traffic") {
        let traffic = traffic_rows(&runtime, folder.path(), Transport::WebSocket, &mut summary)?;
        summary.add(Row::plain("rows_per_message_fast_ack", traffic.rows, "rows"));
        let envelope = pli_benches::Limit { name: "bytes of the envelope".into(), value: traffic.envelope_bytes };
        summary.add(Row::limited("disk_bytes_per_message", traffic.disk_bytes, "B", &envelope, Direction::Less)?);
    }
    if asked("quic") {
        traffic_rows(&runtime, folder.path(), Transport::Quic, &mut summary)?;
    }
    for transport in [Transport::WebSocket, Transport::Quic].into_iter().filter(|_| asked("idle")) {
        let name = format!("idle_{}_bytes", word(transport));
        let idle = runtime.block_on(idle_bytes(&folder.path().join(&name), transport))?;
        summary.add(Row::plain(&name, idle, "B"));
    }
    for resumed in [false, true].into_iter().filter(|_| asked("ready")) {
        summary.add(ready_row(&runtime, folder.path(), resumed)?);
    }
    if asked("ready") {
        summary.add(quic_ready_row(&runtime, folder.path())?);
    }
    if asked("accounts") {
        runtime.block_on(ratios(folder.path()))?.into_iter().for_each(|row| summary.add(row));
    }
    summary.save()?;
    Ok(())
}

const fn word(transport: Transport) -> &'static str {
    if matches!(transport, Transport::Quic) { "quic" } else { "ws" }
}

/// What a message costs over this transport, beside an echo of a bare server over it.
fn traffic_rows(
    runtime: &tokio::runtime::Runtime,
    folder: &Path,
    transport: Transport,
    summary: &mut Summary,
) -> Result<Traffic> {
    let word = word(transport);
    let library = if word == "quic" { "QUIC" } else { "TLS WebSocket" };
    let limit = measure_limit(&format!("CPU of one echo of a bare {library} server"), || {
        runtime.block_on(cpu_us_per_echo(transport, PAIRS, BYTES, LIMIT_MEASURED))
    })?;
    let traffic = runtime.block_on(traffic(&folder.join(format!("traffic-{word}")), transport))?;
    let cost = format!("{word}_message_cpu_us");
    summary.add(Row::limited(&cost, traffic.cpu_us, "us", &limit, Direction::Less)?);
    summary.add(Row::plain(&format!("{word}_messages_per_s"), traffic.per_s, "1/s"));
    Ok(traffic)
}

/// The same of a session over QUIC, whose TLS begins anew each time.
fn quic_ready_row(runtime: &tokio::runtime::Runtime, folder: &Path) -> Result<Row> {
    let limit = measure_limit("CPU of a bare full QUIC handshake", || {
        runtime.block_on(cpu_us_per_quic_handshake(LIMIT_CONNECTS))
    })?;
    let figure = runtime.block_on(ready_cpu_us(&folder.join("ready-quic"), Transport::Quic, false))?;
    Ok(Row::limited("session_ready_cpu_us_quic", figure, "us", &limit, Direction::Less)?)
}

/// CPU of a session's beginning, beside a bare TLS handshake of the same kind.
fn ready_row(runtime: &tokio::runtime::Runtime, folder: &Path, resumed: bool) -> Result<Row> {
    let kind = if resumed { "resumed" } else { "full" };
    let limit = measure_limit(&format!("CPU of a bare {kind} TLS 1.3 handshake"), || {
        runtime.block_on(cpu_us_per_handshake(resumed, LIMIT_CONNECTS))
    })?;
    let figure =
        runtime.block_on(ready_cpu_us(&folder.join(format!("ready-{kind}")), Transport::WebSocket, resumed))?;
    Ok(Row::limited(&format!("session_ready_cpu_us_{kind}"), figure, "us", &limit, Direction::Less)?)
}

struct Traffic {
    cpu_us: f64,
    per_s: f64,
    rows: f64,
    disk_bytes: f64,
    envelope_bytes: f64,
}

/// 64 senders, each to a receiver of its own that acknowledges everything.
async fn traffic(folder: &Path, transport: Transport) -> Result<Traffic> {
    let (server, ready) = start_server(folder)?;
    let ready = ready.over(transport);
    let (edges, target) = ([ready.clone()], Target::single(&server, &ready));
    let mut pairs = Vec::new();
    for n in 0..PAIRS {
        pairs.push(Friends::meet(&edges, n).await?.connect(&edges, n, 1).await?);
    }
    let (pairs, _) = exchange(pairs, Pace::Window(WINDOW), WARM).await?;
    let disk = server.written_bytes()?;
    let (_, measured) = measure(&target, pairs, Pace::Window(WINDOW), MEASURED).await?;
    let measured = measured.whole()?;
    println!("{:28} {}", "", measured.bound());
    Ok(Traffic {
        cpu_us: measured.each(measured.used.roles_cpu_us),
        per_s: measured.per_s(),
        rows: measured.each(measured.used.rows),
        disk_bytes: measured.each(server.written_bytes()? - disk),
        envelope_bytes: measured.exchanged.envelope_bytes as f64,
    })
}

/// A server beside many accounts, 64 pairs of them connected.
struct Beside {
    _server: Process,
    ready: Ready,
    target: Target,
    /// Taken while they exchange.
    pairs: Vec<Pair>,
    devices: Vec<Device>,
    /// Conversations of the senders with everybody else.
    others: Vec<ConversationId>,
}

impl Beside {
    async fn start(folder: &Path, accounts: u64) -> Result<Self> {
        let pairs = PAIRS as u64;
        let talks = (0..pairs).map(|n| (2 * n, 2 * n + 1));
        let talks: Vec<_> = talks.chain((2 * pairs..accounts).map(|n| (2 * (n % pairs), n))).collect();
        std::fs::create_dir_all(folder)?;
        let (devices, mut ids) = seed(&folder.join("data"), accounts, &talks).await?;
        let (server, ready) = start_server(folder)?;
        let others = ids.split_off(PAIRS);
        let mut open = Vec::new();
        for (n, room) in ids.into_iter().enumerate() {
            let (to, from) = (devices[2 * n].connect(&ready).await?, devices[2 * n + 1].connect(&ready).await?);
            open.push(Pair::new(vec![room], to, Some(from)));
        }
        let target = Target::single(&server, &ready);
        Ok(Self { _server: server, ready, target, pairs: open, devices, others })
    }

    /// CPU of a message in one round between the pairs.
    async fn round(&mut self) -> Result<f64> {
        let pairs = std::mem::take(&mut self.pairs);
        let (pairs, measured) = measure(&self.target, pairs, Pace::PerSecond(ROUND_PER_S), ROUND).await?;
        self.pairs = pairs;
        let measured = measured.whole()?;
        Ok(measured.each(measured.used.roles_cpu_us))
    }

    /// CPU of a message to somebody of all the others, of whom nobody is connected, until its row is written.
    async fn away_us(&mut self) -> Result<f64> {
        self.pairs.clear();
        let mut pairs = Vec::new();
        for n in 0..PAIRS {
            let to = self.devices[2 * n].connect(&self.ready).await?;
            let rooms = self.others.iter().skip(n).step_by(PAIRS).copied().collect();
            pairs.push(Pair::new(rooms, to, None));
        }
        let before = self.target.read().await?;
        let (_, exchanged) = exchange(pairs, Pace::Window(WINDOW), MEASURED).await?;
        let (accepted, refused) = (exchanged.accepted as f64, exchanged.refused);
        ensure!(refused == 0, "{refused} messages were refused");
        let written = |now: &Reading| now.rows >= before.rows + accepted;
        let after = self.target.until("a row for each message", SETTLED_WITHIN, written).await?;
        Ok((after.roles_cpu_us - before.roles_cpu_us) / accepted)
    }
}

/// Cost per message beside 100,000 accounts over the cost beside 1,000: of pairs that are connected, and of messages that
/// are spread over all accounts, none of them connected.
///
/// Between connected pairs the two servers take turns, the first one changing, at one pace that both can hold: how many
/// messages share a transaction, and with it the cost of one, depends on the rate, and what else the machine does in one
/// minute or the next then meets both. The median of the rounds' ratios counts.
async fn ratios(folder: &Path) -> Result<[Row; 4]> {
    let mut few = Beside::start(&folder.join("few"), 1_000).await?;
    let mut many = Beside::start(&folder.join("many"), 100_000).await?;
    few.round().await?;
    many.round().await?;
    let (mut ratios, mut costs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (of_few, of_many) = if round % 2 == 0 {
            (few.round().await?, many.round().await?)
        } else {
            let of_many = many.round().await?;
            (few.round().await?, of_many)
        };
        println!("{:28} round {round}: {of_many:.2} us beside {of_few:.2} us, {:.3}", "", of_many / of_few);
        ratios.push(of_many / of_few);
        costs.push(of_many);
    }
    let (few, many) = (few.away_us().await?, many.away_us().await?);
    Ok([
        Row::plain("message_cpu_us_100k_accounts", median(costs), "us"),
        Row::plain("message_cpu_us_100k_recipients", many, "us"),
        Row::plain("cpu_ratio_100k_accounts", median(ratios), "ratio"),
        Row::plain("cpu_ratio_100k_recipients", many / few, "ratio"),
    ])
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Memory of each of 2,000 sessions that have received and acknowledged a first message, then say nothing.
async fn idle_bytes(folder: &Path, transport: Transport) -> Result<f64> {
    let (server, ready) = start_server(folder)?;
    let over = ready.clone().over(transport);
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
        let mut session = device.connect(&over).await?;
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

/// CPU from the first packet to `Ready`, one connection after the other.
async fn ready_cpu_us(folder: &Path, transport: Transport, resumed: bool) -> Result<f64> {
    let (server, ready) = start_server(folder)?;
    let ready = ready.over(transport);
    let (device, warm) = (Device::register(&ready, 0).await?, connector(&ready)?);
    device.connect_by(&ready, &warm).await.context("a first session, which gets a ticket")?;
    let before = server.cpu_us()?;
    for _ in 0..CONNECTS {
        let session = match resumed {
            true => device.connect_by(&ready, &warm).await,
            false => device.connect(&ready).await,
        };
        let is = session.context("a session")?.resumed;
        ensure!(is.is_none_or(|is| is == resumed), "the TLS session was resumed: {is:?}, wanted {resumed}");
    }
    Ok((server.cpu_us()? - before) / CONNECTS as f64)
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
