// SPDX-License-Identifier: MIT OR Apache-2.0
//! NATS servers on loopback: one, or a cluster of three.

mod ask;

use std::fmt::Write as _;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{env, fs, process as std_process, thread};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::child::Guarded;
use super::ports::free_ports;

pub use ask::ask;

/// Names another binary than the one that `make engine-nats` unpacks.
pub const SERVER_VARIABLE: &str = "PLI_TEST_NATS_SERVER";
/// Servers that are not ready by then do not get ready. Elections after all three were down take up to nine seconds.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// An orderly end takes no longer.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);
/// Starts with other addresses when somebody else took one in between.
const STARTS_MAX: usize = 4;

/// The server's binary, or why there is none.
pub fn binary() -> Result<PathBuf, String> {
    let named = env::var_os(SERVER_VARIABLE).map(PathBuf::from);
    let unpacked = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/engines/nats/nats-server");
    let path = named.unwrap_or_else(|| unpacked.into());
    if path.exists() { Ok(path) } else { Err(format!("no nats-server at {}; run make engine-nats", path.display())) }
}

/// How to go down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// Asked to (SIGTERM).
    Stopped,
    /// Killed (SIGKILL).
    Killed,
}

impl Down {
    const fn signal(self) -> Signal {
        match self {
            Self::Stopped => Signal::TERM,
            Self::Killed => Signal::KILL,
        }
    }
}

/// Waits until a signalled server has ended; an orderly end that takes too long is cut short.
fn end(mut process: Guarded, how: Down) {
    let end = Instant::now() + STOPPED_WITHIN;
    while how == Down::Stopped && Instant::now() < end && !process.has_ended() {
        thread::sleep(Duration::from_millis(5));
    }
}

/// How servers are configured.
#[derive(Debug, Clone)]
pub struct NatsSettings {
    /// 1, or 3 for a cluster.
    pub servers: usize,
    /// Whether JetStream is on.
    pub jetstream: bool,
    /// Whether every write is synced before it is acknowledged.
    pub synced: bool,
    /// Most bytes of JetStream's files.
    pub max_file_store: u64,
    /// More configuration: an `authorization` block, a `tls` block.
    pub more: String,
}

impl Default for NatsSettings {
    fn default() -> Self {
        Self { servers: 1, jetstream: true, synced: true, max_file_store: 1 << 30, more: String::new() }
    }
}

/// Running servers with a folder of their own. They end when this is dropped, also by a panic, and when the process that
/// started them dies.
#[derive(Debug)]
pub struct NatsServers {
    binary: PathBuf,
    dir: PathBuf,
    settings: NatsSettings,
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    name: String,
    client: u16,
    monitor: u16,
    route: u16,
    process: Option<Guarded>,
}

impl NatsServers {
    /// Starts servers with a new folder under `base` and waits until they are ready.
    pub async fn start(binary: &Path, base: &Path, settings: NatsSettings) -> io::Result<Self> {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let dir = base.join(format!("nats-{}-{number}", std_process::id()));
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..STARTS_MAX {
            fs::remove_dir_all(&dir).or_else(not_found)?;
            fs::create_dir_all(&dir)?;
            let nodes = addresses(settings.servers)?;
            let mut servers = Self { binary: binary.into(), dir: dir.clone(), settings: settings.clone(), nodes };
            servers.write_configuration()?;
            match servers.start_all().await {
                Ok(()) => return Ok(servers),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Addresses for clients.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.client)).collect()
    }

