// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conversations service, as far as an edge needs it: rosters that never change, and payloads.

use std::sync::Arc;

use bytes::Bytes;
use pli_api::conversations::conversations_server::{Conversations, ConversationsServer};
use pli_api::conversations::*;
use pli_api::{Channel, in_process, spread_over};
use pli_domain::{PayloadId, ShardMap};
use pli_ports::{Clock as _, Payloads};
use pli_testkit::time::RuntimeClock;
use tonic::{Request, Response, Status};

use crate::simulation::device::Talk;

struct Rosters {
    talks: Vec<Talk>,
    shards: ShardMap,
    /// Talks over more of them go through the fan-out workers.
    above: usize,
    /// With the time that decides what has expired.
    payloads: Option<(Arc<dyn Payloads>, RuntimeClock)>,
}

/// A channel on which rosters are answered, and payloads where there are any. Talks over more shards than `above` go
/// through the fan-out workers.
pub fn channel(
    talks: Vec<Talk>,
    (shards, above): (ShardMap, usize),
    payloads: Option<(Arc<dyn Payloads>, RuntimeClock)>,
) -> Channel {
    in_process(ConversationsServer::from_arc(Arc::new(Rosters { talks, shards, above, payloads })))
}

fn none<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the simulation's conversations never change"))
}

#[tonic::async_trait]
impl Conversations for Rosters {
    async fn get_roster(&self, request: Request<GetRosterRequest>) -> Result<Response<GetRosterResponse>, Status> {
        let asked = request.into_inner();
        // What an earlier run over the same servers left in a fan-out worker's queue goes to nobody.
        let talk = self.talks.iter().find(|talk| talk.id.as_bytes()[..] == asked.conversation[..]);
        let talk = talk.map_or(&[][..], |talk| &talk.devices);
        let bytes = |id: &[u8; 16]| Bytes::copy_from_slice(id);
        let address = |d: &pli_domain::DeviceAddress| pli_api::common::DeviceAddress {
            account: bytes(d.account.as_bytes()),
            device: bytes(d.device.as_bytes()),
        };
        let devices = talk.iter().map(address).collect();
        let fan_out = spread_over(&self.shards, talk.iter().copied(), self.above);
        Ok(Response::new(GetRosterResponse { open: true, devices, current_epoch: 1, retry_after_ms: 0, fan_out }))
    }
    async fn create(&self, _: Request<CreateRequest>) -> Result<Response<CreateResponse>, Status> {
        none()
    }
    async fn commit(&self, _: Request<CommitRequest>) -> Result<Response<CommitResponse>, Status> {
        none()
    }
    async fn propose(&self, _: Request<ProposeRequest>) -> Result<Response<ProposeResponse>, Status> {
        none()
    }
    async fn get_commits(&self, _: Request<GetCommitsRequest>) -> Result<Response<GetCommitsResponse>, Status> {
        none()
    }
    async fn get_group_info(&self, _: Request<GetGroupInfoRequest>) -> Result<Response<GetGroupInfoResponse>, Status> {
        none()
    }
    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        none()
    }
    async fn report_failure(
        &self,
        _: Request<ReportFailureRequest>,
    ) -> Result<Response<ReportFailureResponse>, Status> {
        none()
    }
    async fn fetch_payload(
        &self,
        request: Request<FetchPayloadRequest>,
    ) -> Result<Response<FetchPayloadResponse>, Status> {
        let FetchPayloadRequest { id, offset } = request.into_inner();
        let Some((payloads, clock)) = &self.payloads else { return none() };
        let id = PayloadId::try_from(id.as_ref()).map_err(|_| Status::invalid_argument("no id"))?;
        let page =
            payloads.page(id, offset, clock.now()).await.map_err(|error| Status::unavailable(error.to_string()))?;
        let page = page.ok_or_else(|| Status::not_found("no such payload"))?;
        Ok(Response::new(FetchPayloadResponse { bytes: page.bytes, size: page.size }))
    }
    async fn put_payload(&self, _: Request<PutPayloadRequest>) -> Result<Response<PutPayloadResponse>, Status> {
        none()
    }
}
