// SPDX-License-Identifier: MIT OR Apache-2.0
//! An owner over the embedded engine on a disk that gets full: what makes room again, and that nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::metrics::noop::NoopMeterProvider;
use pli_api::delivery::{Ack, Announce, OwnerReply, OwnerRequest, Page, ReadPage, owner_reply, owner_request};
use pli_api::log::{Entry, Item};
use pli_delivery::{Config, Counters, Delivery, DeliveryPorts};
use pli_domain::{EntryId, ShardId};
use pli_engine_embedded::{EmbeddedEngine, EmbeddedOptions};
use pli_ports::{AppendError, Clock, NewEntry, Subject, SystemClock};
use pli_runtime::Trail;
use pli_testkit::disk::SmallDisk;
use prost::Message;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::process::{Server, run, text};

const SHARD: ShardId = ShardId::new(2);
const DEVICE: [u8; 16] = [1; 16];
const PATIENCE: Duration = Duration::from_secs(60);
const BODY_BYTES: usize = 60_000;

/// Engine and owners, as `pli dev` composes them.
struct World {
    engine: EmbeddedEngine,
    counters: Arc<Counters>,
    stop: CancellationToken,
    owners: JoinHandle<()>,
    appended: u64,
}

impl World {
    fn start(disk: &SmallDisk) -> Self {
        let engine = EmbeddedEngine::open(&disk.dir(), EmbeddedOptions::default()).expect("opens");
        let config = Config {
            spill_after_ms: 2_000,
            settle_every_ms: 100,
            announce_round_ms: 50,
            trim_after_ms: 500,
            // No floor may rise here: a gap would be told, and these tests count every message.
            queue_bytes_max: 1 << 40,
            ..Config::default()
        };
        let ports = DeliveryPorts {
            log: engine.shard_log(),
            signals: engine.signals(),
            leases: engine.leases(),
            queues: engine.device_queues(),
            clock: Arc::new(SystemClock),
            trail: Trail::default(),
            beside: None,
        };
        let meter = NoopMeterProvider::new().meter("test");
        let delivery = Delivery::new(ports, engine.shard_map(), config, &meter, 1);
        let (counters, stop) = (delivery.counters(), CancellationToken::new());
        let running = delivery.run(stop.clone());
        let owners = tokio::spawn(async move { running.await.expect("owners end cleanly") });
        Self { engine, counters, stop, owners, appended: 0 }
    }

    async fn append(&mut self) -> Result<(), AppendError> {
        let number = self.appended + 1;
        let mut id = [9; 16];
        id[8..].copy_from_slice(&number.to_be_bytes());
        let expires_at_ms = SystemClock.now().0 + 86_400_000;
        let devices = vec![Bytes::copy_from_slice(&DEVICE)];
        let item = Item { devices, expires_at_ms, class: 3, envelope: body(number) };
        let bytes = Entry { items: vec![item], origin: Bytes::new() }.encode_to_vec().into();
        let entry = NewEntry { shard: SHARD, id: EntryId::from_bytes(id), bytes };
        self.engine.shard_log().append(vec![entry]).await.remove(0)?;
        self.appended = number;
        Ok(())
    }

