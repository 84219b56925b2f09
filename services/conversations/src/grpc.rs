// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tonic adapter: who calls, one operation, its answer or the status that carries its refusal.

use pli_api::common::Error as WireError;
use pli_api::conversations::conversations_server::Conversations as Server;
use pli_api::conversations::{
    CommitRequest, CommitResponse, CreateRequest, CreateResponse, FetchPayloadRequest, FetchPayloadResponse,
    GetCommitsRequest, GetCommitsResponse, GetGroupInfoRequest, GetGroupInfoResponse, GetRosterRequest,
    GetRosterResponse, ListRequest, ListResponse, ProposeRequest, ProposeResponse, PutPayloadRequest,
    PutPayloadResponse, ReportFailureRequest, ReportFailureResponse,
};
use pli_api::{Caller, reply};
use tonic::{Request, Response, Status};

use crate::service::{ConversationsService, Inner};

type Reply<T> = Result<Response<T>, Status>;

impl Inner {
    fn reply<T, E: Into<WireError>>(&self, method: &'static str, result: Result<T, E>) -> Reply<T> {
        reply(result, |code| self.metrics.refused(method, code))
    }
}

#[tonic::async_trait]
impl Server for ConversationsService {
    async fn create(&self, request: Request<CreateRequest>) -> Reply<CreateResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("create", self.inner.create(caller, request).await)
    }

    async fn commit(&self, request: Request<CommitRequest>) -> Reply<CommitResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("commit", self.inner.commit(caller, request).await)
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Reply<ProposeResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("propose", self.inner.propose(caller, request).await)
    }

    async fn get_commits(&self, request: Request<GetCommitsRequest>) -> Reply<GetCommitsResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("get_commits", self.inner.get_commits(caller, request).await)
    }

    async fn get_group_info(&self, request: Request<GetGroupInfoRequest>) -> Reply<GetGroupInfoResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("get_group_info", self.inner.group_info(caller, request).await)
    }

    async fn list(&self, request: Request<ListRequest>) -> Reply<ListResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("list", self.inner.list(caller, request).await)
    }

    async fn report_failure(&self, request: Request<ReportFailureRequest>) -> Reply<ReportFailureResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("report_failure", self.inner.report_failure(caller, request).await)
    }

    async fn fetch_payload(&self, request: Request<FetchPayloadRequest>) -> Reply<FetchPayloadResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("fetch_payload", self.inner.fetch_payload(caller, request).await)
    }

    async fn put_payload(&self, request: Request<PutPayloadRequest>) -> Reply<PutPayloadResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("put_payload", self.inner.put_payload(caller, request).await)
    }

    async fn get_roster(&self, request: Request<GetRosterRequest>) -> Reply<GetRosterResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("get_roster", self.inner.roster(caller, request).await)
    }
}
