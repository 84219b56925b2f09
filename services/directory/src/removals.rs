// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of a device that a list leaves out: its sessions end, its queue goes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pli_api::delivery::{
    DeviceRemoved, EdgeSignal, OwnerReply, OwnerRequest, RemoveDevice, edge_signal::Signal, owner_reply::Reply,
    owner_request::Request,
};
use pli_domain::{AccountId, DeviceId, ShardId, ShardMap};
use pli_ports::{Signals, Subject};
use prost::Message;

/// Edges are told this often, a second apart: the bus may lose a word, and a hello that was under way may have been
/// judged by the old list.
const TOLD: u32 = 5;
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// An owner has this long for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Between two questions to an owner that was not ready.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// The caller waits this long for owners; then it is told to come again.
const CALLER_WAITS: Duration = Duration::from_secs(4);
/// Without a caller it is gone on with for so long: a new owner is there by then.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(120);

/// Tells edges and owners what was removed. At most one task of either kind a removal, and removals are limited per
/// account with the lists that make them.
#[derive(Clone)]
pub(crate) struct Removals {
    signals: Arc<dyn Signals>,
    shards: ShardMap,
}

impl Removals {
    pub(crate) fn new(signals: Arc<dyn Signals>, shards: ShardMap) -> Self {
        Self { signals, shards }
    }

    /// Ends sessions and deletes queues of `gone`. True once every queue is gone for good; false when that takes longer
    /// than a caller waits. It goes on after that, and when the call is dropped. Idempotent.
    pub(crate) async fn carry_out(&self, account: AccountId, gone: Vec<DeviceId>) -> bool {
        if gone.is_empty() {
            return true;
        }
        let shard = self.shards.shard_of(account);
        tokio::spawn(self.clone().tell_edges(shard, gone.clone()));
        let queues = tokio::spawn(self.clone().delete_queues(shard, gone));
        matches!(tokio::time::timeout(CALLER_WAITS, queues).await, Ok(Ok(true)))
    }

    async fn tell_edges(self, shard: ShardId, gone: Vec<DeviceId>) {
        for turn in 0..TOLD {
            if turn > 0 {
                tokio::time::sleep(TOLD_EVERY).await;
            }
            for device in &gone {
                let signal = Signal::DeviceRemoved(DeviceRemoved { device: bytes_of(*device) });
                let signal = EdgeSignal { shard: shard.get().into(), signal: Some(signal) };
                if let Err(error) = self.signals.publish(&Subject::edges(), signal.encode_to_vec().into()).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "edges were not told of a removal yet");
                }
            }
        }
    }

    async fn delete_queues(self, shard: ShardId, gone: Vec<DeviceId>) -> bool {
        let delete_all = async {
            for device in gone {
                while !self.delete_queue(shard, device).await {
                    tokio::time::sleep(ASK_AGAIN_AFTER).await;
                }
            }
        };
        let done = tokio::time::timeout(GIVEN_UP_AFTER, delete_all).await.is_ok();
        if !done {
            tracing::error!(%shard, "no owner deleted the queue of a removed device; what is in it expires by itself");
        }
        done
    }

    /// Whether the owner says that the queue is gone.
    async fn delete_queue(&self, shard: ShardId, device: DeviceId) -> bool {
        let request = Request::RemoveDevice(RemoveDevice { device: bytes_of(device) });
        let request = OwnerRequest { shard: shard.get().into(), request: Some(request) }.encode_to_vec();
        match self.signals.request(&Subject::owner(shard), request.into(), ANSWER_WITHIN).await {
            Ok(answer) => {
                matches!(OwnerReply::decode(answer), Ok(OwnerReply { reply: Some(Reply::Removed(_)) }))
            }
            Err(error) => {
                tracing::debug!(%shard, error = &error as &dyn std::error::Error, "the owner gave no answer");
                false
            }
        }
    }
}

fn bytes_of(device: DeviceId) -> Bytes {
    Bytes::copy_from_slice(device.as_bytes())
}