    /// Addresses of the monitoring.
    pub fn monitors(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.monitor)).collect()
    }

    /// Names of the servers, in the order of their addresses.
    pub fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// Process ids of the servers that run.
    pub fn process_ids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.process.as_ref()).map(Guarded::id).collect()
    }

    /// Takes one server down and waits until its process has ended.
    pub fn down(&mut self, server: usize, how: Down) {
        if let Some(mut process) = self.nodes[server].process.take() {
            process.signal(how.signal());
            end(process, how);
        }
    }

    /// Takes all down, the signals first, then the waiting.
    pub fn all_down(&mut self, how: Down) {
        let mut processes: Vec<Guarded> = self.nodes.iter_mut().filter_map(|node| node.process.take()).collect();
        for process in &mut processes {
            process.signal(how.signal());
        }
        for process in processes {
            end(process, how);
        }
    }

    /// Starts a server that is down, on its addresses and data.
    pub async fn up(&mut self, server: usize) -> io::Result<()> {
        self.spawn(server)?;
        self.ready(server).await
    }

    /// Starts all that are down.
    pub async fn start_all(&mut self) -> io::Result<()> {
        for server in 0..self.nodes.len() {
            if self.nodes[server].process.is_none() {
                self.spawn(server)?;
            }
        }
        for server in 0..self.nodes.len() {
            self.ready(server).await?;
        }
        Ok(())
    }

    /// What every server has on disk, copied aside. Only while all are down.
    pub fn keep_data(&self) -> io::Result<()> {
        self.must_be_down();
        for node in &self.nodes {
            copy(&self.data(node), &self.dir.join(format!("{}.kept", node.name)))?;
        }
        Ok(())
    }

    /// Puts the copies of [`NatsServers::keep_data`] in place of what is there: every server loses what it was told
    /// since. Only while all are down.
    pub fn go_back_to_kept_data(&self) -> io::Result<()> {
        self.must_be_down();
        for node in &self.nodes {
            copy(&self.dir.join(format!("{}.kept", node.name)), &self.data(node))?;
        }
        Ok(())
    }

    /// Cuts `bytes` off the newest file of messages of a stream, on every server, and the notes that would tell. For
    /// streams with one replica; only while all are down. Answers how many bytes are left.
    pub fn cut_stream(&self, stream: &str, bytes: u64) -> io::Result<u64> {
        self.must_be_down();
        let mut left = 0;
        for node in &self.nodes {
            let folder = self.data(node).join("jetstream/$G/streams").join(stream).join("msgs");
            let mut blocks: Vec<PathBuf> =
                fs::read_dir(&folder)?.map(|file| Ok(file?.path())).collect::<io::Result<_>>()?;
            let index = folder.join("index.db");
            fs::remove_file(index).or_else(not_found)?;
            blocks.retain(|path| path.extension().is_some_and(|extension| extension == "blk"));
            blocks.sort();
            let newest = blocks.last().ok_or(io::ErrorKind::NotFound)?;
            let file = fs::File::options().write(true).open(newest)?;
            left = file.metadata()?.len().saturating_sub(bytes);
            file.set_len(left)?;
        }
        Ok(left)
    }

    fn must_be_down(&self) {
        assert!(self.nodes.iter().all(|node| node.process.is_none()), "a server still runs on these files");
    }

    fn data(&self, node: &Node) -> PathBuf {
        self.dir.join(&node.name)
    }

    fn spawn(&mut self, server: usize) -> io::Result<()> {
        let node = &self.nodes[server];
        let configuration = self.dir.join(format!("{}.conf", node.name));
        let log = self.dir.join(format!("{}.log", node.name));
        let command = [self.binary.display().to_string(), "--config".into(), configuration.display().to_string()];
        self.nodes[server].process = Some(Guarded::start(&command, &log).map_err(io::Error::other)?);
        Ok(())
    }

    async fn ready(&mut self, server: usize) -> io::Result<()> {
        let end = Instant::now() + READY_WITHIN;
        let monitor = self.nodes[server].monitor;
        loop {
            if is_healthy(monitor).await {
                return Ok(());
            }
            let node = &mut self.nodes[server];
            let ended = node.process.as_mut().is_none_or(Guarded::has_ended);
            if ended || Instant::now() > end {
                let log = fs::read_to_string(self.dir.join(format!("{}.log", node.name))).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(5).collect();
                node.process = None;
                return Err(io::Error::other(format!("{} is not ready: {tail:?}", node.name)));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn write_configuration(&self) -> io::Result<()> {
        for node in &self.nodes {
            fs::write(self.dir.join(format!("{}.conf", node.name)), self.configuration(node))?;
        }
        Ok(())
    }

    fn configuration(&self, node: &Node) -> String {
        let Node { name, client, monitor, route, .. } = node;
        let mut text = format!("listen: 127.0.0.1:{client}\nhttp: 127.0.0.1:{monitor}\nserver_name: {name}\n");
        if self.settings.jetstream {
            let store = self.data(node);
            let interval = if self.settings.synced { "always" } else { "\"2m\"" };
            let most = self.settings.max_file_store;
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "jetstream {{ store_dir: \"{}\", sync_interval: {interval}, max_file_store: {most} }}",
                store.display()
            );
        }
        if self.nodes.len() > 1 {
            let routes: Vec<String> =
                self.nodes.iter().map(|node| format!("nats-route://127.0.0.1:{}", node.route)).collect();
            let routes = routes.join(", ");
            let _ = writeln!(text, "cluster {{ name: pli, listen: 127.0.0.1:{route}, routes: [{routes}] }}");
        }
        text.push_str(&self.settings.more);
        text
    }
}

impl Drop for NatsServers {
    fn drop(&mut self) {
        self.all_down(Down::Killed);
        // What a failed test leaves is there to be read.
        if !thread::panicking() {
            fs::remove_dir_all(&self.dir).ok();
        }
    }
}

fn not_found(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Makes `to` what `from` is.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::remove_dir_all(to).or_else(not_found)?;
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        let target = to.join(file.file_name());
        if file.file_type()?.is_dir() {
            copy(&file.path(), &target)?
        } else {
            fs::copy(file.path(), target).map(|_| ())?
        }
    }
    Ok(())
}

/// Names and addresses that are free now.
fn addresses(servers: usize) -> io::Result<Vec<Node>> {
    let ports = free_ports(servers * 3)?;
    let node = |(number, ports): (usize, &[u16])| Node {
        name: format!("n{number}"),
        client: ports[0],
        monitor: ports[1],
        route: ports[2],
        process: None,
    };
    Ok(ports.chunks(3).enumerate().map(node).collect())
}

/// Whether the server says that JetStream and all its streams are as they should be.
async fn is_healthy(monitor: u16) -> bool {
    let asking = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, monitor)).await?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(64 * 1024).read_to_end(&mut answer).await?;
        io::Result::Ok(answer.starts_with(b"HTTP/1.0 200"))
    };
    matches!(timeout(Duration::from_secs(2), asking).await, Ok(Ok(true)))
}
