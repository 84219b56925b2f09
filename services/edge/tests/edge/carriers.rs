// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions over the real listeners: the same over each carrier, then what one of them alone has.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pli_api::ErrorCode;
use pli_api::edge::{Binding, ClientHello, client_frame, notice, server_frame::Frame};
use pli_edge::{CarrierName, Config, SessionConfig};
use pli_ports::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::client::{Client, Link, Quic, body};
use crate::rig::{Door, Rig, device, key};

const BOTH: [CarrierName; 2] = [CarrierName::WebSocket, CarrierName::Quic];

fn clock(rig: &Rig) -> Arc<dyn Clock> {
    rig.clock.clone()
}

#[tokio::test]
async fn two_people_talk_over_each_carrier_and_across() {
    let across = [(BOTH[0], BOTH[1]), (BOTH[1], BOTH[0])];
    for (of_alice, of_bob) in BOTH.map(|both| (both, both)).into_iter().chain(across) {
        let rig = Rig::new(Config::default()).await;
        let door = rig.listen().await;
        let mut alice = Client::over(of_alice, &door, 1, clock(&rig)).await.log_in(&door.trust).await;
        let mut bob = Client::over(of_bob, &door, 2, clock(&rig)).await.log_in(&door.trust).await;
        let large = vec![7; 64 * 1024];
        let sent = alice.message(1, &large);
        alice.send_one(sent).await.unwrap();
        let delivered = bob.delivery().await;
        assert_eq!(body(&delivered), large);
        bob.ack(delivered.position).await;
        rig.until("the ack", |owners| owners.acks.len() == 1).await;
        rig.owners.settle().await;
        assert_eq!(alice.settled().await.len(), 1);
    }
}

#[tokio::test]
async fn every_binding_that_is_allowed_authenticates() {
    let config = Config { origins: vec!["https://app.example".into()], ..Config::default() };
    let rig = Rig::new(config).await;
    let door = rig.listen().await;
    let each = BOTH.map(|carrier| [Binding::TlsExporter, Binding::ServerCertificate].map(|binding| (carrier, binding)));
    for (carrier, binding) in each.concat().into_iter().chain([(CarrierName::WebSocket, Binding::Origin)]) {
        let mut client = match binding {
            Binding::Origin => Client::over_ws_from(&door, 1, clock(&rig), Some("https://app.example")).await,
            _ => Client::over(carrier, &door, 1, clock(&rig)).await,
        };
        let hello = client.hello(&door.trust, binding, 0).await;
        client.say(client_frame::Frame::Hello(hello)).await;
        let ready = client.ready().await;
        assert_eq!(ready.session.len(), 16, "{carrier:?} {binding:?}");
    }
}

#[tokio::test]
async fn an_exporter_is_of_one_connection() {
    let rig = Rig::new(Config::default()).await;
    let door = rig.listen().await;
    for carrier in BOTH {
        let first = Client::over(carrier, &door, 1, clock(&rig)).await;
        let mut second = Client::over(carrier, &door, 1, clock(&rig)).await;
        assert_ne!(first.exporter(), second.exporter(), "{carrier:?}");
        second = second.log_in(&door.trust).await;
        drop((first, second));
    }
}

#[tokio::test]
async fn a_position_of_another_history_is_not_believed() {
    let rig = Rig::new(Config::default()).await;
    let door = rig.listen().await;
    for (history, committed, believed) in [(vec![], 0, true), (vec![1; 16], 0, false), (vec![1; 16], 1 << 50, false)] {
        let mut client = Client::over(CarrierName::WebSocket, &door, 1, clock(&rig)).await;
        let mut hello = client.hello(&door.trust, Binding::TlsExporter, committed).await;
        hello.history = history.into();
        client.say(client_frame::Frame::Hello(hello)).await;
        let ready = client.ready().await;
        assert_eq!(ready.position_ignored, !believed);
        // It is the owner's word alone that counts then, and this server was never restored.
        assert!(ready.from == 0 && ready.history.is_empty(), "{ready:?}");
    }
}

