// SPDX-License-Identifier: MIT OR Apache-2.0
//! The contracts in `proto/` as Rust types, conversions to and from `pli-domain`, and the closed list of error codes.
//!
//! Messages compile everywhere, wasm32 too; gRPC clients and servers stand behind the feature `grpc`. What each rpc
//! and field means is written in the `.proto` files and repeated here by the generator.

#[cfg(feature = "grpc")]
mod caller;
#[cfg(feature = "grpc")]
mod channel;
mod convert;
mod error;
mod fanout;
mod outside;
pub mod quic;
#[cfg(feature = "grpc")]
mod status;

#[cfg(feature = "grpc")]
pub use caller::Caller;
#[cfg(feature = "grpc")]
pub use channel::{Channel, in_process};
pub use convert::{FieldError, address, ids, position};
pub use error::{Action, CODES, CodeDoc, LIMITS, limit_reached, no_room, refusal};
pub use fanout::{device_bytes, fan_out_item, items_by_shard, spread_over};
pub use outside::{Outside, outside};
#[cfg(feature = "grpc")]
pub use status::{error_of_status, reply, status_of_error};

/// The contracts as an encoded `google.protobuf.FileDescriptorSet`, for server reflection.
#[cfg(feature = "grpc")]
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

macro_rules! contract {
    ($($(#[$doc:meta])* $name:ident = $package:literal;)*) => {
        $(
            $(#[$doc])*
            #[allow(missing_docs, clippy::all, clippy::too_many_lines, clippy::unwrap_used, clippy::large_futures)]
            pub mod $name { include!(concat!(env!("OUT_DIR"), "/", $package, ".rs")); }
        )*
    };
}

// The generated modules name each other by package path, so the tree mirrors the packages.
#[allow(missing_docs)]
mod pli {
    pub mod common {
        contract! {
            /// `pli.common.v1`
            v1 = "pli.common.v1";
        }
    }
    pub mod log {
        contract! {
            /// `pli.log.v1`
            v1 = "pli.log.v1";
        }
    }
    pub mod delivery {
        contract! {
            /// `pli.delivery.v1`
            v1 = "pli.delivery.v1";
        }
    }
    pub mod edge {
        contract! {
            /// `pli.edge.v1`
            v1 = "pli.edge.v1";
        }
    }
    pub mod directory {
        contract! {
            /// `pli.directory.v1`
            v1 = "pli.directory.v1";
        }
    }
    pub mod conversations {
        contract! {
            /// `pli.conversations.v1`
            v1 = "pli.conversations.v1";
        }
    }
    pub mod links {
        contract! {
            /// `pli.links.v1`
            v1 = "pli.links.v1";
        }
    }
    pub mod media {
        contract! {
            /// `pli.media.v1`
            v1 = "pli.media.v1";
        }
    }
    pub mod sealed {
        contract! {
            /// `pli.sealed.v1`
            v1 = "pli.sealed.v1";
        }
    }
}

/// `pli.common.v1`: addresses, payload references, errors.
pub use pli::common::v1 as common;
/// `pli.conversations.v1`: groups and their commits.
pub use pli::conversations::v1 as conversations;
/// `pli.delivery.v1`: what edges and shard owners say to each other.
pub use pli::delivery::v1 as delivery;
/// `pli.directory.v1`: accounts, handles, device lists, key packages.
pub use pli::directory::v1 as directory;
/// `pli.edge.v1`: the session protocol.
pub use pli::edge::v1 as edge;
/// `pli.links.v1`: rendezvous.
pub use pli::links::v1 as links;
/// `pli.log.v1`: what is stored.
pub use pli::log::v1 as log;
/// `pli.media.v1`: sealed uploads in parts.
pub use pli::media::v1 as media;
/// `pli.sealed.v1`: what clients say to each other inside an envelope, in the blobs of a link and in archives.
pub use pli::sealed::v1 as sealed;

pub use common::ErrorCode;
