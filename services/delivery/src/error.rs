// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why an owner or a worker ends.

use pli_domain::{PositionOverflow, ShardId};
use pli_ports::StoreError;

use crate::config::InvalidConfig;

/// Why an owner ended other than by being stopped. The shard is started again later by its lease holder.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// An engine needs an operator.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Log epochs or sequences ran out.
    #[error(transparent)]
    Overflow(#[from] PositionOverflow),
    /// The bus closed for good.
    #[error("the bus of {0} closed; restart the worker")]
    BusClosed(ShardId),
}

/// Why a worker could not run.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// A shard's task panicked: a defect.
    #[error("the task of a shard panicked")]
    Panicked(#[source] tokio::task::JoinError),
}