    /// Appends until the disk is full and stays so for a second.
    async fn append_until_full(&mut self) {
        let mut refused = 0;
        while refused < 5 {
            match self.append().await {
                Ok(()) => refused = 0,
                Err(AppendError::Full { .. }) => {
                    refused += 1;
                    sleep(Duration::from_millis(200)).await;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    async fn ask(&self, request: owner_request::Request) -> owner_reply::Reply {
        let end = Instant::now() + PATIENCE;
        let asked = OwnerRequest { shard: SHARD.get().into(), request: Some(request) };
        loop {
            let payload = asked.encode_to_vec().into();
            let answer = self.engine.signals().request(&Subject::owner(SHARD), payload, Duration::from_secs(2)).await;
            match answer.ok().and_then(|bytes| OwnerReply::decode(bytes).ok()).and_then(|reply| reply.reply) {
                None | Some(owner_reply::Reply::NotReady(_)) => {}
                Some(reply) => return reply,
            }
            assert!(Instant::now() < end, "the owner does not answer");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn page(&self, after: u64) -> Page {
        let (device, session) = (Bytes::copy_from_slice(&DEVICE), Bytes::copy_from_slice(&DEVICE));
        let read = ReadPage { device, session, after, rows_max: 64, bytes_max: 256 * 1024 };
        match self.ask(owner_request::Request::ReadPage(read)).await {
            owner_reply::Reply::Page(page) => page,
            other => panic!("{other:?}"),
        }
    }

    /// The device connects and reads everything, which must be what was appended, in order; answers the last position.
    async fn read_all(&self) -> u64 {
        let id = || Bytes::copy_from_slice(&DEVICE);
        let announce = Announce { session: id(), edge: id(), device: id(), committed: 0, first: true };
        self.ask(owner_request::Request::Announce(announce)).await;
        let (mut after, mut next) = (0, 1);
        loop {
            let page = self.page(after).await;
            assert!(page.gaps.is_empty(), "nothing is lost: {:?}", page.gaps);
            for delivery in page.deliveries {
                assert!(delivery.envelope == body(next), "number {next} comes next");
                next += 1;
            }
            after = page.next;
            if page.at_head {
                assert_eq!(next, self.appended + 1, "everything that was accepted came");
                return after;
            }
        }
    }

    async fn acknowledge(&self, position: u64) {
        let (session, device) = (Bytes::copy_from_slice(&DEVICE), Bytes::copy_from_slice(&DEVICE));
        let request = Some(owner_request::Request::Ack(Ack { session, device, position }));
        let payload = OwnerRequest { shard: SHARD.get().into(), request }.encode_to_vec().into();
        self.engine.signals().publish(&Subject::owner(SHARD), payload).await.expect("published");
    }

    /// Waits until everything is settled and the log is trimmed behind it.
    async fn settled_and_trimmed(&self) {
        let (log, queues) = (self.engine.shard_log(), self.engine.device_queues());
        let end = Instant::now() + PATIENCE;
        loop {
            let bounds = log.bounds(SHARD).await.expect("readable");
            let state = queues.shard_state(SHARD).await.expect("readable");
            if state.checkpoint.position.seq() == bounds.head && bounds.first > bounds.head {
                return;
            }
            assert!(Instant::now() < end, "not settled: {state:?} {bounds:?} {:?}", self.counters.snapshot());
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until_accepted(&mut self) {
        let end = Instant::now() + PATIENCE;
        while let Err(error) = self.append().await {
            assert!(matches!(error, AppendError::Full { .. }) && Instant::now() < end, "{error:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until_a_plan_finds_no_room(&self) {
        let end = Instant::now() + PATIENCE;
        // On a slow machine everything may have become rows before the disk was full.
        let planned = |counts: &pli_delivery::CounterValues| counts.rows_written < self.appended;
        while planned(&self.counters.snapshot()) && self.counters.snapshot().settles_without_room == 0 {
            assert!(Instant::now() < end, "never: {:?}", self.counters.snapshot());
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(self) {
        self.stop.cancel();
        self.owners.await.expect("no panic");
        assert!(self.engine.failure().is_none());
        self.engine.close().await;
    }
}

/// Waits until `/readyz` answers with this status, and returns what it says.
fn until_readyz(server: &Server, status: u16, mut meanwhile: impl FnMut()) -> String {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let (answered, said) = server.admin("/readyz");
        if answered == status {
            return said;
        }
        assert!(std::time::Instant::now() < end, "{answered}, not {status}: {said}");
        meanwhile();
    }
}

#[test]
fn readyz_says_that_the_disk_is_full_while_appends_are_refused_and_not_a_moment_longer() {
    let Some(disk) = SmallDisk::mount("32m") else { return };
    let home = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(disk.dir()).expect("made");
    let started = Server::start(&disk.dir());
    until_readyz(&started, 200, || {});
    let connect =
        ["--server", &started.address(), "--fingerprint", started.about["fingerprint"].as_str().expect("one")];
    let send = |words: &str| {
        let arguments = ["send", "alice", "bob", words, "--count", "20", "--timeout", "1"];
        run(home.path(), &[&arguments[..], &connect].concat())
    };
    text(&run(home.path(), &[&["recv", "bob"][..], &connect].concat()));
    let ballast = disk.fill();
    // The engine notices when it has to write something that does not fit.
    let words = "x".repeat(16 * 1024);
    let said = until_readyz(&started, 503, || drop(send(&words)));
    assert!(said.contains("\"engine\"") && said.contains("disk of the data folder is full"), "{said}");
    // A process that starts on a full disk serves what makes room.
    let port = started.port();
    started.process.kill();
    let again = Server::start_on(&disk.dir(), port);
    let said = until_readyz(&again, 503, || {});
    assert!(said.contains("disk of the data folder is full"), "{said}");
    std::fs::remove_file(ballast).expect("removed");
    until_readyz(&again, 200, std::thread::yield_now);
    text(&run(home.path(), &[&["send", "alice", "bob", "after", "--wait", "accepted"][..], &connect].concat()));
}

/// Bytes that only this number has.
fn body(number: u64) -> Bytes {
    number.to_be_bytes().into_iter().cycle().take(BODY_BYTES).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_acknowledgements_make_room_by_themselves() {
    let Some(disk) = SmallDisk::mount("32m") else { return };
    let mut world = World::start(&disk);
    world.append_until_full().await;
    // Somebody takes what the reserve gave up: not one row has room, and what is planned now is for rows.
    let ballast = disk.fill();
    world.until_a_plan_finds_no_room().await;
    let read = world.read_all().await;
    // Room for acknowledgements, and for no row.
    let taken = std::fs::metadata(&ballast).expect("there").len();
    std::fs::File::options().write(true).open(&ballast).and_then(|file| file.set_len(taken - 192 * 1024)).expect("cut");
    world.acknowledge(read).await;
    world.settled_and_trimmed().await;
    world.until_accepted().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_others_make_room_what_is_not_acknowledged_is_settled_and_nothing_is_lost() {
    let Some(disk) = SmallDisk::mount("48m") else { return };
    let mut world = World::start(&disk);
    world.append_until_full().await;
    let ballast = disk.fill();
    world.until_a_plan_finds_no_room().await;
    std::fs::remove_file(ballast).expect("removed");
    // The rows of a device that is away may take all the room there is; the log holds nothing any more.
    world.settled_and_trimmed().await;
    let read = world.read_all().await;
    world.acknowledge(read).await;
    world.until_accepted().await;
    world.settled_and_trimmed().await;
    world.end().await;
}
