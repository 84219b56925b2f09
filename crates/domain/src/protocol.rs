// SPDX-License-Identifier: MIT OR Apache-2.0
//! The version of what roles in different processes say to each other, over gRPC and over the bus.
//!
//! Messages grow by new fields, which older processes skip. The version rises when that is not enough: when a process
//! must know whether the other one understands something. Every release understands its own version and the one before,
//! so processes are updated one by one; what a process speaks is a setting, so that the newest is spoken when all
//! understand it.

use std::fmt;

/// A version that this program understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoleProtocol(u16);

/// Another process speaks a version that this one does not understand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "version {said} of the protocol between roles is not understood, only {oldest} to {newest}; update all processes, one \
     release at a time",
    oldest = RoleProtocol::OLDEST,
    newest = RoleProtocol::NEWEST
)]
pub struct UnknownProtocol {
    /// What it said, at most 16 characters of it.
    pub said: String,
}

impl RoleProtocol {
    /// The oldest that is understood: processes that say nothing about it.
    pub const OLDEST: Self = Self(1);
    /// The newest.
    pub const NEWEST: Self = Self(2);
    /// Metadata of gRPC calls and header of bus messages in which the version travels, in decimal.
    pub const HEADER: &'static str = "pli-role-protocol";

    /// A version by number; none where it is not understood.
    pub fn new(version: u16) -> Option<Self> {
        let version = Self(version);
        (Self::OLDEST..=Self::NEWEST).contains(&version).then_some(version)
    }

    /// Its number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// What a process that speaks it says in [`RoleProtocol::HEADER`]; the oldest says nothing.
    pub fn said(self) -> Option<String> {
        (self > Self::OLDEST).then(|| self.to_string())
    }

    /// What another process speaks, by its header.
    pub fn heard(header: Option<&str>) -> Result<Self, UnknownProtocol> {
        let Some(said) = header else { return Ok(Self::OLDEST) };
        let known = said.parse().ok().and_then(Self::new);
        known.ok_or_else(|| UnknownProtocol { said: said.chars().take(16).collect() })
    }
}

impl Default for RoleProtocol {
    fn default() -> Self {
        Self::NEWEST
    }
}

impl fmt::Display for RoleProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_heard_as_it_was_said() {
        for version in (1..=2).filter_map(RoleProtocol::new) {
            assert_eq!(RoleProtocol::heard(version.said().as_deref()), Ok(version));
        }
    }

    #[test]
    fn a_version_outside_the_range_is_refused_with_the_range_and_the_fix() {
        for said in ["0", "3", "-1", "two", "", "99999999999999999999"] {
            let text = RoleProtocol::heard(Some(said)).expect_err("not understood").to_string();
            assert!(text.contains("only 1 to 2; update all processes, one release at a time"), "{text}");
            assert!(text.contains(said.get(..16).unwrap_or(said)), "{text}");
        }
        assert_eq!((RoleProtocol::new(0), RoleProtocol::new(3)), (None, None));
    }
}
