// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a message, a commit and an absence of 500 epochs cost in a group of 250 accounts with 1,000 devices.
#![allow(clippy::print_stdout, reason = "what a figure is made of is printed with it")]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pli_api::directory::{
    ClaimKeyPackagesRequest, ClaimKeyPackagesResponse, DeviceList, LookupRequest, LookupResponse,
};
use pli_api::edge::{send_result, server_frame};
use pli_benches::group::{GROUP, Maker, seed};
use pli_benches::load::{Device, Session, in_an_hour_ms, message};
use pli_benches::{Direction, Limit, Process, Ready, Row, Summary, Target, asked, data_folder, start_server};
use pli_client::core::mls::Mls;
use pli_client::{Client, ClientOptions};
use pli_domain::DeviceAddress;
use prost::Message as _;
use tokio::task::JoinHandle;

const ACCOUNTS: u64 = 250;
const DEVICES_EACH: u64 = 4;
/// Bytes of a sealed body: a message of a few lines.
const BODY: usize = 1_024;
const MESSAGES: u64 = 10;
const COMMITS: usize = 20;
const EPOCHS: u64 = 500;
/// The rows of those who are away come after 10 s; a machine that is busy may take longer.
const WRITTEN_WITHIN: Duration = Duration::from_secs(120);
/// What has come to rest stays so for this long: longer than a spill.
const AT_REST: Duration = Duration::from_secs(15);

fn main() -> Result<()> {
    println!("group: 1,000 devices, about 3 minutes");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (folder, mut summary) = (data_folder()?, Summary::open());
    runtime.block_on(figures(folder.path(), &mut summary))?;
    summary.save().context("the summary")
}

struct Stage {
    server: Process,
    ready: Ready,
    target: Target,
    devices: Vec<Device>,
    maker: Maker,
    /// The second device, which takes in every commit.
    second: Mls,
    sent: u64,
    /// CPU of the second device for a commit.
    taken_in_ms: f64,
}

async fn figures(folder: &Path, summary: &mut Summary) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let devices = seed(&folder.join("data"), ACCOUNTS, DEVICES_EACH).await?;
    let (server, ready) = start_server(folder)?;
    let target = Target::single(&server, &ready);
    let begun = Instant::now();
    let (maker, second) = Maker::make(&ready, &devices).await?;
    println!("{:28} made in {:.1} s", "", begun.elapsed().as_secs_f64());
    let mut stage = Stage { server, ready, target, devices, maker, second, sent: 0, taken_in_ms: 0.0 };
    if asked("message") {
        stage.message_rows(summary).await?;
    }
    // Coming back is held against what a commit costs a receiver.
    if asked("commit") || asked("rejoin") {
        stage.commit_rows(summary).await?;
    }
    if asked("rejoin") {
        summary.add(stage.rejoin_row(folder).await?);
    }
    Ok(())
}

impl Stage {
    fn others(&self) -> f64 {
        self.devices.len() as f64 - 1.0
    }

