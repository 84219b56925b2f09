// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is running.

use serde::Serialize;

/// Name, version and kind of the running binary, as the admin port and `--version` show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BuildInfo {
    /// The binary.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// `debug` or `release`.
    pub profile: &'static str,
    /// Operating system and processor.
    pub target: &'static str,
}

impl BuildInfo {
    /// The build of this name and version.
    pub const fn new(name: &'static str, version: &'static str) -> Self {
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        Self { name, version, profile, target: target() }
    }
}

const fn target() -> &'static str {
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        "x86_64-linux"
    } else if cfg!(all(target_os = "linux", target_arch = "aarch64")) {
        "aarch64-linux"
    } else {
        "other"
    }
}