#[tokio::test]
async fn an_anonymous_session_registers_reads_server_info_and_is_linked_and_nothing_else() {
    for carrier in BOTH {
        let rig = Rig::new(Config::default()).await;
        let door = rig.listen().await;
        let mut client = Client::over(carrier, &door, 1, clock(&rig)).await;
        client.next().await;
        client.say(client_frame::Frame::Hello(ClientHello { version: 1, ..ClientHello::default() })).await;
        client.ready().await;
        let info = client.call(1, "/pli.edge.v1.Edge/Info", Vec::new()).await.unwrap();
        let info: pli_api::edge::ServerInfo = prost::Message::decode(info).unwrap();
        assert_eq!(info.protocol_versions, [1]);
        assert_eq!(info.registration, "invite", "what the directory decides");
        assert_eq!(info.cipher_suites, pli_domain::limits::CIPHER_SUITES.map(u32::from), "what groups may use");
        assert_eq!(info.quic_port, u32::from(door.quic.port()));
        let register = pli_api::directory::RegisterRequest { handle: "alice".into(), ..Default::default() };
        let register = prost::Message::encode_to_vec(&register);
        assert!(client.call(2, "/pli.directory.v1.Directory/Register", register).await.is_ok());
        let caller = *rig.directory.callers.lock().unwrap().last().unwrap();
        assert_eq!((caller.device, caller.address.map(|a| a.is_loopback())), (None, Some(true)));
        let lookup = client.call(3, "/pli.directory.v1.Directory/Lookup", Vec::new()).await;
        assert_eq!(lookup, Err(ErrorCode::Anonymous));
        for (id, method) in (4..).zip(["OpenRendezvous", "PutBlob", "WaitBlob"]) {
            client.call(id, &format!("/pli.links.v1.Links/{method}"), Vec::new()).await.unwrap();
            let caller = *rig.links.callers.lock().unwrap().last().unwrap();
            assert_eq!((caller.device, caller.address.map(|a| a.is_loopback())), (None, Some(true)), "{method}");
        }
        let join = client.call(7, "/pli.links.v1.Links/JoinRendezvous", Vec::new()).await;
        assert_eq!(join, Err(ErrorCode::Anonymous));
        assert_eq!(rig.links.callers.lock().unwrap().len(), 3, "the edge refuses by itself");
        client.ack(1).await;
        assert_eq!(client.closed().await.unwrap().reason.unwrap().code(), ErrorCode::Anonymous);
    }
}

#[tokio::test]
async fn a_device_with_few_key_packages_is_told() {
    let rig = Rig::new(Config::default()).await;
    rig.directory.keys.lock().unwrap().insert(device(1), (key(1), 3));
    let door = rig.listen().await;
    let mut alice = Client::over(CarrierName::WebSocket, &door, 1, clock(&rig)).await.log_in(&door.trust).await;
    let Frame::Notice(notice) = alice.wait(|frame| matches!(frame, Frame::Notice(_))).await else { unreachable!() };
    let Some(notice::Notice::KeyPackagesLow(low)) = notice.notice else { panic!("another notice") };
    assert_eq!(low.left, 3);
}

#[tokio::test]
async fn a_drain_says_so_over_each_carrier() {
    for carrier in BOTH {
        let rig = Rig::new(Config::default()).await;
        let door = rig.listen().await;
        let mut alice = Client::over(carrier, &door, 1, clock(&rig)).await.log_in(&door.trust).await;
        rig.stop.cancel();
        alice.wait(|frame| matches!(frame, Frame::GoAway(_))).await;
        assert_eq!(alice.closed().await.unwrap().reason.unwrap().code(), ErrorCode::Draining, "{carrier:?}");
        rig.running.await.unwrap();
    }
}

