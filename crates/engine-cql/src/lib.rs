// SPDX-License-Identifier: MIT OR Apache-2.0
//! Device queues, accounts, conversations, rendezvous, uploads and payloads on CQL: ScyllaDB in production, Apache Cassandra where that
//! cannot be had.
//!
//! [`migrate`] makes or updates the tables, [`CqlEngine::open`] connects, refuses what would lose or misread data
//! ([`OpenError`]) and hands out the ports. What it holds to:
//!
//! - Reads and writes are LOCAL_QUORUM. Every statement names one partition, is prepared from one table
//!   (`STATEMENTS.md`), and is repeated until it succeeds or its call's deadline is over; a timeout says nothing about
//!   the outcome.
//! - What many write is a fact that repeating does not change: rows are immutable and carry their position as write
//!   timestamp; cursors, floors and checkpoints are max-registers, whose timestamp is their value. No clock orders
//!   them. A trim deletes a prefix at the cursor's timestamp, and at an equal timestamp the deletion wins.
//! - What one must win is decided by compare-and-set (LWT) on one partition: handle, device id, device list version,
//!   key package, conversation, commit of an epoch, log epoch, release mark, what a rendezvous is given, and uploads with their parts. The loser and the retry read what was
//!   decided at LOCAL_SERIAL; a random token tells the retry its own win.
//! - Removing a device deletes with the wall clock and leaves a mark that hides what is written later.

mod accounts;
mod codec;
mod conversations;
mod device_queues;
mod engine;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod links;
mod locks;
mod media;
mod migrate;
mod options;
mod payloads;
mod schema;
mod stamps;
mod statements;
mod store;
mod tls;

pub use engine::CqlEngine;
pub use error::OpenError;
pub use migrate::{Migrated, migrate};
pub use options::{Compaction, CqlOptions};
pub use schema::{SCHEMA_VERSION, check, server_time};
