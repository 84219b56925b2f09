// SPDX-License-Identifier: MIT OR Apache-2.0
//! Linking a companion device over a server: the steps of [`pli_client_core::linking`] at a rendezvous.
//!
//! Every call may be repeated, so a lost connection or an edge that goes away costs time, not the link. What the new
//! device is, it is durably before blob 3 leaves, marked as not finished: killed later, it asks the server at its next
//! start whether it was listed ([`resume`]), and works, or begins again with another code. Nor is it finished before the
//! server has said that the handle which it was offered is that account's. An addition that the first device could not put
//! before it was stopped, or in time, is not made later ([`Core::links_ended`](pli_client_core::Core::links_ended)).
//!
//! Whoever says no is heard at the other side at once: each side can look out for that while its person is asked.

mod approve;
mod meeting;
mod offer;
mod profile_mark;
mod proof;
mod resume;

pub use approve::{Approval, Approved};
pub use offer::{NewLink, Offer};
pub use profile_mark::{Standing, standing};
pub use resume::{Resumed, forget, resume};

use pli_api::common;
use pli_client_core::CommandError;
use pli_client_core::linking::{DeviceNameError, LinkError};
use pli_domain::Handle;

use crate::client::CallError;
use crate::{OpenError, ProfileError, RequestError, StorageError, TransportError};

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkFailure {
    /// The profile cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The name cannot be used.
    #[error(transparent)]
    Name(#[from] DeviceNameError),
    /// The server cannot be reached.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The server refused.
    #[error("{}", .0.message)]
    Refused(Box<common::Error>),
    /// The other side, or somebody in between, said something else than it should.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The minute of the code is over.
    #[error("the code has expired: it lives a minute; begin again on the new device")]
    Late,
    /// The caller waits no longer, although the code lives on.
    #[error(
        "not in time: the other device, or who sits there, did not answer while it was waited for; begin again on the new device"
    )]
    NotWaited,
    /// The same, and nobody has read the code.
    #[error("not in time: nobody has read the code; begin again for another one")]
    NotRead,
    /// The same, while the person at this device was asked.
    #[error(
        "not in time: nobody answered the question{}; begin again on the new device",
        if *nor_there { ", neither on this device nor on the new one" } else { " on this device" }
    )]
    NotAnswered {
        /// Nor did the person at the other device.
        nor_there: bool,
    },
    /// The server did not even open or find the rendezvous.
    #[error("not in time: the server did not answer; begin again on the new device when it does")]
    Unanswered,
    /// The same code a second time.
    #[error("the code was used already; begin again on the new device, which shows another one")]
    Used,
    /// The server did not say in time that it has the list; the addition is taken back.
    #[error("the server was not reached in time: the new device is not added; begin again there")]
    Waits,
    /// The device list was not taken.
    #[error("the new device could not be added; the reason stands above")]
    NotListed,
    /// Another account's device read the code.
    #[error("@{came} has read the code, and this is a device of @{asked}; begin again and let @{asked} read it")]
    OtherAccount {
        /// Whose profile this is.
        asked: Handle,
        /// Whose device answered.
        came: Handle,
    },
    /// The core does not take the device.
    #[error(transparent)]
    Command(CommandError),
    /// The client has ended; [`crate::Client::end`] says why.
    #[error("the client has ended")]
    Ended,
}

impl LinkFailure {
    /// Of a call that was lost for good.
    fn of_call(error: CallError) -> Self {
        match error {
            CallError::Refused(why) => Self::Refused(why),
            CallError::Transport(error) => Self::Transport(error),
            CallError::Profile(error) => Self::Open(*error),
            CallError::Ended => Self::Ended,
            CallError::Lost => Self::Transport(TransportError::Closed),
        }
    }
}

impl From<ProfileError> for LinkFailure {
    fn from(error: ProfileError) -> Self {
        Self::Open(error.into())
    }
}

impl From<RequestError> for LinkFailure {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Command(error) => Self::Command(error),
            RequestError::Ended => Self::Ended,
        }
    }
}