/// They are told so at once, while sessions of before finish what is open.
#[tokio::test]
async fn who_comes_over_quic_while_the_edge_goes_down_is_refused() {
    let rig = Rig::new(Config { drain_session_ms: 60_000, ..Config::default() }).await;
    let door = rig.listen().await;
    let mut alice = Client::over(CarrierName::WebSocket, &door, 1, clock(&rig)).await.log_in(&door.trust).await;
    let mut bob = Client::over(CarrierName::Quic, &door, 2, clock(&rig)).await.log_in(&door.trust).await;
    let sent = alice.message(1, b"not acknowledged yet");
    alice.send_one(sent).await.unwrap();
    let delivered = bob.delivery().await;
    rig.stop.cancel();
    bob.wait(|frame| matches!(frame, Frame::GoAway(_))).await;
    assert_eq!(refused(&door).await, quinn::TransportErrorCode::CONNECTION_REFUSED);
    bob.ack(delivered.position).await;
    assert_eq!(bob.closed().await.unwrap().reason.unwrap().code(), ErrorCode::Draining);
    rig.running.await.unwrap();
}

/// How a connection is refused.
async fn refused(door: &Door) -> quinn::TransportErrorCode {
    match Quic::connect(door.quic, door.trust.quic.clone()).await.err() {
        Some(quinn::ConnectionError::ConnectionClosed(closed)) => closed.error_code,
        other => panic!("not refused: {other:?}"),
    }
}

/// Both count as one, and a connection that ended makes room.
#[tokio::test]
async fn connections_are_bounded_over_all_carriers() {
    let limits = pli_edge::LimitsConfig { edge_connections_max: 2, ..Default::default() };
    let rig = Rig::new(Config { limits, ..Config::default() }).await;
    let door = rig.listen().await;
    let over_ws = Client::over(CarrierName::WebSocket, &door, 1, clock(&rig)).await.log_in(&door.trust).await;
    let _over_quic = Client::over(CarrierName::Quic, &door, 2, clock(&rig)).await.log_in(&door.trust).await;
    assert_eq!(refused(&door).await, quinn::TransportErrorCode::CONNECTION_REFUSED);
    drop(over_ws);
    let freed = async { while Quic::connect(door.quic, door.trust.quic.clone()).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), freed).await.expect("room again");
}

#[tokio::test]
async fn a_session_over_quic_lives_on_when_the_client_has_another_address() {
    let rig = Rig::new(Config::default()).await;
    let door = rig.listen().await;
    let mut alice = Client::over(CarrierName::Quic, &door, 1, clock(&rig)).await.log_in(&door.trust).await;
    let mut bob = Client::over(CarrierName::WebSocket, &door, 2, clock(&rig)).await.log_in(&door.trust).await;
    for n in 1..=3 {
        let Link::Quic(quic) = &alice.link else { unreachable!() };
        let before = quic.endpoint.local_addr().unwrap();
        // Another address of this machine each time, and another port.
        let socket = std::net::UdpSocket::bind(SocketAddr::from(([127, 0, 0, 10 + n], 0))).unwrap();
        quic.endpoint.rebind(socket).unwrap();
        assert_ne!(quic.endpoint.local_addr().unwrap().ip(), before.ip());
        let sent = alice.message(n, b"from elsewhere");
        alice.send_one(sent).await.unwrap();
        assert_eq!(body(&bob.delivery().await), b"from elsewhere".as_slice());
        let mut answer = bob.message(n, b"to there");
        answer.send_id = vec![0xB0 + n; 16].into();
        bob.send_one(answer).await.unwrap();
        assert_eq!(body(&alice.delivery().await), b"to there".as_slice());
    }
}

