// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service over models, with a directory that says what a test tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use pli_api::common::Error;
use pli_api::conversations::commit_response::Outcome;
use pli_api::conversations::conversations_client::ConversationsClient;
use pli_api::conversations::conversations_server::ConversationsServer;
use pli_api::conversations::{
    CommitLost, CommitRequest, GetGroupInfoRequest, GetGroupInfoResponse, GetRosterRequest, GetRosterResponse,
};
use pli_api::directory::directory_server::{Directory, DirectoryServer};
use pli_api::directory::{
    AccountDevices, ClaimKeyPackagesRequest, ClaimKeyPackagesResponse, DeviceList, DeviceListEntry,
    GetDeviceKeyRequest, GetDeviceKeyResponse, GetDeviceListsRequest, GetDeviceListsResponse, LookupRequest,
    LookupResponse, PublishKeyPackagesRequest, PublishKeyPackagesResponse, PutDeviceListRequest, PutDeviceListResponse,
    RegisterRequest, RegisterResponse, SignedDeviceList,
};
use pli_api::log::{Content, Entry, Envelope};
use pli_api::{Caller, Channel, ErrorCode, error_of_status, in_process};
use pli_conversations::{Config, ConversationsService, Ports};
use pli_domain::{AccountId, ConversationId, DeviceAddress, DeviceId, Seq, ShardMap};
use pli_ports::ShardLog;
use pli_testkit::memory::{FaultPlan, LogFaults, MemoryWorld, WorldOptions};
use pli_testkit::time::ManualClock;
use prost::Message;
use tonic::{Request, Response, Status};

use crate::device::{Device, bytes_of};

/// Stands for the account of fan-out workers, which have none.
const WORKERS: AccountId = AccountId::from_bytes([0xFF; 16]);

type Lists = BTreeMap<AccountId, BTreeMap<DeviceId, Vec<u8>>>;

#[derive(Clone, Default)]
struct Listed(Arc<Mutex<Lists>>, Arc<Mutex<BTreeSet<DeviceAddress>>>, Arc<AtomicUsize>);

impl Listed {
    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.0.lock().expect("no test panics while it holds this")
    }
}

pub struct Fixture {
    pub world: MemoryWorld,
    pub clock: ManualClock,
    pub service: ConversationsService,
    pub client: ConversationsClient<Channel>,
    shards: ShardMap,
    listed: Listed,
}

impl Fixture {
    pub fn new() -> Self {
        Self::with(Config::default())
    }

    pub fn with(config: Config) -> Self {
        Self::over(MemoryWorld::new(WorldOptions::default()), config)
    }

    pub fn over(world: MemoryWorld, config: Config) -> Self {
        let (clock, listed) = (ManualClock::default(), Listed::default());
        let shards = ShardMap::new(4, [7; 16]).expect("a power of two");
        let ports = Ports {
            conversations: Arc::new(world.conversations()),
            payloads: Arc::new(world.payloads()),
            log: Arc::new(world.log()),
            clock: Arc::new(clock.clone()),
            directory: in_process(DirectoryServer::new(listed.clone())),
        };
        let service = ConversationsService::new(ports, shards, config, &opentelemetry::global::meter("test"));
        let client = ConversationsClient::new(in_process(ConversationsServer::new(service.clone())));
        Self { world, clock, service, client, shards, listed }
    }

    /// Puts the device with this key into its account's device list.
    pub fn list(&self, device: &Device) {
        self.list_key(device.address, device.signer.public());
    }

    pub fn list_key(&self, device: DeviceAddress, key: &[u8]) {
        let mut listed = self.listed.lock();
        listed.entry(device.account).or_default().insert(device.device, key.to_vec());
    }

    pub fn unlist(&self, device: DeviceAddress) {
        self.listed.lock().entry(device.account).or_default().remove(&device.device);
    }

    /// How often the directory was asked about one device.
    pub fn asked(&self) -> usize {
        self.listed.2.load(Ordering::Relaxed)
    }

