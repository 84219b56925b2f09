// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an engine may answer besides a result.

use std::error::Error;

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same call may succeed later; its outcome is unknown, so it may also have succeeded already.
    Later,
    /// There was no room, and nothing was written. The same call may succeed when there is room again; one that needs
    /// less may succeed sooner. Only engines that can tell answer it.
    Room,
    /// It will not succeed before an operator acts.
    Never,
}

/// An engine could not do, or could not tell whether it did, what it was asked. Port methods are idempotent unless their
/// documentation says otherwise, so the answer to [`Retry::Later`] is to call again with the same arguments, and to
/// [`Retry::Room`] the same or less. Otherwise it is for [`crate::DeviceQueues::put_mark`], which must not be repeated, and
/// for [`crate::DeviceQueues::take_mark`] and [`crate::Accounts::claim_key_package`], which may have spent what they take.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed")]
pub struct StoreError {
    /// What was asked, in the words of the port.
    pub operation: &'static str,
    /// Whether trying again can help.
    pub retry: Retry,
    /// What the engine said.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl StoreError {
    /// An error after which the same call may succeed.
    pub fn later(operation: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { operation, retry: Retry::Later, source: source.into() }
    }
    /// An error after which the same call may succeed when there is room.
    pub fn no_room(operation: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { operation, retry: Retry::Room, source: source.into() }
    }
    /// An error that needs an operator.
    pub fn never(operation: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { operation, retry: Retry::Never, source: source.into() }
    }
}
