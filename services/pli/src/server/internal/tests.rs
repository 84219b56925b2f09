// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls between processes, over real sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use pli_api::Caller;
use pli_api::directory::directory_client::DirectoryClient;
use pli_api::directory::{GetDeviceListsRequest, LookupRequest};
use pli_domain::{AccountId, DeviceAddress, DeviceId, ShardMap};
use pli_ports::SystemClock;
use pli_runtime::Telemetry;
use pli_testkit::memory::MemoryWorld;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};

use super::*;
use crate::server::role::Role;

/// An authority that signs certificates of processes.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn material(&self, role: Role) -> TlsMaterial {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([role.dns_name()]).expect("a name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).expect("signed").pem();
        TlsMaterial { ca: self.pem.clone().into(), certificate: certificate.into(), key: key.serialize_pem().into() }
    }
}

/// A directory on a port of its own.
struct Place {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Failure>>,
}

impl Place {
    async fn open(material: &TlsMaterial, port: u16) -> Self {
        let config = InternalConfig { host: Ipv4Addr::LOCALHOST.into(), port, ..InternalConfig::default() };
        let internal = Internal::bind(&config, material).await.expect("bound");
        let world = MemoryWorld::new(pli_testkit::memory::WorldOptions::default());
        let meter = Telemetry::new("test").expect("telemetry").meter("directory");
        let ports = pli_directory::Ports {
            accounts: Arc::new(world.accounts()),
            signals: Arc::new(world.signals()),
            clock: Arc::new(SystemClock),
        };
        let shards = ShardMap::new(4, [0; 16]).expect("a power of two");
        let directory = Directory::new(ports, shards, Default::default(), &meter);
        let (address, stop) = (internal.address(), CancellationToken::new());
        let served = Served {
            directory: Some(directory),
            conversations: None,
            links: None,
            media: None,
            tracer: Tracer::default(),
        };
        let task = tokio::spawn(internal.run(served, stop.clone()));
        Self { address, stop, task }
    }

    async fn close(self) {
        self.stop.cancel();
        self.task.await.expect("no panic").map_err(|failure| failure.error).expect("ended in order");
    }
}

fn peers(addresses: &[SocketAddr], material: &TlsMaterial) -> pli_api::Channel {
    peers_speaking(InternalConfig::default().protocol_version, addresses, material)
}

fn peers_speaking(protocol_version: u16, addresses: &[SocketAddr], material: &TlsMaterial) -> pli_api::Channel {
    let directory = addresses.iter().map(ToString::to_string).collect();
    let config = InternalConfig { directory, protocol_version, ..InternalConfig::default() };
    Peers::new(Role::Directory, &config, material).map_err(|failure| failure.error).expect("made").channel()
}

async fn look_up(channel: &pli_api::Channel) -> Result<(), Status> {
    let mut request = Request::new(LookupRequest { handle: "nobody".into() });
    let device = DeviceAddress { account: AccountId::from_bytes([1; 16]), device: DeviceId::from_bytes([2; 16]) };
    Caller { device: Some(device), address: None }.put(request.metadata_mut());
    DirectoryClient::new(channel.clone()).lookup(request).await.map(|_| ())
}

async fn read_lists(channel: &pli_api::Channel) -> Result<(), Status> {
    let request = GetDeviceListsRequest::default();
    DirectoryClient::new(channel.clone()).get_device_lists(request).await.map(|_| ())
}

#[tokio::test]
async fn only_an_edge_may_say_who_a_user_is() {
    let authority = Authority::new();
    let place = Place::open(&authority.material(Role::Directory), 0).await;
    let edge = peers(&[place.address], &authority.material(Role::Edge));
    let answered = look_up(&edge).await.expect_err("nobody has that handle");
    assert_eq!(answered.code(), Code::NotFound, "{answered:?}");
    let conversations = peers(&[place.address], &authority.material(Role::Conversations));
    let refused = look_up(&conversations).await.expect_err("not an edge");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    assert!(refused.message().contains("edge.pli.internal"));
    read_lists(&conversations).await.expect("a request without a caller is served");
    place.close().await;
}

#[tokio::test]
async fn who_has_no_certificate_of_the_authority_is_not_served() {
    let authority = Authority::new();
    let place = Place::open(&authority.material(Role::Directory), 0).await;
    let mut stranger = Authority::new().material(Role::Edge);
    stranger.ca = authority.pem.clone().into();
    let refused = read_lists(&peers(&[place.address], &stranger)).await.expect_err("a stranger");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    // And a process does not talk to a server that has another role.
    let wrong = Place::open(&authority.material(Role::Conversations), 0).await;
    let refused = read_lists(&peers(&[wrong.address], &authority.material(Role::Edge))).await;
    assert_eq!(refused.expect_err("no directory").code(), Code::Unavailable);
    place.close().await;
    wrong.close().await;
}

#[tokio::test]
async fn a_process_that_is_gone_is_passed_over_and_taken_again_when_it_is_back() {
    let authority = Authority::new();
    let (own, edge) = (authority.material(Role::Directory), authority.material(Role::Edge));
    let (first, second) = (Place::open(&own, 0).await, Place::open(&own, 0).await);
    let channel = peers(&[first.address, second.address], &edge);
    for _ in 0..4 {
        read_lists(&channel).await.expect("both serve");
    }
    let port = second.address.port();
    second.close().await;
    for _ in 0..6 {
        read_lists(&channel).await.expect("the other one serves");
    }
    first.close().await;
    let nobody = read_lists(&channel).await.expect_err("nobody is there");
    assert_eq!(nobody.code(), Code::Unavailable);
    let back = Place::open(&own, port).await;
    read_lists(&channel).await.expect("one is back");
    read_lists(&channel).await.expect("one is back");
    back.close().await;
}

#[tokio::test]
async fn the_version_before_is_served_and_one_that_is_not_understood_is_refused_with_the_fix() {
    let authority = Authority::new();
    let (place, edge) = (Place::open(&authority.material(Role::Directory), 0).await, authority.material(Role::Edge));
    for version in [1, 2] {
        read_lists(&peers_speaking(version, &[place.address], &edge)).await.expect("understood");
    }
    let channel = peers_speaking(1, &[place.address], &edge);
    let mut request = Request::new(GetDeviceListsRequest::default());
    request.metadata_mut().insert(pli_domain::protocol::RoleProtocol::HEADER, "3".parse().expect("a number"));
    let refused = DirectoryClient::new(channel).get_device_lists(request).await.expect_err("from the future");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("version 3") && refused.message().contains("update all processes"));
    place.close().await;
}

#[tokio::test]
async fn health_is_told_in_the_usual_protocol() {
    let authority = Authority::new();
    let place = Place::open(&authority.material(Role::Directory), 0).await;
    let channel = peers(&[place.address], &authority.material(Role::Edge));
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let ask = |service: &str| tonic_health::pb::HealthCheckRequest { service: service.into() };
    let said = health.check(ask("pli.directory.v1.Directory")).await.expect("known").into_inner();
    assert_eq!(said.status, tonic_health::pb::health_check_response::ServingStatus::Serving as i32);
    let unknown = health.check(ask("pli.conversations.v1.Conversations")).await.expect_err("not here");
    assert_eq!(unknown.code(), Code::NotFound);
    place.close().await;
}
