// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an edge asks of shard owners, over the bus.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pli_api::delivery::{
    Ack, Announce, OwnerReply, OwnerRequest, Page, QueryReceipts, ReadPage, ReceiptPart, ReceiptVerdicts, Registered,
    Withdraw, owner_reply::Reply, owner_request::Request,
};
use pli_domain::ShardId;
use pli_ports::{RequestError, Signals, Subject};
use prost::Message;

/// No usable answer now; ask again. `after` is what the owner asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotNow {
    pub(crate) after: Option<Duration>,
    /// Nobody answered within the deadline: perhaps it was too much.
    pub(crate) late: bool,
}

impl NotNow {
    const PLAIN: Self = Self { after: None, late: false };
}

/// The owners of all shards, behind the bus.
#[derive(Clone)]
pub(crate) struct Owners {
    signals: Arc<dyn Signals>,
    deadline: Duration,
}

impl Owners {
    pub(crate) fn new(signals: Arc<dyn Signals>, deadline: Duration) -> Self {
        Self { signals, deadline }
    }

    pub(crate) async fn announce(&self, shard: ShardId, announce: Announce) -> Result<Registered, NotNow> {
        match self.ask(shard, Request::Announce(announce)).await? {
            Reply::Registered(registered) => Ok(registered),
            other => Err(unusable(&other)),
        }
    }

    pub(crate) async fn read(&self, shard: ShardId, read: ReadPage) -> Result<Page, NotNow> {
        match self.ask(shard, Request::ReadPage(read)).await? {
            Reply::Page(page) => Ok(page),
            other => Err(unusable(&other)),
        }
    }

    pub(crate) async fn verdicts(&self, shard: ShardId, parts: Vec<ReceiptPart>) -> Result<ReceiptVerdicts, NotNow> {
        match self.ask(shard, Request::QueryReceipts(QueryReceipts { parts })).await? {
            Reply::Verdicts(verdicts) => Ok(verdicts),
            other => Err(unusable(&other)),
        }
    }

    /// Best effort: a lost one is made good by the next.
    pub(crate) async fn ack(&self, shard: ShardId, ack: Ack) {
        self.tell(shard, Request::Ack(ack)).await;
    }

    /// Best effort: an owner forgets sessions that are not announced again.
    pub(crate) async fn withdraw(&self, shard: ShardId, withdraw: Withdraw) {
        self.tell(shard, Request::Withdraw(withdraw)).await;
    }

    async fn tell(&self, shard: ShardId, request: Request) {
        if let Err(error) = self.signals.publish(&Subject::owner(shard), encoded(shard, request)).await {
            tracing::debug!(%shard, error = &error as &dyn std::error::Error, "the bus took no message to an owner");
        }
    }

    async fn ask(&self, shard: ShardId, request: Request) -> Result<Reply, NotNow> {
        let subject = Subject::owner(shard);
        let answer = self.signals.request(&subject, encoded(shard, request), self.deadline).await;
        let bytes = answer.map_err(|error| {
            tracing::debug!(%shard, error = &error as &dyn std::error::Error, "an owner gave no answer");
            NotNow { late: matches!(error, RequestError::Timeout(_)), ..NotNow::PLAIN }
        })?;
        let reply = OwnerReply::decode(bytes).ok().and_then(|reply| reply.reply);
        reply.ok_or_else(|| {
            tracing::warn!(%shard, "an owner's answer cannot be decoded");
            NotNow::PLAIN
        })
    }
}

fn encoded(shard: ShardId, request: Request) -> Bytes {
    OwnerRequest { shard: shard.get().into(), request: Some(request) }.encode_to_vec().into()
}

fn unusable(reply: &Reply) -> NotNow {
    match reply {
        Reply::NotReady(later) => {
            NotNow { after: Some(Duration::from_millis(later.retry_after_ms.into())), late: false }
        }
        _ => {
            tracing::warn!("an owner answered something else than was asked");
            NotNow::PLAIN
        }
    }
}
