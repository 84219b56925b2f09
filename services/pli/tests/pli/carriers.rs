// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client connects over, against a real server.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pli_client::{Carrier, Connector, Fingerprint, ServerAddress, Transport, TransportError};
use rustix::process::Signal;
use serde_json::Value;

use crate::process::{PATIENCE, Running, Server, pli, run, text};

/// A server that serves WebSocket alone.
fn without_quic(home: &Path) -> Server {
    let mut command = pli(home, &["dev", "--data", "data", "--port", "0", "--admin-port", "0", "--ready-json"]);
    command.env("PLI_SERVER__QUIC", "false");
    let mut process = Running::start(command);
    let about = process.json(|value| value.get("url").is_some());
    Server { process, about }
}

fn is_online(event: &Value) -> bool {
    event["event"] == "connection" && event["state"] == "online"
}

fn says(text: &str) -> impl Fn(&Value) -> bool {
    move |event| event["event"] == "message" && event["text"] == text
}

/// Open sessions over this carrier, as the server counts them.
fn sessions(server: &Server, carrier: &str) -> f64 {
    let (_, page) = server.admin("/metrics");
    let label = format!("carrier=\"{carrier}\"");
    let lines = page.lines().filter(|line| line.starts_with("pli_edge_sessions{") && line.contains(&label));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Bob follows over this transport, Alice sends over it; answers over what he was connected.
fn talk(home: &Path, server: &Server, transport: &str) -> [f64; 2] {
    let common = ["--data", "data", "--transport", transport];
    let mut bob = Running::start(pli(home, &[&["recv", "bob", "--json", "--follow"][..], &common].concat()));
    bob.json(is_online);
    let counted = ["quic", "ws"].map(|carrier| sessions(server, carrier));
    text(&run(home, &[&["send", "alice", "bob", transport, "--wait", "delivered"][..], &common].concat()));
    bob.json(says(transport));
    // A goodbye: of a client that was killed the server learns by its silence.
    bob.signal(Signal::INT);
    assert_eq!(bob.wait(), Some(0));
    counted
}

#[test]
fn messages_go_over_the_transport_that_is_named() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    assert_eq!(server.about["quic"], server.about["address"], "the same number for TCP and UDP");
    assert_eq!(talk(home.path(), &server, "quic"), [1.0, 0.0]);
    assert_eq!(talk(home.path(), &server, "ws"), [0.0, 1.0]);
}

