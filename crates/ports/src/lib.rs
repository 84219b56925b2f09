// SPDX-License-Identifier: MIT OR Apache-2.0
//! The seams of Pli. Each trait is one thing an engine must do; its documentation states durability, order,
//! idempotency, cancellation and bounds, and one conformance suite in `pli-testkit` holds every engine to it.
//!
//! Traits are cut at meaning, not at what one database offers, and take batches. All are object safe: services
//! hold `Arc<dyn …>` and never learn which engine runs.

mod accounts;
mod clock;
mod conversations;
mod error;
mod leases;
mod links;
mod media;
mod payloads;
mod queues;
mod shard_log;
mod signals;

pub use accounts::{
    AccountRecord, Accounts, ClaimedKeyPackage, CreateAccountError, DeviceListRecord, KeyPackageStock, ListHash,
    NewAccount, PutDeviceListError, Removal,
};
pub use clock::{Clock, SystemClock};
pub use conversations::{
    CommitIntent, CommitOutcome, ConversationHead, Conversations, CreateOutcome, DecidedCommit, EpochRoster,
    NewConversation, RosterRecord,
};
pub use error::{Retry, StoreError};
pub use leases::{Lease, Leases};
pub use links::{Access, GetBlobError, JoinRendezvousError, Links, NewRendezvous, OpenRendezvousError, PutBlobError};
pub use media::{BeginUploadError, FinishUploadError, Media, PutPartError};
pub use payloads::{PayloadPage, Payloads};
pub use queues::{
    Aside, DeviceQueues, DeviceRegister, DeviceState, LogEpochStart, Page, PageQuery, QueueRow, ReleaseMark, Settle,
    ShardState, Usage, UsageBound,
};
pub use shard_log::{AppendError, LogBounds, LogEntry, LogFate, LogReader, NewEntry, ReadError, ShardLog};
pub use signals::{RequestError, Respond, Signal, SignalEvent, Signals, Subject, Subscription};
