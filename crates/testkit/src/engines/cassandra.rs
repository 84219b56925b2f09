// SPDX-License-Identifier: MIT OR Apache-2.0
//! Apache Cassandra: one node, or a ring of some, small enough for a test machine (a 384 MiB heap each).
//!
//! The jars come from `make engine-cassandra`. The commit log is synced before a write is acknowledged (in groups of
//! 2 ms), so that a killed node has what it acknowledged.

mod configuration;

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::EngineError;
use super::child::Guarded;

const CQL_PORT: u16 = 9042;
const RING_PORT: u16 = 7000;
/// A node answers by then: 8 s on an idle machine, longer where others build.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// A stopped node has drained by then.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
/// Parts of a slow node's turn.
const STILL: Duration = Duration::from_millis(450);
const GOING: Duration = Duration::from_millis(50);
/// Tries to find loopback addresses that nobody uses.
const ADDRESSES_TRIED: u32 = 50;

/// How to start it.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Folder with the jars; [`jars`] finds it.
    pub jars: PathBuf,
    /// Folder for the nodes' files; what an earlier run left there is removed.
    pub folder: PathBuf,
    /// How many nodes form the ring.
    pub nodes: u8,
    /// Whether the nodes ask for user and password (`cassandra`, `cassandra`).
    pub login: bool,
    /// PEM file with private key (PKCS #8) and certificate; clients may then use TLS on the same port.
    pub certificate: Option<PathBuf>,
}

/// A running ring. Dropping it ends its processes.
#[derive(Debug)]
pub struct Cassandra {
    launch: Launch,
    nodes: Vec<Node>,
}

/// A node that goes on for 50 ms of every 500: it answers, late, and nobody calls it dead. Dropped, it goes on as before.
#[derive(Debug)]
pub struct Slowed {
    server: Pid,
    turns: JoinHandle<()>,
}

impl Slowed {
    fn begin(server: Pid) -> Self {
        let turns = tokio::spawn(async move {
            // A signal to a node that is gone meanwhile reaches nobody.
            while kill_process(server, Signal::STOP).is_ok() {
                sleep(STILL).await;
                let _ = kill_process(server, Signal::CONT);
                sleep(GOING).await;
            }
        });
        Self { server, turns }
    }
}

impl Drop for Slowed {
    fn drop(&mut self) {
        self.turns.abort();
        let _ = kill_process(self.server, Signal::CONT);
    }
}

#[derive(Debug)]
struct Node {
    address: Ipv4Addr,
    folder: PathBuf,
    process: Option<Guarded>,
}

