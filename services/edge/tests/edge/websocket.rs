// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions over the real listener: TLS, upgrade, bindings, resumption, the pages beside it.

use std::sync::Arc;

use pli_api::ErrorCode;
use pli_api::edge::{Binding, ClientHello, client_frame, notice, server_frame::Frame};
use pli_edge::Config;
use pli_ports::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, body};
use crate::rig::{Rig, device, key};

fn clock(rig: &Rig) -> Arc<dyn Clock> {
    rig.clock.clone()
}

#[tokio::test]
async fn two_people_talk_over_tls() {
    let rig = Rig::new(Config::default()).await;
    let (address, trust) = rig.listen().await;
    let mut alice = Client::over_ws(address, &trust, 1, clock(&rig)).await.log_in(&trust).await;
    let mut bob = Client::over_ws(address, &trust, 2, clock(&rig)).await.log_in(&trust).await;
    for (from, to) in [(&mut alice, &mut bob)] {
        let large = vec![7; 64 * 1024];
        let sent = from.message(1, &large);
        from.send_one(sent).await.unwrap();
        let delivered = to.delivery().await;
        assert_eq!(body(&delivered), large);
        to.ack(delivered.position).await;
    }
    rig.until("the ack", |owners| owners.acks.len() == 1).await;
    rig.owners.settle().await;
    assert_eq!(alice.settled().await.len(), 1);
}

#[tokio::test]
async fn every_binding_that_is_allowed_authenticates() {
    let config = Config { origins: vec!["https://app.example".into()], ..Config::default() };
    let rig = Rig::new(config).await;
    let (address, trust) = rig.listen().await;
    for binding in [Binding::TlsExporter, Binding::ServerCertificate, Binding::Origin] {
        let origin = (binding == Binding::Origin).then_some("https://app.example");
        let mut client = Client::over_ws_from(address, &trust, 1, clock(&rig), origin).await;
        let hello = client.hello(&trust, binding, 0).await;
        client.say(client_frame::Frame::Hello(hello)).await;
        let ready = client.ready().await;
        assert_eq!(ready.session.len(), 16, "{binding:?}");
    }
}

#[tokio::test]
async fn a_position_of_another_history_is_not_believed() {
    let rig = Rig::new(Config::default()).await;
    let (address, trust) = rig.listen().await;
    for (history, committed, believed) in [(vec![], 0, true), (vec![1; 16], 0, false), (vec![1; 16], 1 << 50, false)] {
        let mut client = Client::over_ws(address, &trust, 1, clock(&rig)).await;
        let mut hello = client.hello(&trust, Binding::TlsExporter, committed).await;
        hello.history = history.into();
        client.say(client_frame::Frame::Hello(hello)).await;
        let ready = client.ready().await;
        assert_eq!(ready.position_ignored, !believed);
        // It is the owner's word alone that counts then, and this server was never restored.
        assert!(ready.from == 0 && ready.history.is_empty(), "{ready:?}");
    }
}

#[tokio::test]
async fn tls_sessions_resume_and_the_exporter_is_of_the_new_connection() {
    let rig = Rig::new(Config::default()).await;
    let (address, trust) = rig.listen().await;
    let mut exporters = Vec::new();
    for n in 0..2 {
        let client = Client::over_ws(address, &trust, 1, clock(&rig)).await.log_in(&trust).await;
        let crate::client::Link::Ws(ws) = &client.link else { unreachable!() };
        let kind = ws.get_ref().get_ref().1.handshake_kind().unwrap();
        assert_eq!(kind == rustls::HandshakeKind::Resumed, n == 1, "{kind:?}");
        exporters.push(client.exporter());
    }
    assert_ne!(exporters[0], exporters[1]);
}

#[tokio::test]
async fn an_anonymous_session_registers_and_reads_server_info_and_nothing_else() {
    let rig = Rig::new(Config::default()).await;
    let (address, trust) = rig.listen().await;
    let mut client = Client::over_ws(address, &trust, 1, clock(&rig)).await;
    client.next().await;
    client.say(client_frame::Frame::Hello(ClientHello { version: 1, ..ClientHello::default() })).await;
    client.ready().await;
    let info = client.call(1, "/pli.edge.v1.Edge/Info", Vec::new()).await.unwrap();
    let info: pli_api::edge::ServerInfo = prost::Message::decode(info).unwrap();
    assert_eq!(info.protocol_versions, [1]);
    assert_eq!(info.registration, "invite", "what the directory decides");
    assert_eq!(info.cipher_suites, pli_domain::limits::CIPHER_SUITES.map(u32::from), "what groups may use");
    let register = pli_api::directory::RegisterRequest { handle: "alice".into(), ..Default::default() };
    let register = prost::Message::encode_to_vec(&register);
    assert!(client.call(2, "/pli.directory.v1.Directory/Register", register).await.is_ok());
    let caller = *rig.directory.callers.lock().unwrap().last().unwrap();
    assert_eq!((caller.device, caller.address.map(|a| a.is_loopback())), (None, Some(true)));
    let lookup = client.call(3, "/pli.directory.v1.Directory/Lookup", Vec::new()).await;
    assert_eq!(lookup, Err(ErrorCode::Anonymous));
    client.ack(1).await;
    assert_eq!(client.closed().await.unwrap().reason.unwrap().code(), ErrorCode::Anonymous);
}

#[tokio::test]
async fn a_device_with_few_key_packages_is_told() {
    let rig = Rig::new(Config::default()).await;
    rig.directory.keys.lock().unwrap().insert(device(1), (key(1), 3));
    let (address, trust) = rig.listen().await;
    let mut alice = Client::over_ws(address, &trust, 1, clock(&rig)).await.log_in(&trust).await;
    let Frame::Notice(notice) = alice.wait(|frame| matches!(frame, Frame::Notice(_))).await else { unreachable!() };
    let Some(notice::Notice::KeyPackagesLow(low)) = notice.notice else { panic!("another notice") };
    assert_eq!(low.left, 3);
}

#[tokio::test]
async fn pages_beside_the_session_are_few() {
    let rig = Rig::new(Config::default()).await;
    let (address, trust) = rig.listen().await;
    let get = async |path: &str| {
        let mut tls = trust.tls(address).await;
        tls.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        // The server ends the connection after one answer.
        let _ = tls.read_to_string(&mut text).await;
        text
    };
    let info = get("/.well-known/pli").await;
    assert!(info.starts_with("HTTP/1.1 200"), "{info}");
    let json: serde_json::Value = serde_json::from_str(info.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(json["limits"]["envelope_bytes_max"], 65_536);
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/metrics").await.starts_with("HTTP/1.1 404"));
    assert!(get("/v1/session").await.starts_with("HTTP/1.1 426"));
    rig.stop.cancel();
}

#[tokio::test]
async fn a_drain_says_so_over_tls() {
    let rig = Rig::new(Config::default()).await;
    let (address, trust) = rig.listen().await;
    let mut alice = Client::over_ws(address, &trust, 1, clock(&rig)).await.log_in(&trust).await;
    rig.stop.cancel();
    alice.wait(|frame| matches!(frame, Frame::GoAway(_))).await;
    assert_eq!(alice.closed().await.unwrap().reason.unwrap().code(), ErrorCode::Draining);
    rig.running.await.unwrap();
}
