// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is idempotent by contract must hold for a caller that repeats every call whose outcome it does not know.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::{
    AccountId, ConversationId, DeviceAddress, DeviceId, LogEpoch, MlsEpoch, PartHash, Position, RendezvousId,
    SecretHash, ShardId, UnixMillis, Upload, UploadKey,
};
use pli_ports::{
    Access, BeginUploadError, CommitIntent, CommitOutcome, ConversationHead, Conversations, CreateOutcome,
    DecidedCommit, DeviceQueues, DeviceState, EpochRoster, FinishUploadError, GetBlobError, JoinRendezvousError, Links,
    LogEpochStart, Media, NewConversation, NewRendezvous, OpenRendezvousError, Page, PageQuery, PutBlobError,
    PutPartError, ReleaseMark, Retry, RosterRecord, Settle, ShardState, StoreError, Usage, UsageBound,
};
use pli_testkit::conformance;
use pli_testkit::memory::{
    FaultPlan, MemoryConversations, MemoryLinks, MemoryMedia, MemoryQueues, MemoryWorld, QueueFaults, TableFaults,
    WorldOptions,
};

use super::models::Models;

const SEEDS: std::ops::Range<u64> = 0..6;

/// Repeats a call until its outcome is known, and counts how often it had to.
struct Retried<P>(P, Arc<AtomicU64>);

macro_rules! retried {
    ($self:ident.$call:ident($($argument:expr),*)) => {
        loop {
            match $self.0.$call($($argument),*).await {
                Err(StoreError { retry: Retry::Later, .. }) => $self.1.fetch_add(1, Ordering::Relaxed),
                answer => return answer,
            };
        }
    };
}

#[async_trait]
impl DeviceQueues for Retried<MemoryQueues> {
    async fn settle(&self, shard: ShardId, settle: Settle) -> Result<(), StoreError> {
        retried!(self.settle(shard, settle.clone()))
    }
    async fn read_page(&self, query: PageQuery) -> Result<Page, StoreError> {
        retried!(self.read_page(query))
    }
    async fn shard_state(&self, shard: ShardId) -> Result<ShardState, StoreError> {
        retried!(self.shard_state(shard))
    }
    async fn take_mark(&self, shard: ShardId) -> Result<ShardState, StoreError> {
        // Not repeated: a mark whose taker has no answer is spent.
        self.0.take_mark(shard).await
    }
    async fn put_mark(&self, shard: ShardId, mark: ReleaseMark) -> Result<bool, StoreError> {
        retried!(self.put_mark(shard, mark))
    }
    async fn begin_log_epoch(&self, shard: ShardId, from: LogEpoch, to: LogEpochStart) -> Result<bool, StoreError> {
        retried!(self.begin_log_epoch(shard, from, to))
    }
    async fn device_states(&self, devices: &[DeviceId]) -> Result<Vec<DeviceState>, StoreError> {
        retried!(self.device_states(devices))
    }
    async fn trim(&self, trims: Vec<(DeviceId, Position)>) -> Result<(), StoreError> {
        retried!(self.trim(trims.clone()))
    }
    async fn usage(
        &self,
        device: DeviceId,
        above: Position,
        bound: UsageBound,
        now: UnixMillis,
    ) -> Result<Usage, StoreError> {
        retried!(self.usage(device, above, bound, now))
    }
    async fn remove_device(&self, device: DeviceId) -> Result<(), StoreError> {
        retried!(self.remove_device(device))
    }
}

#[tokio::test(start_paused = true)]
async fn queues_hold_for_a_caller_that_repeats() {
    let faults = QueueFaults { write_timeout: 300, replica_missed: 400, late: 600, ..QueueFaults::default() };
    for seed in SEEDS {
        let plan = FaultPlan { queues: QueueFaults { step_ms_max: 5, ..faults }, ..FaultPlan::default() };
        let options = WorldOptions { seed, ..WorldOptions::default() };
        let repeats = Arc::new(AtomicU64::new(0));
        let counted = repeats.clone();
        let open =
            move |world: &MemoryWorld| Arc::new(Retried(world.queues(), counted.clone())) as Arc<dyn DeviceQueues>;
        let mut models = Models::new(options, plan, Box::new(open));
        let suite = format!("device queues (repeated, seed {seed})");
        conformance::run(&suite, conformance::device_queues::CASES, &mut models).await.assert_whole();
        assert!(repeats.load(Ordering::Relaxed) > 20, "seed {seed} met few faults: {repeats:?}");
    }
}

