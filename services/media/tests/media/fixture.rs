// SPDX-License-Identifier: MIT OR Apache-2.0
//! A media service in this process, with accounts of two devices each.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use pli_api::common::Error;
use pli_api::media::media_client::MediaClient;
use pli_api::media::media_server::MediaServer;
use pli_api::media::{
    BeginUploadRequest, BeginUploadResponse, DeleteUploadRequest, FinishUploadRequest, GetPartRequest,
    GetUploadRequest, GetUploadResponse, PutPartRequest,
};
use pli_api::{Caller, Channel, ErrorCode, error_of_status, in_process};
use pli_domain::{AccountId, DeviceAddress, DeviceId};
use pli_media::{Blobs, Config, MediaService, Ports};
use pli_ports::{Accounts, DeviceListRecord, NewAccount};
use pli_testkit::memory::{MemoryWorld, WorldOptions};
use pli_testkit::time::{RuntimeClock, START};
use sha2::{Digest, Sha256};
use tonic::{Request, Response, Status};

pub type Client = MediaClient<Channel>;

/// Length of a full part.
pub const PART: usize = 65_536;

/// Replicas over one world.
pub struct Rig {
    pub world: MemoryWorld,
    pub blobs: Blobs,
    clock: Arc<RuntimeClock>,
    config: Config,
}

impl Rig {
    pub async fn new(config: Config) -> Self {
        Self::over(Blobs::memory(), config).await
    }

    pub async fn over(blobs: Blobs, config: Config) -> Self {
        let world = MemoryWorld::new(WorldOptions::default());
        for account in 1..=2 {
            world.accounts().create(account_of(account)).await.expect("created");
        }
        Self { world, blobs, clock: Arc::new(RuntimeClock::new(START)), config }
    }

    pub fn service(&self) -> MediaService {
        let ports = Ports {
            media: Arc::new(self.world.media()),
            accounts: Arc::new(self.world.accounts()),
            clock: self.clock.clone(),
        };
        let meter = opentelemetry::global::meter("test");
        MediaService::new(ports, self.blobs.clone(), self.config.clone(), &meter)
    }

    /// A device at a replica of its own.
    pub fn device(&self, account: u8, number: u8) -> End {
        End { client: MediaClient::new(in_process(MediaServer::new(self.service()))), who: device(account, number) }
    }
}

pub fn device(account: u8, number: u8) -> Option<DeviceAddress> {
    let device = DeviceId::from_bytes([account * 16 + number; 16]);
    Some(DeviceAddress { account: AccountId::from_bytes([account; 16]), device })
}

/// Devices 1 and 2.
fn account_of(account: u8) -> NewAccount {
    let devices = [1, 2].map(|number| device(account, number).expect("a device").device).to_vec();
    NewAccount {
        account: AccountId::from_bytes([account; 16]),
        handle: format!("account{account}").parse().expect("a handle"),
        identity_key: [account; 32],
        devices: DeviceListRecord { version: 1, signed: Bytes::from_static(b"signed"), devices },
        created_at: START,
    }
}

/// Bytes that differ from part to part.
pub fn part(number: u32, bytes: usize) -> Bytes {
    (0..bytes).map(|at| (at as u32 * 31 + number * 7) as u8).collect()
}

pub fn sha256(bytes: &[u8]) -> Bytes {
    Sha256::digest(bytes).to_vec().into()
}

/// 16 bytes that name upload `n`.
pub fn id(n: u8) -> Bytes {
    Bytes::from(vec![n; 16])
}

/// A device that calls a service.
#[derive(Clone)]
pub struct End {
    pub client: Client,
    pub who: Option<DeviceAddress>,
}

impl End {
    fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let address = Some(IpAddr::from([192, 0, 2, 1]));
        Caller { device: self.who, address }.put(request.metadata_mut());
        request
    }

    pub async fn begin(&mut self, n: u8, bytes: u64) -> Result<BeginUploadResponse, Error> {
        self.begin_with(id(n), bytes).await
    }

    pub async fn begin_with(&mut self, upload: Bytes, bytes: u64) -> Result<BeginUploadResponse, Error> {
        let request = self.ask(BeginUploadRequest { upload, bytes });
        answer(self.client.begin_upload(request).await)
    }

    pub async fn put(&mut self, n: u8, number: u32, part: Bytes) -> Result<(), Error> {
        let sha256 = sha256(&part);
        self.put_with(PutPartRequest { upload: id(n), number, part, sha256 }).await
    }

    pub async fn put_with(&mut self, request: PutPartRequest) -> Result<(), Error> {
        let request = self.ask(request);
        answer(self.client.put_part(request).await).map(drop)
    }

    pub async fn finish(&mut self, n: u8) -> Result<(), Error> {
        let request = self.ask(FinishUploadRequest { upload: id(n) });
        answer(self.client.finish_upload(request).await).map(drop)
    }

    pub async fn get(&mut self, n: u8) -> Result<GetUploadResponse, Error> {
        let request = self.ask(GetUploadRequest { upload: id(n) });
        answer(self.client.get_upload(request).await)
    }

    pub async fn read(&mut self, n: u8, number: u32) -> Result<Bytes, Error> {
        let request = self.ask(GetPartRequest { upload: id(n), number });
        answer(self.client.get_part(request).await).map(|read| read.part)
    }

    pub async fn delete(&mut self, n: u8) -> Result<(), Error> {
        let request = self.ask(DeleteUploadRequest { upload: id(n) });
        answer(self.client.delete_upload(request).await).map(drop)
    }

    /// Upload `n` of two full parts and 5 bytes, finished.
    pub async fn whole(&mut self, n: u8) {
        self.begin(n, 2 * PART as u64 + 5).await.expect("begun");
        for (number, bytes) in [(1, PART), (2, PART), (3, 5)] {
            self.put(n, number, part(number, bytes)).await.expect("put");
        }
        self.finish(n).await.expect("finished");
    }
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
