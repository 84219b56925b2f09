// SPDX-License-Identifier: MIT OR Apache-2.0
//! The words of Pli as types: ids, log positions, envelopes, device lists and limits.
//!
//! Everything here is pure: no I/O, no clock, no runtime, no serialisation format. One word means one
//! thing here, in the protobuf contracts, in subjects, tables, metrics and charts; `docs/architecture.md`
//! lists the words.

mod envelope;
mod handle;
mod ids;
pub mod limits;
pub mod mutant;
mod position;
pub mod protocol;
mod rendezvous;
mod shard;
mod time;
pub mod transcript;
mod upload;

pub use envelope::{Class, DeviceAddress, MlsEpoch};
pub use handle::{Handle, InvalidHandle};
pub use ids::{
    AccountId, ConversationId, DeviceId, EdgeId, EntryId, InvalidId, OwnerId, PayloadId, RendezvousId, SendId,
    SessionId, UploadId,
};
pub use position::{Checkpoint, EntryRef, LogEpoch, Position, PositionOverflow, Seq};
pub use rendezvous::{NoPlace, NotAdmitted, Party, Place, Rendezvous, SecretHash, Side};
pub use shard::{InvalidShardMap, ShardId, ShardMap};
pub use time::UnixMillis;
pub use upload::{NoSuchPart, NoUpload, PartHash, Upload, UploadKey, UploadStage};
