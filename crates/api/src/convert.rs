// SPDX-License-Identifier: MIT OR Apache-2.0
//! From wire to domain types, with errors that name the field.

use bytes::Bytes;
use pli_domain::{Class, DeviceAddress, InvalidId, Position};

use crate::{common, log};

/// A field of a message that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// An id without exactly 16 bytes.
    #[error("{0} must have 16 bytes")]
    Id(&'static str),
    /// A message field that must be present.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A position with its top bit set.
    #[error("{0} is not a position")]
    Position(&'static str),
}

/// Conversions of ids from `bytes` fields; each names the field in its error.
pub mod ids {
    use super::{Bytes, FieldError};

    /// The id in `bytes`, or an error that names `field`.
    pub fn from<'a, T: TryFrom<&'a [u8]>>(field: &'static str, bytes: &'a Bytes) -> Result<T, FieldError> {
        T::try_from(bytes.as_ref()).map_err(|_| FieldError::Id(field))
    }
}

/// The address in an optional message field, or an error that names `field`.
pub fn address(field: &'static str, value: Option<&common::DeviceAddress>) -> Result<DeviceAddress, FieldError> {
    let value = value.ok_or(FieldError::Missing(field))?;
    DeviceAddress::try_from(value).map_err(|_| FieldError::Id(field))
}

/// The position in a field, or an error that names `field`.
pub fn position(field: &'static str, value: u64) -> Result<Position, FieldError> {
    Position::from_u64(value).map_err(|_| FieldError::Position(field))
}

impl TryFrom<&common::DeviceAddress> for DeviceAddress {
    type Error = InvalidId;
    fn try_from(value: &common::DeviceAddress) -> Result<Self, InvalidId> {
        Ok(Self { account: value.account.as_ref().try_into()?, device: value.device.as_ref().try_into()? })
    }
}

impl From<DeviceAddress> for common::DeviceAddress {
    fn from(value: DeviceAddress) -> Self {
        Self {
            account: Bytes::copy_from_slice(value.account.as_bytes()),
            device: Bytes::copy_from_slice(value.device.as_bytes()),
        }
    }
}

impl From<Class> for log::Class {
    fn from(value: Class) -> Self {
        match value {
            Class::Live => Self::Live,
            Class::Urgent => Self::Urgent,
            Class::Message => Self::Message,
            Class::Tick => Self::Tick,
        }
    }
}

impl From<log::Class> for Class {
    /// An unspecified class is an ordinary message.
    fn from(value: log::Class) -> Self {
        match value {
            log::Class::Live => Self::Live,
            log::Class::Urgent => Self::Urgent,
            log::Class::Tick => Self::Tick,
            log::Class::Message | log::Class::Unspecified => Self::Message,
        }
    }
}