    /// It has published no key packages.
    pub fn is_bare(&self, device: DeviceAddress) {
        self.listed.1.lock().expect("no test panics while it holds this").insert(device);
    }

    /// A listed device.
    pub fn device(&self, account: u8, device: u8) -> Device {
        let device = Device::new(account, device);
        self.list(&device);
        device
    }

    /// A conversation of `devices`, the first of which created it and added the others.
    pub async fn conversation(&mut self, id: u8, devices: &mut [&mut Device]) {
        let (first, others) = devices.split_first_mut().expect("somebody");
        self.client.create(by(first.address, first.begin(&[id; 16]))).await.expect("creates");
        if others.is_empty() {
            return;
        }
        let packages: Vec<_> = others.iter().map(|d| d.key_package()).collect();
        let request = first.commit(&packages, &[]);
        let welcome = bytes_of(&request.welcome);
        assert_eq!(self.commit(first.address, request).await, Ok(1));
        first.won();
        for other in others {
            other.join(&welcome);
        }
    }

    /// The new epoch, or what the loser was told.
    pub async fn commit(&mut self, caller: DeviceAddress, request: CommitRequest) -> Result<u64, CommitLost> {
        outcome(self.client.commit(by(caller, request)).await.expect("an outcome"))
    }

    pub async fn roster(&mut self, conversation: &Bytes, epoch: u64) -> Result<GetRosterResponse, Error> {
        let request = GetRosterRequest { conversation: conversation.clone(), epoch, accepted_before: false };
        let answer = self.client.get_roster(request).await;
        answer.map(Response::into_inner).map_err(|status| error_of_status(&status))
    }

    pub async fn group_info(&mut self, caller: DeviceAddress, conversation: &Bytes) -> GetGroupInfoResponse {
        let request = GetGroupInfoRequest { conversation: conversation.clone() };
        self.client.get_group_info(by(caller, request)).await.expect("given").into_inner()
    }

    /// The log takes nothing, or everything again.
    pub fn set_log_down(&self, down: bool) {
        let log = LogFaults { lost: if down { 1_000 } else { 0 }, ..LogFaults::default() };
        self.world.set_faults(FaultPlan { log, ..FaultPlan::default() });
    }

    /// Every envelope in the logs by receiving device, in order, each content once.
    pub async fn delivered(&self) -> BTreeMap<DeviceAddress, Vec<Envelope>> {
        let mut delivered: BTreeMap<DeviceAddress, Vec<Envelope>> = BTreeMap::new();
        let accounts: BTreeMap<Bytes, AccountId> = {
            let listed = self.listed.lock();
            let pair = |(account, devices): (&AccountId, &BTreeMap<DeviceId, Vec<u8>>)| {
                devices.keys().map(|d| (Bytes::copy_from_slice(d.as_bytes()), *account)).collect::<Vec<_>>()
            };
            listed.iter().flat_map(pair).collect()
        };
        for shard in self.shards.shards() {
            let log = self.world.log();
            let bounds = log.bounds(shard).await.expect("bounds");
            if bounds.first > bounds.head {
                continue;
            }
            let mut reader = log.reader(shard, Seq::ZERO).await.expect("a reader");
            let mut read = Seq::ZERO;
            while read < bounds.head {
                for entry in reader.next(usize::MAX).await.expect("entries") {
                    read = entry.seq;
                    for item in Entry::decode(entry.bytes).expect("an entry").items {
                        let envelope = Envelope::decode(item.envelope).expect("an envelope");
                        for device in item.devices {
                            let id = DeviceId::try_from(device.as_ref()).expect("an id");
                            let account = if id == DeviceId::fan_out(shard) { WORKERS } else { accounts[&device] };
                            let right = account == WORKERS || self.shards.shard_of(account) == shard;
                            assert!(right, "in the shard of its account");
                            let device = id;
                            let queue = delivered.entry(DeviceAddress { account, device }).or_default();
                            if !queue.iter().any(|e| (&e.sender, &e.send_id) == (&envelope.sender, &envelope.send_id)) {
                                queue.push(envelope.clone());
                            }
                        }
                    }
                }
            }
        }
        delivered
    }