#[test]
fn a_transport_that_is_none_is_refused_with_those_that_are() {
    let home = tempfile::tempdir().expect("a folder");
    let output = run(home.path(), &["recv", "bob", "--transport", "tcp"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("`auto`, `quic` and `ws`"), "{output:?}");
}

/// Where UDP is not served, and where packets vanish on the way.
#[test]
fn without_quic_a_client_talks_over_websocket_and_says_nothing_of_it() {
    let home = tempfile::tempdir().expect("a folder");
    let server = without_quic(home.path());
    assert_eq!(server.about.get("quic"), None);
    assert_eq!(talk(home.path(), &server, "auto"), [0.0, 1.0]);
    let _swallows = UdpSocket::bind(("127.0.0.1", server.port())).expect("nobody has that UDP port");
    let output = run(home.path(), &["send", "alice", "bob", "again", "--data", "data", "--wait", "stored"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// The server's address, and the certificate that it says it has.
fn place(server: &Server) -> (ServerAddress, Fingerprint) {
    let pin = server.about["fingerprint"].as_str().and_then(|text| text.parse().ok());
    (server.address().parse().expect("an address"), pin.expect("a fingerprint"))
}

#[tokio::test]
async fn quic_is_taken_where_it_is_there_and_what_won_is_remembered() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let (address, pin) = place(&server);
    // However slow this machine is at the moment.
    let connector = Connector::new(Some(pin), Transport::Auto).head_start(PATIENCE);
    for _ in 0..2 {
        let connection = connector.open(&address).await.expect("a connection");
        assert_eq!((connection.carrier(), connection.fingerprint), (Carrier::Quic, pin));
    }
    let swallows = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = swallows.local_addr().expect("bound").port();
    let blocked = Connector::new(Some(pin), Transport::Auto).quic_port(Some(port));
    for _ in 0..2 {
        let connection = blocked.open(&address).await.expect("a connection");
        assert_eq!(connection.carrier(), Carrier::WebSocket);
    }
    swallows.set_nonblocking(true).expect("set");
    let asked = std::iter::from_fn(|| swallows.recv_from(&mut [0; 2_048]).ok()).map(|(_, from)| from);
    let attempts: std::collections::BTreeSet<_> = asked.collect();
    assert_eq!(attempts.len(), 1, "the second time QUIC was not tried");
}

#[tokio::test]
async fn a_wrong_pin_is_refused_over_quic_too() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let (address, _) = place(&server);
    let other = Fingerprint::of(b"another certificate");
    for transport in [Transport::Quic, Transport::Auto] {
        let refused =
            Connector::new(Some(other), transport).open(&address).await.map(|connection| connection.carrier());
        assert!(matches!(refused, Err(TransportError::WrongCertificate { .. })), "{refused:?}");
    }
}

/// A router between a client and a server: it passes datagrams, and shows the server another address of the client when it
/// is told to.
struct Router {
    port: u16,
    moves: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    running: Option<std::thread::JoinHandle<u32>>,
}

impl Router {
    fn start(server: SocketAddr) -> Self {
        let inside = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = inside.local_addr().expect("bound").port();
        let (moves, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (told, ended) = (moves.clone(), stop.clone());
        let running = std::thread::spawn(move || Self::run(&inside, server, &told, &ended));
        Self { port, moves, stop, running: Some(running) }
    }

    /// Answers how many addresses the server was shown.
    fn run(inside: &UdpSocket, server: SocketAddr, moves: &AtomicBool, stop: &AtomicBool) -> u32 {
        let outside = || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
            socket.set_read_timeout(Some(Duration::from_millis(1))).expect("set");
            socket
        };
        let (mut out, mut addresses, mut client) = (outside(), 1, None);
        inside.set_read_timeout(Some(Duration::from_millis(1))).expect("set");
        let mut space = [0; 65_536];
        while !stop.load(Ordering::Relaxed) {
            if moves.swap(false, Ordering::Relaxed) {
                (out, addresses) = (outside(), addresses + 1);
            }
            if let Ok((bytes, from)) = inside.recv_from(&mut space) {
                client = Some(from);
                out.send_to(&space[..bytes], server).expect("sent");
            }
            if let (Ok((bytes, _)), Some(client)) = (out.recv_from(&mut space), client) {
                inside.send_to(&space[..bytes], client).expect("sent");
            }
        }
        addresses
    }

    fn addresses(mut self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.running.take().expect("it runs").join().expect("it ended")
    }
}

#[test]
fn a_session_over_quic_lives_on_when_the_network_changes() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let router = Router::start(server.address().parse().expect("an address"));
    let port = router.port.to_string();
    let over_router = ["--data", "data", "--transport", "quic", "--quic-port", &port];
    text(&run(home.path(), &["recv", "alice", "--data", "data"]));
    let pipe = [&["pipe", "bob", "alice", "--json"][..], &over_router].concat();
    let mut bob = Running::start(pli(home.path(), &pipe));
    bob.json(is_online);
    let online = bob.seen().len();
    for word in ["one", "two", "three"] {
        router.moves.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + PATIENCE;
        while router.moves.load(Ordering::Relaxed) {
            assert!(Instant::now() < deadline, "the router stands still");
            std::thread::sleep(Duration::from_millis(1));
        }
        // What he says shows the server his new address.
        bob.say("I moved");
        bob.json(|event| event["event"] == "accepted");
        text(&run(home.path(), &["send", "alice", "bob", word, "--data", "data", "--wait", "delivered"]));
        bob.json(says(word));
    }
    assert!(
        !bob.seen()[online..].iter().any(|line| line.contains("\"connection\"")),
        "he never noticed: {:?}",
        bob.seen()
    );
    assert_eq!(router.addresses(), 4);
}
