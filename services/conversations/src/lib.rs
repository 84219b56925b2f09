// SPDX-License-Identifier: MIT OR Apache-2.0
//! Conversations: MLS groups (RFC 9420) whose public state the service keeps.
//!
//! It owns the port [`pli_ports::Conversations`] and answers `pli.conversations.v1`. What it promises:
//!
//! - **One commit per epoch.** A commit is checked against the group's public state (signatures, tree hash, parent
//!   hashes, group info, welcome) and the members' signed device lists, then decided by compare-and-set with
//!   everything that is needed to finish it as the durable intent.
//! - **An epoch opens after its fan-out.** The commit goes to every device of the old roster and the welcome to every
//!   added one, into the shard logs, under ids derived from conversation and epoch; only then is the epoch open and
//!   the committer told. Whoever meets a decided commit whose epoch is closed finishes it: the committer's retry, the
//!   next committer, a question for the roster, the sweep.
//! - **Rosters come from the tree**, never from what somebody says, and do not change.
//! - A conversation that does not exist and one that the caller is not in are not told apart.
//!
//! What it cannot check (the confirmation tag, path secrets, welcome secrets need the group's keys), members check;
//! a device that cannot process a commit reports it and re-joins by external commit.
//!
//! It keeps nothing in memory that matters: decoded groups are cached, within a byte budget.
//! [`ConversationsService`] is a cheap handle; wrap it in
//! [`ConversationsServer`](pli_api::conversations::conversations_server::ConversationsServer) to serve it, and run
//! [`ConversationsService::run`] beside it.

mod commit;
mod commits;
mod config;
mod create;
mod derive;
mod devices;
mod error;
mod fanout;
mod finish;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod group;
mod group_info;
mod grpc;
mod limits;
mod list;
mod metrics;
mod objects;
mod offer;
mod payload;
mod propose;
mod record;
mod report;
mod roster;
mod service;
mod status;
mod storage;
mod sweep;
mod wire;

pub use config::Config;
pub use service::{ConversationsService, Ports};
