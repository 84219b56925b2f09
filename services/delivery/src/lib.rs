// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shard owners: from the shard log to device queues, doorbells, acknowledgement and retention.

#![warn(clippy::iter_over_hash_type)]

mod config;
mod error;
mod metrics;
mod owner;
mod service;

pub use config::{Config, InvalidConfig};
pub use error::{DeliveryError, OwnerError};
pub use metrics::{CounterValues, Counters};
pub use owner::Owner;
pub use service::{Delivery, DeliveryPorts};