    /// The same of what the fan-out worker of a conversation is to spread.
    pub async fn to_spread(&self, conversation: &Bytes) -> Vec<(Content, u64)> {
        let conversation = ConversationId::try_from(conversation.as_ref()).expect("an id");
        let device = DeviceId::fan_out(self.shards.shard_of_conversation(conversation));
        self.told(DeviceAddress { account: WORKERS, device }).await
    }

    /// Which kinds of handshake a device was sent, with their epochs.
    pub async fn told(&self, device: DeviceAddress) -> Vec<(Content, u64)> {
        let delivered = self.delivered().await;
        delivered.get(&device).into_iter().flatten().map(|e| (e.content(), e.epoch)).collect()
    }
}

pub fn outcome(response: Response<pli_api::conversations::CommitResponse>) -> Result<u64, CommitLost> {
    match response.into_inner().outcome.expect("has one") {
        Outcome::Won(won) => Ok(won.epoch),
        Outcome::Lost(lost) => Err(lost),
    }
}

/// A request by `caller`.
pub fn by<T>(caller: DeviceAddress, message: T) -> Request<T> {
    let mut request = Request::new(message);
    Caller { device: Some(caller), address: None }.put(request.metadata_mut());
    request
}

/// Asserts on the code of a refusal.
pub fn assert_refused<T>(result: Result<Response<T>, Status>, code: ErrorCode) -> Error {
    let Err(status) = result else { panic!("was not refused with {code:?}") };
    let error = error_of_status(&status);
    assert_eq!(error.code(), code, "{error:?}");
    error
}

#[tonic::async_trait]
impl Directory for Listed {
    async fn get_device_lists(
        &self,
        request: Request<GetDeviceListsRequest>,
    ) -> Result<Response<GetDeviceListsResponse>, Status> {
        let listed = self.lock();
        let account = |id: &Bytes| {
            let devices = listed.get(&AccountId::try_from(id.as_ref()).ok()?)?;
            let entry = |(device, key): (&DeviceId, &Vec<u8>)| DeviceListEntry {
                device: Bytes::copy_from_slice(device.as_bytes()),
                key: key.clone().into(),
                name: String::new(),
            };
            let list = DeviceList { devices: devices.iter().map(entry).collect(), ..DeviceList::default() };
            let signed = SignedDeviceList { list: list.encode_to_vec().into(), signature: Bytes::new() };
            Some(AccountDevices {
                account: id.clone(),
                handle: String::new(),
                devices: Some(signed),
                between: Vec::new(),
            })
        };
        let accounts = request.get_ref().accounts.iter().filter_map(account).collect();
        Ok(Response::new(GetDeviceListsResponse { accounts }))
    }

    async fn register(&self, _: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
    async fn lookup(&self, _: Request<LookupRequest>) -> Result<Response<LookupResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
    async fn put_device_list(
        &self,
        _: Request<PutDeviceListRequest>,
    ) -> Result<Response<PutDeviceListResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
    async fn publish_key_packages(
        &self,
        _: Request<PublishKeyPackagesRequest>,
    ) -> Result<Response<PublishKeyPackagesResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
    async fn claim_key_packages(
        &self,
        _: Request<ClaimKeyPackagesRequest>,
    ) -> Result<Response<ClaimKeyPackagesResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
    async fn get_device_key(
        &self,
        request: Request<GetDeviceKeyRequest>,
    ) -> Result<Response<GetDeviceKeyResponse>, Status> {
        self.2.fetch_add(1, Ordering::Relaxed);
        let device = request.into_inner().device.as_ref().and_then(|device| DeviceAddress::try_from(device).ok());
        let bare = self.1.lock().expect("no test panics while it holds this");
        let last_resort = device.is_some_and(|device| !bare.contains(&device));
        Ok(Response::new(GetDeviceKeyResponse { last_resort, ..GetDeviceKeyResponse::default() }))
    }
}
