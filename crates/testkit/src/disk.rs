// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks that are really small.
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory (tmpfs), unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    parent: tempfile::TempDir,
}

impl SmallDisk {
    /// One of `size` (`32m`). None, and a line that says so, where mounting is not permitted.
    ///
    /// # Panics
    ///
    /// Without a temporary folder.
    pub fn mount(size: &str) -> Option<Self> {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(parent.path());
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self { parent }),
            Ok(output) => skip(&String::from_utf8_lossy(&output.stderr)),
            Err(error) => skip(&error.to_string()),
        }
    }

    /// Its root.
    pub fn root(&self) -> &Path {
        self.parent.path()
    }

    /// A folder on it that does not exist yet.
    pub fn dir(&self) -> PathBuf {
        self.root().join("data")
    }

    /// Mounts it again with other options.
    ///
    /// # Panics
    ///
    /// When that is not permitted.
    pub fn remount(&self, how: &str) {
        let mount = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(self.root()).status();
        assert!(mount.expect("mount runs").success());
    }

    /// Fills what is left with one file, somebody else's; answers its path.
    ///
    /// # Panics
    ///
    /// When the disk does not get full.
    pub fn fill(&self) -> PathBuf {
        let path = self.root().join("ballast");
        let mut file = std::fs::File::create(&path).expect("a file");
        let full = std::io::copy(&mut std::io::repeat(1), &mut file).expect_err("the disk gets full");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        path
    }
}

fn skip<T>(why: &str) -> Option<T> {
    // The harness names a test's thread after it.
    let test = std::thread::current().name().unwrap_or("a test").to_string();
    println!("skipped: {test}: no file system can be mounted here ({})", why.trim());
    None
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: an engine that a failed test left open must not keep the mount.
        let _ = Command::new("umount").arg("-l").arg(self.root()).status();
    }
}
