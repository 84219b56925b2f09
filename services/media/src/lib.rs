// SPDX-License-Identifier: MIT OR Apache-2.0
//! Media: sealed uploads in parts, which a device resumes and other devices of its account read.
//!
//! The service owns the port [`pli_ports::Media`], which knows what was begun and which parts are there, and an object
//! store that holds the parts; it answers `pli.media.v1`. What it promises:
//!
//! - Parts are sealed end to end; the server sees lengths. An upload is seen by devices that its account's list names,
//!   by nobody else, and what is not there is not told from what is another account's.
//! - A part is one object, named by its number and hash, written whole before the store of uploads is told of it. A kill
//!   in between leaves an object that nothing names. A part is served only with the length and the hash that were noted.
//! - An upload that broke off goes on where it stopped: the same id and length again says which parts are there, and the
//!   same part again is harmless. Its parts can be read once it is finished.
//! - What lasts longer than its life answers as what never was, at once. Its rows go with the next sweep. Its objects lie
//!   in a folder of the day on which they expire; a sweep deletes the folders of days that are over, and with them
//!   whatever a kill has left.
//! - All state is in the two stores: any two replicas serve the two devices, where they share the object store.
//!
//! No subjects. Tables: `media_upload`, `media_part`. Objects: `<day>/<account>/<upload>/<number>-<hash>`.
//!
//! [`MediaService`] is a cheap handle; wrap it in [`MediaServer`](pli_api::media::media_server::MediaServer) to serve it,
//! and run [`MediaService::run`] beside it.

mod access;
mod begin;
mod blobs;
mod config;
mod delete;
mod error;
mod finish;
mod get;
mod grpc;
mod limits;
mod metrics;
mod put;
mod service;
mod status;
mod sweep;

pub use blobs::{Blobs, OpenBlobsError};
pub use config::{Config, InvalidConfig};
pub use service::{MediaService, Ports};
