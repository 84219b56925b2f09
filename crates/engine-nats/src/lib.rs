// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shard logs, bus and leases on NATS with JetStream (2.15 or newer; older servers make synced replication ten times
//! slower).
//!
//! [`NatsEngine`] connects and hands out [`pli_ports::ShardLog`], [`pli_ports::Signals`] and [`pli_ports::Leases`].
//! What it holds to:
//!
//! - A shard log is one subject, `pli.log.<shard>`, of a stream that many shards share. Sequences are the stream's, so
//!   those of one shard increase and are not consecutive. The newest entry of a shard is never purged: a shared stream
//!   remembers a shard's head by nothing else.
//! - The log is a system of its own ([`pli_ports::LogFate::OwnSystem`]): it may lose its end. [`NatsEngine::check`]
//!   refuses servers that acknowledge before they have synced, unless an option that is named for the danger is set.
//! - An entry's id travels as its message id, together with the shard: message ids are remembered per stream, and one
//!   id may be appended to several shards.
//! - What the owner's checks stand on (bounds, the entry at a sequence, leases) is asked of the stream's leader, never
//!   of a replica, which may be behind.
//! - A reader is a consumer that is created once, from the sequence that was asked for. It is never created again in
//!   silence: a lost connection, a hole in what was delivered or a missed heartbeat ends it with an interruption, so
//!   that the owner's checks of a new reader run.
//! - Nothing waits for one acknowledgement at a time, and everything in flight has a bound.
//!
//! Streams `PLI_LOG_<number>`, bucket `PLI_LEASES`; subjects `pli.log.<shard>` and those of [`pli_ports::Subject`];
//! [`permissions`] says which role may use which.

mod check;
mod engine;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod layout;
mod leases;
mod link;
mod mailbox;
mod migrate;
mod monitor;
mod names;
mod options;
pub mod permissions;
mod pull;
mod reader;
mod shard_log;
mod signals;
mod wire;

pub use check::{CheckReport, Problem, StartError};
pub use engine::NatsEngine;
pub use error::{ApiError, ConnectError};
pub use layout::Layout;
pub use migrate::{MigrateError, ShardMapError};
pub use names::{LEASE_BUCKET, LEASE_STREAM, log_stream, log_subject};
pub use options::{Credentials, NatsOptions, TlsFiles};
pub use permissions::Role;