/// Where the jars are, or why the tests that need them are skipped.
pub fn jars() -> Result<PathBuf, EngineError> {
    let java = std::process::Command::new("java").arg("-version").output();
    if !java.is_ok_and(|output| output.status.success()) {
        return Err(EngineError::Unavailable("java is not installed".into()));
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/engines/cassandra");
    match fs::read_dir(&folder).is_ok_and(|mut jars| jars.next().is_some()) {
        true => Ok(folder),
        false => Err(EngineError::Unavailable("no jars of Apache Cassandra; run `make engine-cassandra`".into())),
    }
}

/// Loopback addresses, one after the other, on which nobody listens.
pub fn free_addresses(count: u8) -> Result<Vec<Ipv4Addr>, EngineError> {
    let random = RandomState::new();
    for attempt in 0..ADDRESSES_TRIED {
        let [a, b, ..] = random.hash_one(attempt).to_be_bytes();
        // Not 127.0, where other servers are.
        let addresses: Vec<_> = (1..=count).map(|node| Ipv4Addr::new(127, a | 64, b, node)).collect();
        let free = |address: &Ipv4Addr| {
            [CQL_PORT, RING_PORT].into_iter().all(|port| TcpListener::bind((*address, port)).is_ok())
        };
        if addresses.iter().all(free) {
            return Ok(addresses);
        }
    }
    Err(EngineError::Unavailable("no free loopback addresses (127.x.y.z) on this machine".into()))
}

impl Cassandra {
    /// Starts the ring on free addresses and waits until every node answers; says so on standard output.
    #[expect(clippy::print_stdout, reason = "progress of something that takes its time")]
    pub async fn start(launch: Launch, addresses: &[Ipv4Addr]) -> Result<Self, EngineError> {
        let started = Instant::now();
        println!("starting Apache Cassandra: nodes {addresses:?}");
        let ring = Self::start_telling(launch, addresses, &|_| {}).await?;
        println!("Apache Cassandra is ready after {:.1} s", started.elapsed().as_secs_f32());
        Ok(ring)
    }

    /// The same; says to `told` which node is started.
    pub async fn start_telling(
        launch: Launch,
        addresses: &[Ipv4Addr],
        told: &(dyn Fn(&str) + Sync),
    ) -> Result<Self, EngineError> {
        if launch.folder.exists() {
            fs::remove_dir_all(&launch.folder).map_err(EngineError::io("removing an earlier run"))?;
        }
        let node = |address: &Ipv4Addr| Node {
            address: *address,
            folder: launch.folder.join(format!("n{}", address.octets()[3])),
            process: None,
        };
        let mut ring = Self { nodes: addresses.iter().map(node).collect(), launch };
        // One after the other: a node that meets no other within a moment of its start gives up.
        for at in 0..ring.nodes.len() {
            told(&format!("CQL node {} of {} at {}", at + 1, ring.nodes.len(), ring.nodes[at].address));
            ring.resume(at).await?;
        }
        Ok(ring)
    }

    /// `host:port` of every node.
    pub fn contact_points(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("{}:{CQL_PORT}", node.address)).collect()
    }

    /// Process ids of the nodes that run.
    pub fn process_ids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.process.as_ref()).map(Guarded::id).collect()
    }

    /// Kills a node (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self, node: usize) {
        if let Some(process) = self.nodes[node].process.take() {
            process.kill();
        }
    }

    /// Makes a node slow until what this answers is dropped; `None` where it is down.
    pub fn slow(&self, node: usize) -> Option<Slowed> {
        self.nodes[node].process.as_ref().map(|process| Slowed::begin(process.pid()))
    }

    /// Kills all of them, the signals first, then the waiting.
    pub fn kill_all(&mut self) {
        let mut processes: Vec<Guarded> = self.nodes.iter_mut().filter_map(|node| node.process.take()).collect();
        for process in &mut processes {
            process.signal(Signal::KILL);
        }
    }

    /// Stops a node in order.
    pub async fn stop(&mut self, node: usize) {
        if let Some(process) = self.nodes[node].process.take() {
            process.stop(STOPPED_WITHIN).await;
        }
    }

    /// Starts all that are down: the first one, which the others look for, then the rest together.
    pub async fn resume_all(&mut self) -> Result<(), EngineError> {
        let down: Vec<usize> = (0..self.nodes.len()).filter(|&at| self.nodes[at].process.is_none()).collect();
        let (first, others): (Vec<usize>, Vec<usize>) = down.into_iter().partition(|&at| at == 0);
        for at in first {
            self.resume(at).await?;
        }
        for &at in &others {
            self.spawn(at)?;
        }
        for &at in &others {
            self.wait(at).await?;
        }
        Ok(())
    }

    /// Starts a node again on what it has stored, and waits until it answers.
    pub async fn resume(&mut self, node: usize) -> Result<(), EngineError> {
        self.spawn(node)?;
        self.wait(node).await
    }

    fn spawn(&mut self, at: usize) -> Result<(), EngineError> {
        let seed = self.nodes[0].address;
        let node = &mut self.nodes[at];
        let command = configuration::write(&self.launch, &node.folder, node.address, seed)
            .map_err(EngineError::io("writing a node's configuration"))?;
        node.process = Some(Guarded::start(&command, &node.folder.join("output.log"))?);
        Ok(())
    }

    async fn wait(&mut self, at: usize) -> Result<(), EngineError> {
        let node = &mut self.nodes[at];
        let end = Instant::now() + READY_WITHIN;
        loop {
            if TcpStream::connect((node.address, CQL_PORT)).await.is_ok() {
                return Ok(());
            }
            let ended = node.process.as_mut().is_none_or(Guarded::has_ended);
            if ended || Instant::now() >= end {
                let log = node.folder.join("output.log");
                let address = format!("{}:{CQL_PORT}", node.address);
                return Err(EngineError::NotReady { address, end: tail(&log), log });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The last 4 KiB of a file.
pub(crate) fn tail(path: &Path) -> String {
    let read = || {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(4_096)))?;
        let mut bytes = Vec::new();
        file.take(4_096).read_to_end(&mut bytes)?;
        std::io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|error| error.to_string())
}
