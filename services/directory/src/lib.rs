// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accounts, handles, signed device lists and key packages.
//!
//! The directory owns the port [`pli_ports::Accounts`] and answers `pli.directory.v1`. What it promises:
//!
//! - The device lists of an account are a chain: a list is stored only if the account's identity key signed exactly
//!   those bytes, its version follows the newest one's and it names that one's hash, no device id ever changes its key,
//!   and none that was removed comes back. Clients verify the same again: the directory can withhold a list, it cannot
//!   make one.
//! - A device that a list leaves out is told so by whatever it asks next; edges hear of it at once, its queue and key
//!   packages are gone when the list is acknowledged. The store keeps the removal with the list until all of this is done,
//!   and [`Directory::run`] finishes what a process left that died.
//! - A key package is handed out only if it was valid when published and still is: right suite, right credential, the
//!   key of the device that published it. A single-use one is handed out once.
//! - Accounts are found by exact handle only, and an account that may not be seen answers as one that does not exist.
//! - What one address or account can ask of it in a while is bounded, and so is every request and answer.
//!
//! [`Directory`] is a cheap handle; wrap it in
//! [`DirectoryServer`](pli_api::directory::directory_server::DirectoryServer) to serve it.

mod config;
mod device_lists;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod grpc;
mod key_package;
mod key_packages;
mod limits;
mod list;
mod lookup;
mod metrics;
mod register;
mod removals;
mod service;
mod status;

pub use config::{Config, Registration};
pub use list::{InvalidDeviceList, ListedDevice, VerifiedDeviceList};
pub use service::{Directory, Ports};
