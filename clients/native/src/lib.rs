// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client on a computer: transport, storage and the task that drives the core.
//!
//! One profile is one handle on one server: a folder with a database of sealed values, the key that opens them, the
//! pinned certificate and a lock. What the core decides is written in one transaction before a frame leaves, so a
//! process can die at any moment and the next one goes on where it was.

mod address;
mod backoff;
pub mod profile;
mod seal;
mod store;
mod transport;
mod trust;

pub use address::{InvalidServerAddress, ServerAddress};
pub use profile::{Profile, ProfileError};
pub use seal::{SealError, Sealer};
pub use store::{Row, SCAN_ROWS_MAX, StorageError, Store};
pub use transport::{Connection, FrameSink, FrameStream, TransportError};
pub use trust::{Fingerprint, InvalidFingerprint};
