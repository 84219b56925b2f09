// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tonic adapter: who calls, one operation, its answer or the status that carries its refusal.

use pli_api::common::Error as WireError;
use pli_api::links::links_server::Links as Server;
use pli_api::links::{
    JoinRendezvousRequest, JoinRendezvousResponse, OpenRendezvousRequest, OpenRendezvousResponse, PutBlobRequest,
    PutBlobResponse, WaitBlobRequest, WaitBlobResponse,
};
use pli_api::{Caller, reply};
use tonic::{Request, Response, Status};

use crate::service::{Inner, LinksService};

type Reply<T> = Result<Response<T>, Status>;

impl Inner {
    fn reply<T, E: Into<WireError>>(&self, method: &'static str, result: Result<T, E>) -> Reply<T> {
        reply(result, |code| self.metrics.refused(method, code))
    }
}

#[tonic::async_trait]
impl Server for LinksService {
    async fn open_rendezvous(&self, request: Request<OpenRendezvousRequest>) -> Reply<OpenRendezvousResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("open_rendezvous", self.inner.open(caller, request).await)
    }

    async fn join_rendezvous(&self, request: Request<JoinRendezvousRequest>) -> Reply<JoinRendezvousResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("join_rendezvous", self.inner.join(caller, request).await)
    }

    async fn put_blob(&self, request: Request<PutBlobRequest>) -> Reply<PutBlobResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("put_blob", self.inner.put(caller, request).await)
    }

    async fn wait_blob(&self, request: Request<WaitBlobRequest>) -> Reply<WaitBlobResponse> {
        let (caller, request) = Caller::split(request);
        self.inner.reply("wait_blob", self.inner.wait(caller, request).await)
    }
}
