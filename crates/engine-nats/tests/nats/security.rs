// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each role may do, with the configuration that the table renders, over TLS with client certificates.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use pli_domain::{EdgeId, OwnerId, Seq, ShardId};
use pli_engine_nats::permissions::{User, authorization};
use pli_engine_nats::{
    ConnectError, Credentials, Layout, NatsEngine, NatsOptions, Role, TlsFiles, log_stream, log_subject,
};
use pli_ports::{Retry, SignalEvent, StoreError, Subject};
use pli_testkit::engines::nats::{NatsServers, NatsSettings};
use tokio::time::timeout;

use crate::support::{SHARD, SOON, append, entry, next, options, servers, text};

/// Keys and certificates of a small installation.
struct Installation {
    dir: tempfile::TempDir,
    servers: NatsServers,
}

fn layout() -> Layout {
    Layout { shards: 16, streams: 1, replicas: 1, stream_bytes_max: 64 << 20, ..Layout::default() }
}

impl Installation {
    async fn start(test: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        certificates(&dir);
        let mut users = Vec::new();
        for role in Role::ALL {
            let user = nkeys::KeyPair::new_user();
            fs::write(dir.path().join(role.name()), user.seed().unwrap()).unwrap();
            users.push(User { nkey: user.public_key(), roles: vec![role] });
        }
        let file = |name: &str| dir.path().join(name).display().to_string();
        let tls = format!(
            "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}\n",
            file("server.pem"),
            file("server.key"),
            file("ca.pem")
        );
        let more = authorization(&users, &layout()) + &tls;
        let servers = servers(test, NatsSettings { more, ..NatsSettings::default() }).await?;
        Some(Self { dir, servers })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn options(&self, role: Role) -> NatsOptions {
        let tls = TlsFiles {
            ca_file: Some(self.file("ca.pem")),
            client: Some((self.file("client.pem"), self.file("client.key"))),
        };
        let addresses = self.servers.addresses();
        NatsOptions {
            servers: addresses.iter().map(|at| format!("tls://{}", at.replace("127.0.0.1", "localhost"))).collect(),
            roles: vec![role],
            credentials: Credentials { nkey_seed_file: Some(self.file(role.name())), tls: Some(tls) },
            layout: layout(),
            ..options(&self.servers)
        }
    }

    async fn connect(&self, role: Role) -> NatsEngine {
        NatsEngine::connect(self.options(role)).await.unwrap()
    }

    /// An edge's credentials without the engine's manners.
    async fn raw_edge(&self) -> async_nats::Client {
        let seed = fs::read_to_string(self.file(Role::Edge.name())).unwrap();
        let connect = async_nats::ConnectOptions::with_nkey(seed)
            .require_tls(true)
            .add_root_certificates(self.file("ca.pem"))
            .add_client_certificate(self.file("client.pem"), self.file("client.key"))
            .custom_inbox_prefix("pli.inbox.edge");
        connect.connect(&self.options(Role::Edge).servers[0]).await.unwrap()
    }
}

/// An authority, and a certificate of each side.
fn certificates(dir: &tempfile::TempDir) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
    let certificate = authority.self_signed(&key).unwrap();
    fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
    let issuer = rcgen::Issuer::new(authority, key);
    for (name, usage) in
        [("server", rcgen::ExtendedKeyUsagePurpose::ServerAuth), ("client", rcgen::ExtendedKeyUsagePurpose::ClientAuth)]
    {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut of = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        of.distinguished_name.push(rcgen::DnType::CommonName, name);
        of.extended_key_usages.push(usage);
        let certificate = of.signed_by(&key, &issuer).unwrap();
        fs::write(dir.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

fn is_refused<T: std::fmt::Debug>(answer: Result<T, StoreError>, what: &str) {
    let error = answer.expect_err(what);
    let text = text(&error).to_lowercase();
    assert!(text.contains("permissions violation") && error.retry == Retry::Never, "{what}: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_appends_and_cannot_read_a_shard_log() {
    let test = "an_edge_appends_and_cannot_read_a_shard_log";
    let Some(at) = Installation::start(test).await else { return };
    at.connect(Role::Operator).await.migrate().await.unwrap();
    let edge = at.connect(Role::Edge).await;
    let log = edge.shard_log();
    let raw = at.raw_edge().await;
    let mut overheard = raw.subscribe("pli.log.>").await.unwrap();
    let mut inboxes = raw.subscribe("pli.inbox.>").await.unwrap();
    let mut owners = raw.subscribe("pli.inbox.delivery.>").await.unwrap();
    let appended = append(&log, entry(SHARD, 0)).await;

    // What the engine would do.
    is_refused(log.bounds(SHARD).await, "an edge asks for bounds");
    is_refused(log.entry_at(SHARD, appended.seq).await, "an edge asks for an entry");
    is_refused(log.reader(SHARD, Seq::ZERO).await.map(|_| ()), "an edge reads");
    is_refused(log.trim(SHARD, appended.seq).await, "an edge trims");
    is_refused(edge.leases().acquire(SHARD, OwnerId::from_bytes([1; 16]), SOON).await, "an edge takes a lease");

    // What somebody with its credentials would try.
    let stream = log_stream(0);
    let subject = log_subject(SHARD);
    let push = r#"{"config":{"deliver_subject":"pli.inbox.edge.x","ack_policy":"none"}}"#;
    for (subject, body) in [
        (format!("$JS.API.STREAM.MSG.GET.{stream}"), r#"{"seq":1}"#),
        (format!("$JS.API.DIRECT.GET.{stream}"), r#"{"seq":1}"#),
        (format!("$JS.API.DIRECT.GET.{stream}.{subject}"), ""),
        (format!("$JS.API.CONSUMER.CREATE.{stream}"), push),
        (format!("$JS.API.CONSUMER.CREATE.{stream}.x.{subject}"), push),
        (format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.x"), push),
        (format!("$JS.API.STREAM.SNAPSHOT.{stream}"), r#"{"deliver_subject":"pli.inbox.edge.x"}"#),
        ("$JS.API.STREAM.CREATE.COPY".into(), r#"{"name":"COPY","subjects":["pli.copy"]}"#),
    ] {
        let request = async_nats::Request::new().payload(Bytes::from(body)).timeout(Some(Duration::from_millis(300)));
        let answer = raw.send_request(subject.clone(), request).await;
        assert!(answer.is_err(), "{subject} answers an edge: {answer:?}");
    }
    let delivery = at.connect(Role::Delivery).await;
    let mut reader = delivery.shard_log().reader(SHARD, Seq::ZERO).await.unwrap();
    assert_eq!(next(reader.as_mut()).await[0].id, appended.id, "delivery reads");
    for overheard in [&mut overheard, &mut inboxes, &mut owners] {
        let heard = timeout(Duration::from_millis(200), overheard.next()).await;
        assert!(!matches!(heard, Ok(Some(_))), "an edge hears {heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_can_do_its_work() {
    let Some(at) = Installation::start("every_role_can_do_its_work").await else { return };
    at.connect(Role::Operator).await.migrate().await.unwrap();
    let (edge, delivery) = (at.connect(Role::Edge).await, at.connect(Role::Delivery).await);
    let conversations = at.connect(Role::Conversations).await;
    let directory = at.connect(Role::Directory).await;
    for engine in [&edge, &delivery, &conversations, &directory] {
        engine.check().await.into_result().unwrap();
    }
    // Edge and owner, both ways.
    let (owner, of_edge) = (Subject::owner(SHARD), Subject::edge(EdgeId::from_bytes([5; 16])));
    let mut requests = delivery.signals().subscribe(&owner).await.unwrap();
    let mut rung = edge.signals().subscribe(&of_edge).await.unwrap();
    let mut all = edge.signals().subscribe(&Subject::edges()).await.unwrap();
    let answering = tokio::spawn(async move {
        while let Some(SignalEvent::Signal(signal)) = requests.next().await {
            signal.respond.unwrap().respond(Bytes::from_static(b"answer")).await;
        }
    });
    assert_eq!(edge.signals().request(&owner, Bytes::new(), SOON).await.unwrap(), "answer");
    assert_eq!(edge.signals().request(&owner, Bytes::new(), SOON).await.unwrap(), "answer");
    delivery.signals().publish(&of_edge, Bytes::from_static(b"ring")).await.unwrap();
    delivery.signals().publish(&Subject::edges(), Bytes::from_static(b"repeat")).await.unwrap();
    for subscription in [&mut rung, &mut all] {
        let event = timeout(SOON, subscription.next()).await.unwrap();
        assert!(matches!(event, Some(SignalEvent::Signal(_))), "{event:?}");
    }
    // The directory says what was removed, and hears that it is done.
    assert_eq!(directory.signals().request(&owner, Bytes::new(), SOON).await.unwrap(), "answer");
    directory.signals().publish(&Subject::edges(), Bytes::from_static(b"removed")).await.unwrap();
    let event = timeout(SOON, all.next()).await.unwrap();
    assert!(matches!(event, Some(SignalEvent::Signal(_))), "{event:?}");
    answering.abort();
    // Logs and leases.
    let first = append(&edge.shard_log(), entry(SHARD, 0)).await;
    let second = append(&conversations.shard_log(), entry(SHARD, 1)).await;
    let log = delivery.shard_log();
    assert_eq!(log.entry_at(SHARD, second.seq).await.unwrap(), Some(second.id));
    log.trim(SHARD, first.seq).await.unwrap();
    assert_eq!(log.bounds(SHARD).await.unwrap().first, second.seq);
    let leases = delivery.leases();
    let lease = leases.acquire(ShardId::new(1), OwnerId::from_bytes([1; 16]), SOON).await.unwrap().unwrap();
    assert!(leases.renew(&lease, SOON).await.unwrap());
    assert_eq!(leases.held().await.unwrap(), [lease]);
    leases.release(&lease).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_refused_without_a_client_certificate_or_with_another_authority() {
    let test = "tls_is_refused_without_a_client_certificate_or_with_another_authority";
    let Some(at) = Installation::start(test).await else { return };
    let mut bare = at.options(Role::Edge);
    bare.credentials.tls.as_mut().unwrap().client = None;
    let error = NatsEngine::connect(bare).await.unwrap_err();
    assert!(text(&error).contains("client certificate"), "{error:?}");
    // The server's own certificate vouches for nothing but itself.
    let mut wary = at.options(Role::Edge);
    wary.credentials.tls.as_mut().unwrap().ca_file = Some(at.file("client.pem"));
    let error = NatsEngine::connect(wary).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
    // A name that the certificate does not have.
    let mut other = at.options(Role::Edge);
    other.servers = at.servers.addresses().iter().map(|address| format!("tls://{address}")).collect();
    let error = NatsEngine::connect(other).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
    at.connect(Role::Edge).await;
}