#[async_trait]
impl Conversations for Retried<MemoryConversations> {
    async fn create(&self, conversation: NewConversation) -> Result<CreateOutcome, StoreError> {
        retried!(self.create(conversation.clone()))
    }
    async fn head(&self, conversation: ConversationId) -> Result<Option<ConversationHead>, StoreError> {
        retried!(self.head(conversation))
    }
    async fn roster(&self, conversation: ConversationId, epoch: MlsEpoch) -> Result<Option<RosterRecord>, StoreError> {
        retried!(self.roster(conversation, epoch))
    }
    async fn roster_at(
        &self,
        conversation: ConversationId,
        epoch: MlsEpoch,
    ) -> Result<Option<EpochRoster>, StoreError> {
        retried!(self.roster_at(conversation, epoch))
    }
    async fn commit(&self, intent: CommitIntent) -> Result<CommitOutcome, StoreError> {
        retried!(self.commit(intent.clone()))
    }
    async fn intent(&self, conversation: ConversationId, from: MlsEpoch) -> Result<Option<DecidedCommit>, StoreError> {
        retried!(self.intent(conversation, from))
    }
    async fn finish(&self, conversation: ConversationId, from: MlsEpoch) -> Result<(), StoreError> {
        retried!(self.finish(conversation, from))
    }
    async fn unfinished(&self, before: UnixMillis, limit: u32) -> Result<Vec<(ConversationId, MlsEpoch)>, StoreError> {
        retried!(self.unfinished(before, limit))
    }
    async fn of_account(
        &self,
        account: AccountId,
        after: Option<ConversationId>,
        limit: u32,
    ) -> Result<Vec<(ConversationId, MlsEpoch)>, StoreError> {
        retried!(self.of_account(account, after, limit))
    }
}

#[tokio::test(start_paused = true)]
async fn conversations_hold_for_a_caller_that_repeats() {
    let tables = TableFaults { lost: 100, answer_lost: 200, read_timeout: 100, step_ms_max: 5 };
    for seed in SEEDS {
        let options = WorldOptions { seed, ..WorldOptions::default() };
        let plan = FaultPlan { tables, ..FaultPlan::default() };
        let repeats = Arc::new(AtomicU64::new(0));
        let counted = repeats.clone();
        let open = move |world: &MemoryWorld| {
            Arc::new(Retried(world.conversations(), counted.clone())) as Arc<dyn Conversations>
        };
        let mut models = Models::new(options, plan, Box::new(open));
        let suite = format!("conversations (repeated, seed {seed})");
        conformance::run(&suite, conformance::conversations::CASES, &mut models).await.assert_whole();
        assert!(repeats.load(Ordering::Relaxed) > 20, "seed {seed} met few faults: {repeats:?}");
    }
}

macro_rules! retried_of {
    ($self:ident.$call:ident($($argument:expr),*), $error:ident) => {
        loop {
            match $self.0.$call($($argument),*).await {
                Err($error::Store(StoreError { retry: Retry::Later, .. })) => $self.1.fetch_add(1, Ordering::Relaxed),
                answer => return answer,
            };
        }
    };
}

#[async_trait]
impl Links for Retried<MemoryLinks> {
    async fn open_rendezvous(
        &self,
        rendezvous: NewRendezvous,
        now: UnixMillis,
    ) -> Result<UnixMillis, OpenRendezvousError> {
        retried_of!(self.open_rendezvous(rendezvous, now), OpenRendezvousError)
    }
    async fn join_rendezvous(
        &self,
        id: RendezvousId,
        who: (SecretHash, DeviceAddress),
        now: UnixMillis,
    ) -> Result<UnixMillis, JoinRendezvousError> {
        retried_of!(self.join_rendezvous(id, who, now), JoinRendezvousError)
    }
    async fn put_blob(&self, access: Access, number: u8, blob: Bytes) -> Result<(), PutBlobError> {
        retried_of!(self.put_blob(access, number, blob.clone()), PutBlobError)
    }
    async fn blob(&self, access: Access, number: u8) -> Result<Option<Bytes>, GetBlobError> {
        retried_of!(self.blob(access, number), GetBlobError)
    }
    async fn expire_rendezvous(&self, now: UnixMillis, limit: u32) -> Result<u32, StoreError> {
        // Not repeated: what was forgotten without an answer is not counted again.
        self.0.expire_rendezvous(now, limit).await
    }
}