/// Nobody says goodbye for it; the one in its place has the same certificate, and with it the same keys for resets.
#[tokio::test]
async fn a_client_of_an_edge_that_was_killed_is_told_by_the_next_one() {
    let (tell, told) = tokio::sync::oneshot::channel();
    let (kill, killed) = tokio::sync::oneshot::channel::<()>();
    let first = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::new(Config::default()).await;
            assert!(tell.send(rig.listen().await).is_ok());
            killed.await.unwrap();
        });
    });
    let (rig, door) = (Rig::new(Config::default()).await, told.await.unwrap());
    let mut alice = Client::over(CarrierName::Quic, &door, 1, clock(&rig)).await.log_in(&door.trust).await;
    kill.send(()).unwrap();
    first.join().unwrap();
    let door = rig.listen_as(door).await;
    alice.ack(0).await;
    let Link::Quic(quic) = &alice.link else { unreachable!() };
    assert_eq!(quic.connection.closed().await, quinn::ConnectionError::Reset);
    Client::over(CarrierName::Quic, &door, 1, clock(&rig)).await.log_in(&door.trust).await;
}

#[tokio::test]
async fn tls_sessions_resume_and_the_exporter_is_of_the_new_connection() {
    let rig = Rig::new(Config::default()).await;
    let door = rig.listen().await;
    let mut exporters = Vec::new();
    for n in 0..2 {
        let client = Client::over(CarrierName::WebSocket, &door, 1, clock(&rig)).await.log_in(&door.trust).await;
        let Link::Ws(ws) = &client.link else { unreachable!() };
        let kind = ws.get_ref().get_ref().1.handshake_kind().unwrap();
        assert_eq!(kind == rustls::HandshakeKind::Resumed, n == 1, "{kind:?}");
        exporters.push(client.exporter());
    }
    assert_ne!(exporters[0], exporters[1]);
}

/// What the public port answers, head and body.
async fn page(door: &Door, method: &str, path: &str) -> String {
    let mut tls = door.trust.tls(door.ws).await;
    let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\norigin: https://other.example\r\n\r\n");
    tls.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    // The server ends the connection after one answer.
    let _ = tls.read_to_string(&mut text).await;
    text
}

/// Server info is public: `edge.origins`, which lists nobody here, is about sessions alone.
#[tokio::test]
async fn a_web_page_of_any_origin_may_read_server_info_and_nothing_else() {
    let rig = Rig::new(Config::default()).await;
    let door = rig.listen().await;
    let shared = "\r\naccess-control-allow-origin: *\r\n";
    for method in ["GET", "HEAD"] {
        let info = page(&door, method, "/.well-known/pli").await;
        assert!(info.starts_with("HTTP/1.1 200") && info.contains(shared), "{method}: {info}");
        assert_eq!(info.ends_with("\r\n\r\n"), method == "HEAD", "{info}");
    }
    let asked = page(&door, "OPTIONS", "/.well-known/pli").await;
    assert!(asked.starts_with("HTTP/1.1 204") && asked.contains(shared), "{asked}");
    assert!(asked.contains("\r\naccess-control-allow-methods: GET, HEAD\r\n"), "{asked}");
    assert!(asked.contains("\r\naccess-control-allow-headers: *\r\n"), "{asked}");
    assert!(asked.contains("\r\naccess-control-max-age: 86400\r\n"), "{asked}");
    for (method, path, status) in
        [("POST", "/.well-known/pli", "404"), ("OPTIONS", "/v1/session", "404"), ("GET", "/healthz", "200")]
    {
        let text = page(&door, method, path).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{text}");
        assert!(!text.contains("access-control"), "{text}");
    }
    rig.stop.cancel();
}

