// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each operation may refuse. `status.rs` gives each its code on the wire.

use pli_api::FieldError;
use pli_api::common::Error as WireError;
use pli_domain::MlsEpoch;
use pli_domain::limits::{GROUP_DEVICES_MAX, MEMBERS_MAX, PAGE_BYTES_MAX};
use pli_ports::{AppendError, StoreError};
use pli_runtime::limits::Limited;

use crate::devices::{DirectoryError, Unfit};
use crate::group::InvalidGroup;
use crate::objects::{OBJECT_BYTES_MAX, ObjectError};
use crate::offer::InvalidMessage;
use crate::propose::PROPOSAL_BYTES_MAX;
use crate::record::CorruptRecord;
use crate::report::{REASON_BYTES_MAX, RENEW_MAX};

/// What any operation on a conversation may refuse before it begins.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denied {
    #[error("{}", .0.message)]
    Caller(Box<WireError>),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error("no such conversation with you in it; ask a member to add you")]
    UnknownConversation,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Corrupt(#[from] CorruptRecord),
}

/// Why a fan-out could not be finished now. A decided commit stays decided; somebody finishes it later.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FinishError {
    #[error("not in every shard log yet; ask again with the same ids")]
    Append {
        retry_after_ms: u32,
        #[source]
        source: AppendError,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Corrupt(#[from] CorruptRecord),
}

/// Why a conversation was not created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error(transparent)]
    Invalid(#[from] InvalidGroup),
    #[error(transparent)]
    Devices(#[from] Unfit),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("the conversation id exists; draw another")]
    Taken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a commit was not decided.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("epoch {offered} lies ahead of the conversation's")]
    Ahead { offered: u64, current: MlsEpoch },
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error(transparent)]
    Invalid(#[from] InvalidMessage),
    #[error("the group would have {accounts} accounts; at most {MEMBERS_MAX} are allowed: add fewer people")]
    TooManyAccounts { accounts: usize },
    #[error(
        "the group would have {devices} devices; at most {GROUP_DEVICES_MAX} are allowed: remove people, or devices that nobody uses any more"
    )]
    TooManyDevices { devices: usize },
    #[error(
        "the group's public state would have {bytes} bytes; at most {bytes_max} are allowed: keys of this suite are too long for so many devices"
    )]
    StateTooLarge { bytes: usize, bytes_max: u64 },
    #[error(transparent)]
    Devices(#[from] Unfit),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Finish(#[from] FinishError),
    #[error("other commits kept coming first; ask again")]
    Contended,
}

/// Why a proposal was not brought to anybody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProposeError {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("proposal: {0} bytes; at most {PROPOSAL_BYTES_MAX} are allowed")]
    TooLarge(usize),
    #[error("the proposal is of another epoch than the current one")]
    WrongEpoch { current: MlsEpoch },
    #[error(transparent)]
    Invalid(#[from] InvalidMessage),
    #[error(transparent)]
    Finish(#[from] FinishError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuestionError {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Corrupt(#[from] CorruptRecord),
}

/// Why a report was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("reason: one word of at most {REASON_BYTES_MAX} bytes: a-z 0-9 _ -")]
    Reason,
    #[error("renew: {0} devices named; name at most {RENEW_MAX} at once")]
    TooMany(usize),
    #[error(transparent)]
    Finish(#[from] FinishError),
}

/// Why a page was not stored or given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PayloadError {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("size: {0} given; a payload has 1 to {OBJECT_BYTES_MAX} bytes")]
    Size(u64),
    #[error(
        "bytes: send 1 to {PAGE_BYTES_MAX} of them, of all pages but the last exactly {PAGE_BYTES_MAX}; offset is where the page \
         begins, below size"
    )]
    Page,
    #[error("offset: the page at {offset} is not there; send the pages in order, from the first")]
    MissingPage { offset: u64 },
    #[error("id: a payload with other bytes has it; draw a new random one")]
    IdTaken,
    #[error("no such payload; it may have expired")]
    NotFound,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an edge gets no roster.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RosterError {
    #[error("this method is for edges only")]
    NotForClients,
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("no such conversation")]
    UnknownConversation,
    #[error("the epoch is too old or lies ahead")]
    WrongEpoch { current: MlsEpoch },
    #[error(transparent)]
    Store(#[from] StoreError),
}
