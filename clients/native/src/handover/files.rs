// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sealed archives in the profile's folder: one that is handed over, and the parts of one that is taken in.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use pli_client_core::archive::PART_BYTES;

use super::HandoverError;

/// What names begin with.
const PREFIX: &str = "history-";

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> HandoverError {
    let path = path.to_path_buf();
    move |source| HandoverError::File { path, source }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// The file of one archive. Whoever has the turn of the profile's client is alone with it.
#[derive(Clone)]
pub(super) struct Sealed {
    path: PathBuf,
}

impl Sealed {
    /// Of an archive; `name` tells it from every other one in the folder.
    pub fn at(folder: &Path, name: &str) -> Self {
        Self { path: folder.join(format!("{PREFIX}{name}")) }
    }

    /// Deletes the files of every other archive of this kind.
    pub fn delete_others(&self, folder: &Path, kind: &str) -> Result<(), HandoverError> {
        for entry in fs::read_dir(folder).map_err(failed(folder))? {
            let path = entry.map_err(failed(folder))?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with(&format!("{PREFIX}{kind}")) && path != self.path {
                fs::remove_file(&path).map_err(failed(&path))?;
            }
        }
        Ok(())
    }

    /// The whole file; none where there is none.
    pub fn read(&self) -> Result<Option<Vec<u8>>, HandoverError> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&self.path)(error)),
        }
    }

    /// Writes the file whole, or nothing of it; durable on return.
    pub fn write(&self, bytes: &[u8]) -> Result<(), HandoverError> {
        let mut part = self.path.clone().into_os_string();
        part.push(".new");
        let part = PathBuf::from(part);
        let write = || -> std::io::Result<()> {
            let mut file = private().write(true).create(true).truncate(true).open(&part)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&part, &self.path)?;
            self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        };
        write().map_err(failed(&self.path))
    }

    /// Deletes the file, if there is one.
    pub fn delete(&self) -> Result<(), HandoverError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(&self.path)(error)),
            _ => Ok(()),
        }
    }

    /// Opens the file to add parts; answers how many whole ones it has. What a kill left of one more is cut off.
    pub fn parts(&self, most: u32) -> Result<(Parts, u32), HandoverError> {
        let open = || -> std::io::Result<(File, u32)> {
            let mut file = private().read(true).write(true).create(true).truncate(false).open(&self.path)?;
            let whole = file.metadata()?.len() / PART_BYTES as u64;
            let whole = u32::try_from(whole).unwrap_or(u32::MAX).min(most);
            file.set_len(u64::from(whole) * PART_BYTES as u64)?;
            file.seek(SeekFrom::End(0))?;
            Ok((file, whole))
        };
        let (file, whole) = open().map_err(failed(&self.path))?;
        Ok((Parts { file, path: self.path.clone() }, whole))
    }
}

/// A file that parts are added to.
pub(super) struct Parts {
    file: File,
    path: PathBuf,
}

impl Parts {
    /// Adds one. What a power cut takes of it does not open and is fetched again.
    pub fn add(&mut self, part: &[u8]) -> Result<(), HandoverError> {
        self.file.write_all(part).map_err(failed(&self.path))
    }

    /// All of them.
    pub fn read(mut self) -> Result<Vec<u8>, HandoverError> {
        let mut bytes = Vec::new();
        let mut read = || -> std::io::Result<usize> {
            self.file.seek(SeekFrom::Start(0))?;
            self.file.read_to_end(&mut bytes)
        };
        read().map_err(failed(&self.path))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_part_is_cut_off_and_others_are_deleted() {
        let folder = tempfile::tempdir().expect("a folder");
        let old = Sealed::at(folder.path(), "in-1");
        old.write(b"old").expect("written");
        let kept = Sealed::at(folder.path(), "out-1");
        kept.write(b"kept").expect("written");
        let file = Sealed::at(folder.path(), "in-2");
        let (mut parts, whole) = file.parts(9).expect("opened");
        assert_eq!(whole, 0);
        parts.add(&[1; PART_BYTES]).expect("added");
        parts.add(&[2; 99]).expect("added");
        drop(parts);
        let (mut parts, whole) = file.parts(9).expect("opened");
        assert_eq!(whole, 1);
        parts.add(&[3; PART_BYTES]).expect("added");
        let all = parts.read().expect("read");
        assert_eq!((all.len(), all[0], all[PART_BYTES]), (2 * PART_BYTES, 1, 3));
        assert_eq!(file.parts(1).expect("opened").1, 1, "never more than the archive has");
        file.delete_others(folder.path(), "in-").expect("deleted");
        assert_eq!((old.read().expect("read"), kept.read().expect("read")), (None, Some(b"kept".to_vec())));
        file.delete().expect("deleted");
        file.delete().expect("nothing to delete");
    }
}