#[tokio::test]
async fn pages_beside_the_session_are_few() {
    let rig = Rig::new(Config::default()).await;
    let door = rig.listen().await;
    let get = async |path: &str| page(&door, "GET", path).await;
    let info = get("/.well-known/pli").await;
    assert!(info.starts_with("HTTP/1.1 200"), "{info}");
    let json: serde_json::Value = serde_json::from_str(info.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(json["limits"]["envelope_bytes_max"], 65_536);
    assert_eq!(json["quic_port"], door.quic.port());
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/metrics").await.starts_with("HTTP/1.1 404"));
    assert!(get("/v1/session").await.starts_with("HTTP/1.1 426"));
    rig.stop.cancel();
}

/// Passes what a client sends on to `edge` in small pieces, and what comes back at once. Answers where it listens.
async fn slow_way(edge: SocketAddr) -> SocketAddr {
    const PIECE: usize = 500;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let edge = tokio::net::TcpStream::connect(edge).await.unwrap();
        edge.set_nodelay(true).unwrap();
        let ((mut from_client, mut to_client), (mut from_edge, mut to_edge)) = (client.into_split(), edge.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut from_edge, &mut to_client).await });
        let mut piece = [0; PIECE];
        while let Ok(read @ 1..) = from_client.read(&mut piece).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
            to_edge.write_all(&piece[..read]).await.unwrap();
        }
    });
    address
}

/// A record of TLS is up to 16 KiB, and nothing of it is seen before it is whole.
#[tokio::test]
async fn a_websocket_over_a_slow_link_may_take_longer_for_a_record_than_a_frame_may_pause() {
    let session = SessionConfig { frame_ms: 2_000, ..SessionConfig::default() };
    let rig = Rig::new(Config { session, ..Config::default() }).await;
    let mut door = rig.listen().await;
    door.ws = slow_way(door.ws).await;
    let mut alice = Client::over(CarrierName::WebSocket, &door, 1, clock(&rig)).await.log_in(&door.trust).await;
    let sent = alice.message(1, &[7; 50_000]);
    alice.send_one(sent).await.unwrap();
}

/// Passes datagrams on to `edge` and back; from when `slow` is set, full ones at 3 KB/s, and two early ones of them never.
/// Answers where it listens.
async fn lossy_way(edge: SocketAddr, slow: Arc<AtomicBool>) -> SocketAddr {
    const FULL: usize = 1_000;
    let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    far.connect(edge).await.unwrap();
    let address = near.local_addr().unwrap();
    let (queue, mut queued) = mpsc::unbounded_channel::<Vec<u8>>();
    let onwards = far.clone();
    tokio::spawn(async move {
        while let Some(datagram) = queued.recv().await {
            tokio::time::sleep(Duration::from_millis(400)).await;
            onwards.send(&datagram).await.unwrap();
        }
    });
    tokio::spawn(async move {
        let (mut out, mut back, mut client, mut full) = ([0; 2_048], [0; 2_048], None, 0);
        loop {
            tokio::select! {
                Ok((read, from)) = near.recv_from(&mut out) => {
                    client = Some(from);
                    if read < FULL || !slow.load(Ordering::Relaxed) {
                        far.send(&out[..read]).await.unwrap();
                        continue;
                    }
                    full += 1;
                    if !(3..=4).contains(&full) {
                        queue.send(out[..read].to_vec()).unwrap();
                    }
                }
                Ok(read) = far.recv(&mut back) => {
                    near.send_to(&back[..read], client.unwrap()).await.unwrap();
                }
            }
        }
    });
    address
}

/// What follows a lost packet arrives and cannot be read, for longer than a frame may pause.
#[tokio::test]
async fn a_frame_over_quic_goes_on_while_a_lost_packet_of_it_is_sent_again() {
    let session = SessionConfig { frame_ms: 2_000, ..SessionConfig::default() };
    let rig = Rig::new(Config { session, ..Config::default() }).await;
    let mut door = rig.listen().await;
    let slow = Arc::new(AtomicBool::new(false));
    door.quic = lossy_way(door.quic, slow.clone()).await;
    let mut alice = Client::over(CarrierName::Quic, &door, 1, clock(&rig)).await.log_in(&door.trust).await;
    slow.store(true, Ordering::Relaxed);
    let sent = alice.message(1, &[7; 24_000]);
    alice.send_one(sent).await.unwrap();
}