/// Cases that count what was forgotten: for a store that answers.
const EXPIRING: [&str; 2] =
    ["expired_rendezvous_are_forgotten_within_a_limit", "what_was_never_opened_answers_as_what_is_over"];

#[tokio::test(start_paused = true)]
async fn links_hold_for_a_caller_that_repeats() {
    let tables = TableFaults { lost: 100, answer_lost: 200, read_timeout: 100, step_ms_max: 5 };
    let cases: Vec<_> = conformance::links::CASES
        .iter()
        .filter(|case| !EXPIRING.contains(&case.name))
        .map(|case| conformance::Case { name: case.name, run: case.run })
        .collect();
    for seed in SEEDS {
        let options = WorldOptions { seed, ..WorldOptions::default() };
        let plan = FaultPlan { tables, ..FaultPlan::default() };
        let repeats = Arc::new(AtomicU64::new(0));
        let counted = repeats.clone();
        let open = move |world: &MemoryWorld| Arc::new(Retried(world.links(), counted.clone())) as Arc<dyn Links>;
        let mut models = Models::new(options, plan, Box::new(open));
        let suite = format!("links (repeated, seed {seed})");
        conformance::run(&suite, &cases, &mut models).await.assert_whole();
        assert!(repeats.load(Ordering::Relaxed) > 20, "seed {seed} met few faults: {repeats:?}");
    }
}

#[async_trait]
impl Media for Retried<MemoryMedia> {
    async fn begin_upload(
        &self,
        key: UploadKey,
        upload: Upload,
        quota: u64,
        now: UnixMillis,
    ) -> Result<Upload, BeginUploadError> {
        retried_of!(self.begin_upload(key, upload, quota, now), BeginUploadError)
    }
    async fn upload(&self, key: UploadKey, now: UnixMillis) -> Result<Option<Upload>, StoreError> {
        retried!(self.upload(key, now))
    }
    async fn put_part(&self, key: UploadKey, number: u32, hash: PartHash, now: UnixMillis) -> Result<(), PutPartError> {
        retried_of!(self.put_part(key, number, hash, now), PutPartError)
    }
    async fn part(&self, key: UploadKey, number: u32, now: UnixMillis) -> Result<Option<PartHash>, StoreError> {
        retried!(self.part(key, number, now))
    }
    async fn parts(&self, key: UploadKey, now: UnixMillis) -> Result<Vec<(u32, PartHash)>, StoreError> {
        retried!(self.parts(key, now))
    }
    async fn finish_upload(&self, key: UploadKey, now: UnixMillis) -> Result<(), FinishUploadError> {
        retried_of!(self.finish_upload(key, now), FinishUploadError)
    }
    async fn delete_upload(&self, key: UploadKey, now: UnixMillis) -> Result<Option<Upload>, StoreError> {
        retried!(self.delete_upload(key, now))
    }
    async fn expire_uploads(&self, now: UnixMillis, limit: u32) -> Result<u32, StoreError> {
        // Not repeated: what was forgotten without an answer is not counted again.
        self.0.expire_uploads(now, limit).await
    }
}

#[tokio::test(start_paused = true)]
async fn media_hold_for_a_caller_that_repeats() {
    let tables = TableFaults { lost: 100, answer_lost: 200, read_timeout: 100, step_ms_max: 5 };
    let cases: Vec<_> = conformance::media::CASES
        .iter()
        .filter(|case| case.name != "expired_uploads_are_forgotten_within_a_limit")
        .map(|case| conformance::Case { name: case.name, run: case.run })
        .collect();
    for seed in SEEDS {
        let options = WorldOptions { seed, ..WorldOptions::default() };
        let plan = FaultPlan { tables, ..FaultPlan::default() };
        let repeats = Arc::new(AtomicU64::new(0));
        let counted = repeats.clone();
        let open = move |world: &MemoryWorld| Arc::new(Retried(world.media(), counted.clone())) as Arc<dyn Media>;
        let mut models = Models::new(options, plan, Box::new(open));
        let suite = format!("media (repeated, seed {seed})");
        conformance::run(&suite, &cases, &mut models).await.assert_whole();
        assert!(repeats.load(Ordering::Relaxed) > 20, "seed {seed} met few faults: {repeats:?}");
    }
}
