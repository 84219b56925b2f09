// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rendezvous: two devices that do not know each other yet exchange a few small blobs, sealed end to end.
//!
//! The service owns the port [`pli_ports::Links`] and answers `pli.links.v1`. What it promises:
//!
//! - A side is whoever shows its secret, of which only SHA-256 is kept; the approver is one device besides, the first
//!   that joined. Nothing that the server stores lets anybody in.
//! - A blob is written once and read as it was written; the server sees its length.
//! - What never was, what is over and what another secret opens answer alike, so nobody finds out which ids there are.
//! - All state is in the store: any two replicas serve the two sides, and a restart loses nothing. Who waits looks at the
//!   store again after 100 ms, then ever less often, down to once a second: one read of one row each. A message on the
//!   bus would save those reads and would have to be checked against the store all the same.
//! - A minute after its opening a rendezvous is over; soon after that its rows are gone. How many are opened, by whom,
//!   how many are open and how many wait is bounded.
//!
//! No subjects. Tables: `rendezvous` (and `rendezvous_blob` on SQLite).
//!
//! [`LinksService`] is a cheap handle; wrap it in [`LinksServer`](pli_api::links::links_server::LinksServer) to serve it,
//! and run [`LinksService::run`] beside it.

mod access;
mod config;
mod error;
mod grpc;
mod join;
mod limits;
mod metrics;
mod open;
mod put;
mod service;
mod status;
mod sweep;
mod wait;

pub use config::{Config, InvalidConfig};
pub use service::LinksService;
