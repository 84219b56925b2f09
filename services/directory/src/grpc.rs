// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tonic adapter: who calls, one operation, its answer or the status that carries its refusal.

use pli_api::common::Error as WireError;
use pli_api::directory::directory_server::Directory as Server;
use pli_api::directory::{
    ClaimKeyPackagesRequest, ClaimKeyPackagesResponse, GetDeviceKeyRequest, GetDeviceKeyResponse,
    GetDeviceListsRequest, GetDeviceListsResponse, LookupRequest, LookupResponse, PublishKeyPackagesRequest,
    PublishKeyPackagesResponse, PutDeviceListRequest, PutDeviceListResponse, RegisterRequest, RegisterResponse,
};
use pli_api::{Caller, reply};
use tonic::{Request, Response, Status};

use crate::service::{Directory, Inner};

type Reply<T> = Result<Response<T>, Status>;

impl Inner {
    fn reply<T, E: Into<WireError>>(&self, method: &'static str, result: Result<T, E>) -> Reply<T> {
        reply(result, |code| self.metrics.refused(method, code))
    }
}

#[tonic::async_trait]
impl Server for Directory {
    async fn register(&self, request: Request<RegisterRequest>) -> Reply<RegisterResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("register", self.inner.register(caller, request).await)
    }

    async fn lookup(&self, request: Request<LookupRequest>) -> Reply<LookupResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("lookup", self.inner.lookup(caller, request).await)
    }

    async fn get_device_lists(&self, request: Request<GetDeviceListsRequest>) -> Reply<GetDeviceListsResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("get_device_lists", self.inner.device_lists(caller, request).await)
    }

    async fn put_device_list(&self, request: Request<PutDeviceListRequest>) -> Reply<PutDeviceListResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("put_device_list", self.inner.replace_list(caller, request).await)
    }

    async fn publish_key_packages(
        &self,
        request: Request<PublishKeyPackagesRequest>,
    ) -> Reply<PublishKeyPackagesResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("publish_key_packages", self.inner.publish(caller, request).await)
    }

    async fn claim_key_packages(&self, request: Request<ClaimKeyPackagesRequest>) -> Reply<ClaimKeyPackagesResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("claim_key_packages", self.inner.claim(caller, request).await)
    }

    async fn get_device_key(&self, request: Request<GetDeviceKeyRequest>) -> Reply<GetDeviceKeyResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("get_device_key", self.inner.device_key(caller, request).await)
    }
}
