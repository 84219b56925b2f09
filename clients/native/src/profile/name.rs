// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a profile is called: a handle, or a handle and what one of its companion devices is called here.

use std::fmt;
use std::str::FromStr;

use pli_domain::{Handle, InvalidHandle};

/// Longest label.
const LABEL_BYTES_MAX: usize = 32;

/// Text that names no profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProfileName {
    /// Before the slash.
    #[error(transparent)]
    Handle(#[from] InvalidHandle),
    /// Behind the slash.
    #[error(
        "a device's profile is HANDLE/NAME, and NAME has 1 to {LABEL_BYTES_MAX} of a-z 0-9 . _ -, the first of them a letter or digit"
    )]
    Label,
}

/// What a companion device's profile is called on this computer; lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeviceLabel(String);

impl fmt::Display for DeviceLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DeviceLabel {
    type Err = InvalidProfileName;
    fn from_str(text: &str) -> Result<Self, InvalidProfileName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let fits = begins && text.len() <= LABEL_BYTES_MAX && text.bytes().all(allowed);
        if fits { Ok(Self(text.to_ascii_lowercase())) } else { Err(InvalidProfileName::Label) }
    }
}

/// `alice`, `@alice`, or `alice/laptop`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProfileName {
    /// Whose.
    pub handle: Handle,
    /// Of which companion device; none for the device that registers the handle.
    pub device: Option<DeviceLabel>,
}

impl ProfileName {
    /// HANDLE, or HANDLE+LABEL of a companion device.
    pub(crate) fn folder_name(&self) -> String {
        match &self.device {
            None => self.handle.to_string(),
            Some(device) => format!("{}+{device}", self.handle),
        }
    }
}

impl From<Handle> for ProfileName {
    fn from(handle: Handle) -> Self {
        Self { handle, device: None }
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.device {
            None => write!(f, "{}", self.handle),
            Some(device) => write!(f, "{}/{device}", self.handle),
        }
    }
}

impl FromStr for ProfileName {
    type Err = InvalidProfileName;
    fn from_str(text: &str) -> Result<Self, InvalidProfileName> {
        let text = text.strip_prefix('@').unwrap_or(text);
        let (handle, device) = text.split_once('/').map_or((text, None), |(handle, device)| (handle, Some(device)));
        Ok(Self { handle: handle.parse()?, device: device.map(str::parse).transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_named_by_handle_and_device() {
        let shown = |text: &str| text.parse::<ProfileName>().map(|name| name.to_string());
        assert_eq!(shown("@Alice"), Ok("alice".into()));
        assert_eq!(shown("alice/Laptop-2"), Ok("alice/laptop-2".into()));
        for text in ["alice/", "alice/..", "alice/a/b", "alice/-x", "alice/a b", &format!("alice/{}", "x".repeat(33))] {
            assert_eq!(shown(text), Err(InvalidProfileName::Label), "{text}");
        }
        assert!(matches!(shown("a/laptop"), Err(InvalidProfileName::Handle(_))));
    }
}
