// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tonic adapter: who calls, one operation, its answer or the status that carries its refusal.

use pli_api::common::Error as WireError;
use pli_api::media::media_server::Media as Server;
use pli_api::media::{
    BeginUploadRequest, BeginUploadResponse, DeleteUploadRequest, DeleteUploadResponse, FinishUploadRequest,
    FinishUploadResponse, GetPartRequest, GetPartResponse, GetUploadRequest, GetUploadResponse, PutPartRequest,
    PutPartResponse,
};
use pli_api::{Caller, reply};
use tonic::{Request, Response, Status};

use crate::service::{Inner, MediaService};

type Reply<T> = Result<Response<T>, Status>;

impl Inner {
    fn reply<T, E: Into<WireError>>(&self, method: &'static str, result: Result<T, E>) -> Reply<T> {
        reply(result, |code| self.metrics.refused(method, code))
    }
}

#[tonic::async_trait]
impl Server for MediaService {
    async fn begin_upload(&self, request: Request<BeginUploadRequest>) -> Reply<BeginUploadResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("begin_upload", self.inner.begin(caller, request).await)
    }

    async fn get_upload(&self, request: Request<GetUploadRequest>) -> Reply<GetUploadResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("get_upload", self.inner.get_upload(caller, request).await)
    }

    async fn put_part(&self, request: Request<PutPartRequest>) -> Reply<PutPartResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("put_part", self.inner.put(caller, request).await)
    }

    async fn finish_upload(&self, request: Request<FinishUploadRequest>) -> Reply<FinishUploadResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("finish_upload", self.inner.finish(caller, request).await)
    }

    async fn get_part(&self, request: Request<GetPartRequest>) -> Reply<GetPartResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("get_part", self.inner.get_part(caller, request).await)
    }

    async fn delete_upload(&self, request: Request<DeleteUploadRequest>) -> Reply<DeleteUploadResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("delete_upload", self.inner.delete(caller, request).await)
    }
}
