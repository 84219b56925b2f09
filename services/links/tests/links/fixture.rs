// SPDX-License-Identifier: MIT OR Apache-2.0
//! A links service in this process, and the two sides of a rendezvous.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use pli_api::common::Error;
use pli_api::links::links_client::LinksClient;
use pli_api::links::links_server::LinksServer;
use pli_api::links::{JoinRendezvousRequest, OpenRendezvousRequest, PutBlobRequest, Side, WaitBlobRequest};
use pli_api::{Caller, Channel, ErrorCode, error_of_status, in_process};
use pli_domain::{AccountId, DeviceAddress, DeviceId};
use pli_links::{Config, LinksService};
use pli_testkit::memory::{MemoryWorld, WorldOptions};
use pli_testkit::time::{RuntimeClock, START};
use sha2::{Digest, Sha256};
use tonic::{Request, Response, Status};

pub type Client = LinksClient<Channel>;

/// Services over one store, as many as are asked for.
pub struct Rig {
    pub world: MemoryWorld,
    pub clock: Arc<RuntimeClock>,
    config: Config,
}

impl Rig {
    pub fn new(config: Config) -> Self {
        Self { world: MemoryWorld::new(WorldOptions::default()), clock: Arc::new(RuntimeClock::new(START)), config }
    }

    pub fn service(&self) -> LinksService {
        let meter = opentelemetry::global::meter("test");
        LinksService::new(Arc::new(self.world.links()), self.clock.clone(), self.config.clone(), &meter)
    }

    /// A replica of its own.
    pub fn client(&self) -> Client {
        LinksClient::new(in_process(LinksServer::new(self.service())))
    }
}

/// 16 bytes that name rendezvous `n`.
pub fn id(n: u8) -> Bytes {
    Bytes::from(vec![n; 16])
}

pub const OPENER_SECRET: [u8; 32] = [0xA; 32];
pub const APPROVER_SECRET: [u8; 32] = [0xB; 32];

pub fn sha256(secret: &[u8]) -> Bytes {
    Sha256::digest(secret).to_vec().into()
}

pub fn device(n: u8) -> DeviceAddress {
    DeviceAddress { account: AccountId::from_bytes([n; 16]), device: DeviceId::from_bytes([n ^ 0x80; 16]) }
}

/// A request from `caller`, authenticated or not.
pub fn from<T>(device: Option<DeviceAddress>, address: [u8; 4], message: T) -> Request<T> {
    let mut request = Request::new(message);
    Caller { device, address: Some(IpAddr::from(address)) }.put(request.metadata_mut());
    request
}

pub fn open(n: u8) -> OpenRendezvousRequest {
    OpenRendezvousRequest {
        rendezvous: id(n),
        opener_secret_sha256: sha256(&OPENER_SECRET),
        approver_secret_sha256: sha256(&APPROVER_SECRET),
    }
}

pub fn join(n: u8, by: DeviceAddress) -> Request<JoinRendezvousRequest> {
    let secret = Bytes::from_static(&APPROVER_SECRET);
    from(Some(by), [192, 0, 2, 2], JoinRendezvousRequest { rendezvous: id(n), secret })
}

/// One side of a rendezvous, at a service.
#[derive(Clone)]
pub struct End {
    pub client: Client,
    pub n: u8,
    pub side: Side,
    pub secret: Bytes,
    pub device: Option<DeviceAddress>,
    pub address: [u8; 4],
}

impl End {
    pub fn opener(client: &Client, n: u8) -> Self {
        let secret = Bytes::from_static(&OPENER_SECRET);
        Self { client: client.clone(), n, side: Side::Opener, secret, device: None, address: [192, 0, 2, 1] }
    }

    pub fn approver(client: &Client, n: u8, by: DeviceAddress) -> Self {
        let secret = Bytes::from_static(&APPROVER_SECRET);
        Self { client: client.clone(), n, side: Side::Approver, secret, device: Some(by), address: [192, 0, 2, 2] }
    }

    pub fn blob(&self, number: u32, blob: &[u8]) -> PutBlobRequest {
        let (side, blob) = (self.side.into(), Bytes::copy_from_slice(blob));
        PutBlobRequest { rendezvous: id(self.n), side, secret: self.secret.clone(), number, blob }
    }

    pub async fn put(&mut self, number: u32, blob: &[u8]) -> Result<(), Error> {
        let request = from(self.device, self.address, self.blob(number, blob));
        answer(self.client.put_blob(request).await).map(|_| ())
    }

    pub async fn wait(&mut self, number: u32, wait_ms: u32) -> Result<Bytes, Error> {
        let (rendezvous, side, secret) = (id(self.n), self.side.into(), self.secret.clone());
        let request = WaitBlobRequest { rendezvous, side, secret, number, wait_ms };
        answer(self.client.wait_blob(from(self.device, self.address, request)).await).map(|answer| answer.blob)
    }
}

/// Rendezvous `n`, opened and joined by device 1, with its two ends.
pub async fn met(client: &mut Client, n: u8) -> (End, End) {
    client.open_rendezvous(open(n)).await.expect("opened");
    client.join_rendezvous(join(n, device(1))).await.expect("joined");
    (End::opener(client, n), End::approver(client, n, device(1)))
}

/// The answer, or the refusal that the status carries.
pub fn answer<T>(result: Result<Response<T>, Status>) -> Result<T, Error> {
    result.map(Response::into_inner).map_err(|status| error_of_status(&status))
}

/// The refusal with this code.
pub fn refused<T: std::fmt::Debug>(result: Result<T, Error>, code: ErrorCode) -> Error {
    let error = result.expect_err("must be refused");
    assert_eq!(error.code(), code, "{error:?}");
    assert_eq!(error.retry_after_ms > 0, code.is_temporary() && code != ErrorCode::Internal, "{error:?}");
    error
}
