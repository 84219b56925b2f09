// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of a device that a list leaves out: its sessions end, its queue goes. The store keeps the removal from the
//! moment that it keeps the list until this is done, so that a death in between only delays it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use pli_api::delivery::{
    DeviceRemoved, EdgeSignal, OwnerReply, OwnerRequest, RemoveDevice, edge_signal::Signal, owner_reply::Reply,
    owner_request::Request,
};
use pli_domain::{DeviceId, ShardId, ShardMap};
use pli_ports::{Accounts, Removal, Signals, Subject};
use prost::Message;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::service::Directory;

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
/// Owners have this long in one go; what is left is the sweep's.
const GO_LASTS: Duration = Duration::from_secs(10);
/// Removals of one go of the sweep.
const SWEPT_AT_ONCE: usize = 64;
/// Between two sweeps, and how much it varies: many directories sweep the same.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
const SWEEP_SPREAD: Duration = Duration::from_secs(15);
/// The first sweep of a process comes within so long.
const FIRST_SWEEP_WITHIN: Duration = Duration::from_secs(2);

/// Tells edges and owners what was removed, and calls it done in the store once all were told. A task for each list that
/// leaves devices out and each time that it is put again, which the limit of lists bounds; it ends within seconds. What they leave, or a process that died, the sweep finishes. Everything may be done twice.
#[derive(Clone)]
pub(crate) struct Removals {
    accounts: Arc<dyn Accounts>,
    signals: Arc<dyn Signals>,
    shards: ShardMap,
}

impl Directory {
    /// Finishes removals that were left behind, by this process or another one, until `stop`. Several replicas may run at
    /// once: a removal that is carried out twice changes nothing.
    pub async fn run(&self, stop: CancellationToken) {
        let mut wait = rand::random_range(Duration::ZERO..FIRST_SWEEP_WITHIN);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.inner.removals.sweep() => {}
            }
            wait = SWEEP_EVERY + rand::random_range(Duration::ZERO..SWEEP_SPREAD);
        }
    }
}

impl Removals {
    pub(crate) fn new(accounts: Arc<dyn Accounts>, signals: Arc<dyn Signals>, shards: ShardMap) -> Self {
        Self { accounts, signals, shards }
    }

    /// Ends sessions and deletes queues of `gone`. True once every queue is gone for good; false when that takes longer
    /// than a caller waits. It goes on after that, and when the call is dropped. Idempotent.
    pub(crate) async fn carry_out(&self, gone: Vec<Removal>) -> bool {
        if gone.is_empty() {
            return true;
        }
        let (done, deleted) = oneshot::channel();
        tokio::spawn(self.clone().finish(gone, done));
        matches!(tokio::time::timeout(CALLER_WAITS, deleted).await, Ok(Ok(true)))
    }

    /// Carries out what is left. A page at a time, one after the other.
    async fn sweep(&self) {
        let mut after = None;
        loop {
            let left = match self.accounts.removals(after, SWEPT_AT_ONCE).await {
                Ok(left) => left,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    return tracing::warn!(error, "the sweep of removals could not ask the store");
                }
            };
            let Some(last) = left.last().copied() else { return };
            tracing::info!(removals = left.len(), "removals that are not finished");
            self.clone().finish(left, oneshot::channel().0).await;
            after = Some(last);
        }
    }

    /// Tells edges and owners; calls done what both were told. `deleted` hears as soon as every queue is gone, or not in
    /// time.
    async fn finish(self, gone: Vec<Removal>, deleted: oneshot::Sender<bool>) {
        let queues = async {
            let deleting = gone.iter().map(|removal| self.delete_queue(*removal));
            let left = join_all(deleting).await;
            // Whoever waited may have gone.
            let _ = deleted.send(left.iter().all(|deleted| *deleted));
            left
        };
        let (queues, ()) = tokio::join!(queues, self.tell_edges(&gone));
        for (removal, deleted) in gone.iter().zip(queues) {
            if !deleted {
                let shard = self.shards.shard_of(removal.account);
                tracing::warn!(%shard, "no owner deleted the queue of a removed device yet; the sweep goes on");
            } else if let Err(error) = self.accounts.finish_removal(*removal).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "a removal was carried out and is not noted yet; the sweep does it again");
            }
        }
    }

    async fn tell_edges(&self, gone: &[Removal]) {
        for turn in 0..TOLD {
            if turn > 0 {
                tokio::time::sleep(TOLD_EVERY).await;
            }
            for removal in gone {
                let shard = self.shards.shard_of(removal.account);
                let signal = Signal::DeviceRemoved(DeviceRemoved { device: bytes_of(removal.device) });
                let signal = EdgeSignal { shard: shard.get().into(), signal: Some(signal) };
                if let Err(error) = self.signals.publish(&Subject::edges(), signal.encode_to_vec().into()).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "edges were not told of a removal yet");
                }
            }
        }
    }

    /// Whether the queue is gone, asked until it is or the time is over.
    async fn delete_queue(&self, removal: Removal) -> bool {
        let shard = self.shards.shard_of(removal.account);
        let delete = async {
            while !self.ask_owner(shard, removal.device).await {
                tokio::time::sleep(ASK_AGAIN_AFTER).await;
            }
        };
        tokio::time::timeout(GO_LASTS, delete).await.is_ok()
    }

    /// Whether the owner says that the queue is gone.
    async fn ask_owner(&self, shard: ShardId, device: DeviceId) -> bool {
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
