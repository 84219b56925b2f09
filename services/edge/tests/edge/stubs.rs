// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stand-ins for the directory, for conversations and for links.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use pli_api::conversations::{self as conv, conversations_server::Conversations};
use pli_api::directory::{self as dir, directory_server::Directory};
use pli_api::links::{self as link, links_server::Links};
use pli_api::{Caller, ErrorCode, refusal, status_of_error};
use pli_domain::{ConversationId, DeviceAddress, PayloadId};
use pli_ports::Payloads;
use pli_testkit::memory::MemoryPayloads;
use pli_testkit::time::START;
use tonic::{Request, Response, Status};

fn no<T>(code: ErrorCode) -> Result<Response<T>, Status> {
    Err(status_of_error(&refusal(code, "as the stub was told")))
}

/// Knows device keys; every other method answers with the code that was set.
#[derive(Clone, Default)]
pub struct StubDirectory {
    pub keys: Arc<Mutex<BTreeMap<DeviceAddress, (SigningKey, u32)>>>,
    pub code: Arc<Mutex<Option<ErrorCode>>>,
    pub callers: Arc<Mutex<Vec<Caller>>>,
}

impl StubDirectory {
    fn code<T>(&self) -> Result<Response<T>, Status> {
        no(self.code.lock().unwrap().unwrap_or(ErrorCode::NotFound))
    }
}

#[tonic::async_trait]
impl Directory for StubDirectory {
    async fn register(
        &self,
        request: Request<dir::RegisterRequest>,
    ) -> Result<Response<dir::RegisterResponse>, Status> {
        self.callers.lock().unwrap().push(Caller::of(request.metadata()));
        if self.code.lock().unwrap().is_some() {
            return self.code();
        }
        Ok(Response::new(dir::RegisterResponse { handle: request.into_inner().handle }))
    }
    async fn lookup(&self, request: Request<dir::LookupRequest>) -> Result<Response<dir::LookupResponse>, Status> {
        self.callers.lock().unwrap().push(Caller::of(request.metadata()));
        self.code()
    }
    async fn get_device_lists(
        &self,
        _: Request<dir::GetDeviceListsRequest>,
    ) -> Result<Response<dir::GetDeviceListsResponse>, Status> {
        self.code()
    }
    async fn put_device_list(
        &self,
        _: Request<dir::PutDeviceListRequest>,
    ) -> Result<Response<dir::PutDeviceListResponse>, Status> {
        self.code()
    }
    async fn publish_key_packages(
        &self,
        _: Request<dir::PublishKeyPackagesRequest>,
    ) -> Result<Response<dir::PublishKeyPackagesResponse>, Status> {
        self.code()
    }
    async fn claim_key_packages(
        &self,
        _: Request<dir::ClaimKeyPackagesRequest>,
    ) -> Result<Response<dir::ClaimKeyPackagesResponse>, Status> {
        self.code()
    }
    async fn get_device_key(
        &self,
        request: Request<dir::GetDeviceKeyRequest>,
    ) -> Result<Response<dir::GetDeviceKeyResponse>, Status> {
        let device = pli_api::address("device", request.into_inner().device.as_ref()).unwrap();
        match self.keys.lock().unwrap().get(&device) {
            Some((key, key_packages)) => Ok(Response::new(dir::GetDeviceKeyResponse {
                key: key.verifying_key().to_bytes().to_vec().into(),
                key_packages: *key_packages,
                last_resort: false,
            })),
            None => self.code(),
        }
    }
}

/// One conversation's epochs; an epoch without devices is not open.
#[derive(Default)]
pub struct Group {
    pub current: u64,
    pub epochs: BTreeMap<u64, Vec<DeviceAddress>>,
}

/// Knows rosters; every other method answers with the code that was set.
#[derive(Clone, Default)]
pub struct StubConversations {
    pub groups: Arc<Mutex<BTreeMap<ConversationId, Group>>>,
    pub asked: Arc<Mutex<usize>>,
    pub code: Arc<Mutex<Option<ErrorCode>>>,
    /// Where payloads lie, and how often one was asked for.
    pub payloads: Arc<Mutex<Option<MemoryPayloads>>>,
    pub fetched: Arc<Mutex<usize>>,
    /// How long fetching a payload takes.
    pub fetch_takes: Arc<Mutex<Duration>>,
    /// Every roster is called one of many shards.
    pub fan_out: Arc<AtomicBool>,
}

impl StubConversations {
    fn code<T>(&self) -> Result<Response<T>, Status> {
        no(self.code.lock().unwrap().unwrap_or(ErrorCode::UnknownConversation))
    }
}