    /// Waits until no row has been written for a while.
    async fn rest(&self) -> Result<()> {
        let (mut last, mut since) = (self.target.read().await?, Instant::now());
        let deadline = Instant::now() + WRITTEN_WITHIN;
        while since.elapsed() < AT_REST {
            ensure!(Instant::now() < deadline, "rows are written on and on");
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = self.target.read().await?;
            if now.rows > last.rows || now.entry_bytes > last.entry_bytes {
                (last, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    async fn say(&mut self) -> Result<()> {
        self.sent += 1;
        let send = message(GROUP, self.sent, BODY, in_an_hour_ms()?);
        self.maker.session.send(vec![send]).await?;
        loop {
            let Some(server_frame::Frame::SendResults(results)) = self.maker.session.next().await?.frame else {
                continue;
            };
            match results.results.into_iter().next().and_then(|result| result.result) {
                Some(send_result::Result::Accepted(_)) => return Ok(()),
                other => bail!("refused: {other:?}"),
            }
        }
    }

    /// Bytes and rows of a message, with nobody connected and with everybody.
    async fn message_rows(&mut self, summary: &mut Summary) -> Result<()> {
        self.rest().await?;
        let before = self.target.read().await?;
        for _ in 0..MESSAGES {
            self.say().await?;
        }
        self.rest().await?;
        let used = self.target.read().await?.since(&before);
        let each = |sum: f64| sum / MESSAGES as f64;
        let (log, payload) = (each(used.entry_bytes), each(used.payload_bytes));
        println!("{:28} {log:.0} B in the log, {payload:.0} B of payload, {:.0} B in rows", "", each(used.row_bytes));
        let once = BODY as f64 + 16.0 * self.others();
        let limit = Limit { name: "one copy of the body and 16 bytes a device".into(), value: once };
        let name = "group_1000_message_bytes_logged";
        summary.add(Row::limited(name, log + payload, "B", &limit, Direction::Less)?);
        let limit =
            Limit { name: "one payload and a row for each device that is away".into(), value: 1.0 + self.others() };
        let rows = each(used.rows) + 1.0;
        summary.add(Row::limited("group_1000_message_rows", rows, "rows", &limit, Direction::Less)?);

        let listening = self.listen().await?;
        self.rest().await?;
        let before = self.target.read().await?;
        for _ in 0..MESSAGES {
            self.say().await?;
        }
        self.rest().await?;
        let used = self.target.read().await?.since(&before);
        summary.add(Row::plain("group_1000_message_rows_fast_ack", each(used.rows) + 1.0, "rows"));
        listening.into_iter().for_each(|task| task.abort());
        Ok(())
    }

    /// Sessions of everybody but the maker, which acknowledge what comes.
    async fn listen(&self) -> Result<Vec<JoinHandle<()>>> {
        let mut listening = Vec::new();
        for device in &self.devices[1..] {
            let session = device.connect(&self.ready).await?;
            listening.push(tokio::spawn(acknowledge(session)));
        }
        Ok(listening)
    }

    /// CPU of a commit that renews the keys of its maker: of the maker, of the server until all 999 have it, and of
    /// one of those.
    async fn commit_rows(&mut self, summary: &mut Summary) -> Result<()> {
        let listening = self.listen().await?;
        self.rest().await?;
        let (mut made, mut taken, mut bytes) = (Duration::ZERO, Duration::ZERO, 0);
        let before = self.target.read().await?;
        for _ in 0..COMMITS {
            let begun = Instant::now();
            let commit = self.maker.mls.commit(GROUP, &[], &[])?;
            made += begun.elapsed();
            bytes = commit.commit.len() + commit.group_info.len();
            self.maker.offer(&commit).await?;
            let begun = Instant::now();
            self.second.handshake(GROUP, &commit.commit)?;
            drop(self.second.take_changes());
            taken += begun.elapsed();
        }
        let delivered = before.acked + COMMITS as f64 * self.others();
        let after =
            self.target.until("every commit acknowledged", WRITTEN_WITHIN, |now| now.acked >= delivered).await?;
        let server = after.since(&before).roles_cpu_us / 1e3;
        println!("{:28} the last one and its group info have {bytes} B", "");
        let each = |ms: f64| ms / COMMITS as f64;
        self.taken_in_ms = each(taken.as_secs_f64() * 1e3);
        for (who, ms) in
            [("server", server), ("receiver", taken.as_secs_f64() * 1e3), ("maker", made.as_secs_f64() * 1e3)]
        {
            summary.add(Row::plain(&format!("group_1000_commit_cpu_ms_{who}"), each(ms), "ms"));
        }
        listening.into_iter().for_each(|task| task.abort());
        Ok(())
    }

    /// How long a client that was away for 500 epochs of this group takes from its start until it has the newest one.
    async fn rejoin_row(&mut self, folder: &Path) -> Result<Row> {
        let home = folder.join("profiles");
        let client = open(&home, &self.ready).await?;
        // An account goes for it: more than 250 may not be in.
        let last: Vec<DeviceAddress> =
            self.devices.split_off(self.devices.len() - 4).iter().map(|device| device.identity.address()).collect();
        let (device, key, package) = self.package("absent").await?;
        self.maker.commit(&[(device, key, package)], &last).await?;
        until(&client, self.maker.mls.epoch(GROUP)).await?;
        client.close().await;
        for _ in 0..EPOCHS {
            self.maker.commit(&[], &[]).await?;
        }
        let begun = Instant::now();
        let client = open(&home, &self.ready).await?;
        until(&client, self.maker.mls.epoch(GROUP)).await?;
        let took = begun.elapsed();
        client.close().await;
        println!("{:28} the server used {:.1} s of CPU in all", "", self.server.cpu_us()? / 1e6);
        let name = "CPU of taking in 500 commits, one after the other";
        let limit = Limit { name: name.into(), value: EPOCHS as f64 * self.taken_in_ms };
        Ok(Row::limited("rejoin_500_epochs_ms", took.as_secs_f64() * 1e3, "ms", &limit, Direction::Less)?)
    }

    async fn package(&mut self, handle: &str) -> Result<(DeviceAddress, Vec<u8>, Vec<u8>)> {
        let session = &mut self.maker.session;
        let found =
            session.call("/pli.directory.v1.Directory/Lookup", &LookupRequest { handle: handle.into() }).await?;
        let found = LookupResponse::decode(found)?;
        let list = DeviceList::decode(found.devices.context("a list")?.list)?;
        let entry = list.devices.first().context("a device")?;
        let device =
            DeviceAddress { account: found.account.as_ref().try_into()?, device: entry.device.as_ref().try_into()? };
        let claim = ClaimKeyPackagesRequest { devices: vec![device.into()] };
        let claimed = session.call("/pli.directory.v1.Directory/ClaimKeyPackages", &claim).await?;
        let claimed = ClaimKeyPackagesResponse::decode(claimed)?;
        let package = claimed.key_packages.first().context("a key package")?.key_package.to_vec();
        Ok((device, entry.key.to_vec(), package))
    }
}

async fn acknowledge(mut session: Session) {
    while let Ok(frame) = session.next().await {
        let Some(server_frame::Frame::Deliver(deliver)) = frame.frame else { continue };
        if session.ack(deliver.position).await.is_err() {
            return;
        }
    }
}

/// Opens a profile and waits until the server has its key packages.
async fn open(home: &Path, ready: &Ready) -> Result<Client> {
    let options = ClientOptions {
        server: ready.address.parse()?,
        others: Vec::new(),
        transport: ready.transport,
        quic_port: None,
        fingerprint: Some(ready.fingerprint.parse()?),
        home: home.to_owned(),
        name: "absent".parse()?,
        suite: pli_client::Suite::default(),
        offline: false,
    };
    let (client, mut events) = Client::open(options).await?;
    tokio::spawn(async move { while events.next().await.is_some() {} });
    client.online().await?;
    while !client.query(|core| core.is_idle()).await? {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(client)
}

async fn until(client: &Client, epoch: Option<u64>) -> Result<()> {
    let deadline = Instant::now() + WRITTEN_WITHIN;
    while client.query(|core| core.epoch_authenticator(GROUP).map(|(epoch, _)| epoch)).await? != epoch {
        ensure!(Instant::now() < deadline, "the client does not get to epoch {epoch:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
