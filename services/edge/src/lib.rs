// SPDX-License-Identifier: MIT OR Apache-2.0
//! The authenticating gateway: sessions, limits, backpressure. Keeps nothing durable.
//!
//! A session is one task over a [`Carrier`]. It sends what its device has to get ([`feed`] decides what and when),
//! passes acks to the shard's owner, turns `Send` into log entries and `Call` into requests to the service that owns
//! the method. Invariants kept here: Q3 (a session reads only after its registration is confirmed), Q4 (positions of a
//! session strictly increase and nothing between is skipped untold), Q11 (every list and window is bounded where it is
//! defined), and that one entry of a lane is in flight per shard.
//!
//! Subjects: subscribes to its own (`Subject::edge`) and to all edges' (`Subject::edges`); asks and tells owners on
//! `Subject::owner`. Tables: none.

mod admission;
mod append;
mod bodies;
pub mod carrier;
mod config;
mod edge;
mod fan_out;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod limits;
mod method;
mod metrics;
mod notes;
mod owner;
pub mod quic;
mod receipts;
mod registry;
mod retry;
mod roster;
mod route;
mod session;
mod ticket;
mod tls;
pub mod ws;

pub use admission::ListenError;
pub use carrier::{Carrier, CarrierError, CarrierName, PeerInfo};
pub use config::{AppendConfig, Config, FanOutConfig, InvalidConfig, LimitsConfig, Rate, SessionConfig};
pub use edge::{Edge, EdgePorts};
pub use session::feed;
pub use tls::{Identity, IdentityError};
