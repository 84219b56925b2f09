// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reserve: disk space that is given up when the disk is full, so that what frees space can still be written.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tokio::sync::watch;

/// The file that holds the reserve.
pub const RESERVE_FILE: &str = "reserve";

/// The last part of the reserve is an eighth of it.
const LAST_PART: u64 = 8;

/// The reserve of one folder. While it is given up ([`Reserve::held`] is false) the engine refuses growth. Its last part
/// stays until something that frees space finds no room: others on the same disk may have taken the rest.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    folder: PathBuf,
    bytes: u64,
    /// Whether the last part is still there.
    last: bool,
    /// Told to whoever watches, because growth is refused while it is not.
    held: watch::Sender<bool>,
}

impl Reserve {
    /// Takes the reserve if there is room for it.
    pub(crate) fn new(folder: &Path, bytes: u64) -> io::Result<Self> {
        let (path, held) = (folder.join(RESERVE_FILE), watch::Sender::new(false));
        let last = path.exists();
        let mut reserve = Self { path, folder: folder.to_owned(), bytes, last, held };
        if !reserve.take()? {
            tracing::warn!(folder = %folder.display(), "no space left for the reserve; appends are refused");
        }
        Ok(reserve)
    }

    pub(crate) fn held(&self) -> bool {
        *self.held.borrow()
    }

    /// The same, now and from now on.
    pub(crate) fn watched(&self) -> watch::Receiver<bool> {
        self.held.subscribe()
    }

    /// Gives all but the last part back to the file system.
    pub(crate) fn release(&mut self) -> io::Result<()> {
        if self.held.send_replace(false) {
            tracing::warn!(folder = %self.folder.display(), "no space left; appends are refused until there is");
        }
        self.cut()
    }

    /// Gives the last part back too, for what frees space; false when it was given before.
    pub(crate) fn release_last(&mut self) -> io::Result<bool> {
        let given = std::mem::take(&mut self.last);
        self.release().map(|()| given)
    }

    /// Takes the reserve again if half as much stays free beside it; otherwise growth that is let in would only end
    /// here at once.
    pub(crate) fn take(&mut self) -> io::Result<bool> {
        if self.held() {
            return Ok(true);
        }
        let taken = self.allocate()?;
        if taken {
            self.last = true;
            self.held.send_replace(true);
        } else {
            self.cut()?;
        }
        Ok(taken)
    }

    /// Leaves of the file what is not given up.
    fn cut(&self) -> io::Result<()> {
        let cut = if self.last {
            OpenOptions::new().write(true).open(&self.path).and_then(|file| file.set_len(self.bytes / LAST_PART))
        } else {
            fs::remove_file(&self.path)
        };
        match cut {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn allocate(&self) -> io::Result<bool> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path);
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(false),
            other => other?,
        };
        match fallocate(&file, FallocateFlags::empty(), 0, self.bytes.max(1)) {
            Ok(()) => {}
            Err(rustix::io::Errno::NOSPC) => return Ok(false),
            // A file system that cannot reserve: write the bytes.
            Err(rustix::io::Errno::OPNOTSUPP) => return write_zeros(&file, self.bytes),
            Err(error) => return Err(error.into()),
        }
        Ok(self.free()? >= self.bytes / 2)
    }

    /// What the file system of the folder has left, in bytes.
    pub(crate) fn free(&self) -> io::Result<u64> {
        let found = statvfs(&self.folder)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

fn write_zeros(mut file: &fs::File, bytes: u64) -> io::Result<bool> {
    match io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(false),
        other => other.map(|_| true),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_reserve_occupies_blocks_until_it_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::new(dir.path(), 1 << 20).unwrap();
        let watched = reserve.watched();
        assert!(reserve.held() && *watched.borrow());
        assert!(fs::metadata(dir.path().join(RESERVE_FILE)).unwrap().blocks() * 512 >= 1 << 20);
        reserve.release().unwrap();
        reserve.release().unwrap();
        assert!(!reserve.held() && !*watched.borrow());
        let last = fs::metadata(dir.path().join(RESERVE_FILE)).unwrap();
        assert!(last.len() == (1 << 20) / LAST_PART && last.blocks() * 512 >= last.len());
        assert!(reserve.release_last().unwrap() && !reserve.release_last().unwrap());
        assert!(!dir.path().join(RESERVE_FILE).exists());
        assert!(reserve.take().unwrap());
    }

    #[test]
    fn a_reserve_larger_than_the_disk_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::new(dir.path(), 1 << 50);
        // Some file systems call this size too large rather than the disk too small.
        assert!(reserve.map_or(true, |reserve| !reserve.held()));
    }
}
