// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client on a computer: transport, storage and the task that drives the core.
//!
//! One profile is one handle on one server: a folder with a database of sealed values, the key that opens them, the
//! pinned certificate and a lock. What the core decides is written in one transaction before a frame leaves, so a
//! process can die at any moment and the next one goes on where it was.
//!
//! [`Client::open`] gives a handle and the stream of [`Events`]. Commands are answered when what they changed is
//! durable; the driver connects, authenticates and reconnects by itself, and [`Client::status`] says how it stands.

mod address;
mod client;
mod driver;
mod error;
mod history;
pub mod linking;
pub mod profile;
mod seal;
mod store;
mod transport;
mod trust;

pub use address::{InvalidServerAddress, ServerAddress};
pub use client::{Client, ClientOptions, Events, Status};
pub use error::{End, OpenError, RequestError};
pub use history::HistoryItem;
pub use pli_client_core as core;
pub use profile::{DeviceLabel, InvalidProfileName, Profile, ProfileError, ProfileName};
pub use seal::{SealError, Sealer};
pub use store::{Row, SCAN_ROWS_MAX, StorageError, Store};
pub use transport::{
    Carrier, Connection, Connector, FrameSink, FrameStream, InvalidTransport, Transport, TransportError,
};
pub use trust::{Fingerprint, InvalidFingerprint};