#[tonic::async_trait]
impl Conversations for StubConversations {
    async fn create(&self, _: Request<conv::CreateRequest>) -> Result<Response<conv::CreateResponse>, Status> {
        self.code()
    }
    async fn commit(&self, _: Request<conv::CommitRequest>) -> Result<Response<conv::CommitResponse>, Status> {
        self.code()
    }
    async fn propose(&self, _: Request<conv::ProposeRequest>) -> Result<Response<conv::ProposeResponse>, Status> {
        self.code()
    }
    async fn get_commits(
        &self,
        _: Request<conv::GetCommitsRequest>,
    ) -> Result<Response<conv::GetCommitsResponse>, Status> {
        self.code()
    }
    async fn get_group_info(
        &self,
        _: Request<conv::GetGroupInfoRequest>,
    ) -> Result<Response<conv::GetGroupInfoResponse>, Status> {
        self.code()
    }
    async fn list(&self, _: Request<conv::ListRequest>) -> Result<Response<conv::ListResponse>, Status> {
        self.code()
    }
    async fn report_failure(
        &self,
        _: Request<conv::ReportFailureRequest>,
    ) -> Result<Response<conv::ReportFailureResponse>, Status> {
        self.code()
    }
    async fn fetch_payload(
        &self,
        request: Request<conv::FetchPayloadRequest>,
    ) -> Result<Response<conv::FetchPayloadResponse>, Status> {
        let conv::FetchPayloadRequest { id, offset } = request.into_inner();
        let payloads = self.payloads.lock().unwrap().clone();
        if let (Some(payloads), Ok(id)) = (payloads, PayloadId::try_from(id.as_ref())) {
            *self.fetched.lock().unwrap() += 1;
            let takes = *self.fetch_takes.lock().unwrap();
            tokio::time::sleep(takes).await;
            return match payloads.page(id, offset, START).await.unwrap() {
                Some(page) => Ok(Response::new(conv::FetchPayloadResponse { bytes: page.bytes, size: page.size })),
                None => no(ErrorCode::NotFound),
            };
        }
        // Larger than any frame: an edge must not try to pass it on.
        Ok(Response::new(conv::FetchPayloadResponse { bytes: vec![0; 200_000].into(), size: 200_000 }))
    }
    async fn put_payload(
        &self,
        _: Request<conv::PutPayloadRequest>,
    ) -> Result<Response<conv::PutPayloadResponse>, Status> {
        // Never answers: what a hanging service looks like.
        std::future::pending().await
    }
    async fn get_roster(
        &self,
        request: Request<conv::GetRosterRequest>,
    ) -> Result<Response<conv::GetRosterResponse>, Status> {
        *self.asked.lock().unwrap() += 1;
        let request = request.into_inner();
        let id = ConversationId::try_from(request.conversation.as_ref()).unwrap();
        let groups = self.groups.lock().unwrap();
        let Some(group) = groups.get(&id) else { return no(ErrorCode::UnknownConversation) };
        let devices = group.epochs.get(&request.epoch);
        Ok(Response::new(conv::GetRosterResponse {
            open: devices.is_some(),
            devices: devices.into_iter().flatten().map(|device| (*device).into()).collect(),
            current_epoch: group.current,
            retry_after_ms: 40,
            fan_out: self.fan_out.load(Ordering::Relaxed),
        }))
    }
}

/// Answers every call with nothing, and keeps who called.
#[derive(Clone, Default)]
pub struct StubLinks {
    pub callers: Arc<Mutex<Vec<Caller>>>,
}

impl StubLinks {
    fn done<T, A: Default>(&self, request: &Request<T>) -> Result<Response<A>, Status> {
        self.callers.lock().unwrap().push(Caller::of(request.metadata()));
        Ok(Response::new(A::default()))
    }
}

#[tonic::async_trait]
impl Links for StubLinks {
    async fn open_rendezvous(
        &self,
        request: Request<link::OpenRendezvousRequest>,
    ) -> Result<Response<link::OpenRendezvousResponse>, Status> {
        self.done(&request)
    }
    async fn join_rendezvous(
        &self,
        request: Request<link::JoinRendezvousRequest>,
    ) -> Result<Response<link::JoinRendezvousResponse>, Status> {
        self.done(&request)
    }
    async fn put_blob(
        &self,
        request: Request<link::PutBlobRequest>,
    ) -> Result<Response<link::PutBlobResponse>, Status> {
        self.done(&request)
    }
    async fn wait_blob(
        &self,
        request: Request<link::WaitBlobRequest>,
    ) -> Result<Response<link::WaitBlobResponse>, Status> {
        self.done(&request)
    }
}
