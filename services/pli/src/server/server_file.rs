// SPDX-License-Identifier: MIT OR Apache-2.0
//! `server.json` in the data folder: where the server of this folder listens, for clients on the same machine.

use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

pub(super) const FILE: &str = "server.json";

/// What `pli dev` says of itself, in the file and with `--ready-json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFile {
    /// Server info.
    pub url: String,
    /// Host and port of sessions over WebSocket.
    pub address: String,
    /// Host and UDP port of sessions over QUIC, where they are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic: Option<SocketAddr>,
    /// SHA-256 of the certificate in hexadecimal.
    pub fingerprint: String,
    /// Health, metrics, build.
    pub admin: SocketAddr,
    /// The data folder.
    pub data: PathBuf,
    /// The process.
    pub pid: u32,
}

impl ServerFile {
    /// Writes the file, whole or not at all; on a full disk over the old one, whose room it has, but then a crash may leave
    /// half of each.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let (path, fresh) = (folder.join(FILE), folder.join(format!("{FILE}.new")));
        let text = serde_json::to_string_pretty(self)? + "\n";
        let written = match replace(&path, &fresh, &text) {
            Err(full) if matches!(full.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                let _ = std::fs::remove_file(&fresh);
                overwrite(&path, &text).map_err(|_| full)
            }
            other => other,
        };
        written.with_context(|| format!("cannot write {}; make room there, if the disk is full", path.display()))
    }

    /// Reads the file of `folder`; none when no server has run there.
    pub fn read(folder: &Path) -> anyhow::Result<Option<Self>> {
        let path = folder.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let parsed = serde_json::from_str(&text);
                parsed.map(Some).with_context(|| format!("{} cannot be read; start `pli dev` again", path.display()))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The same, of a server whose process exists; the file outlives it.
    pub fn running(folder: &Path) -> anyhow::Result<Option<Self>> {
        Ok(Self::read(folder)?.filter(Self::is_running))
    }

    /// Whether its process exists.
    pub fn is_running(&self) -> bool {
        is_running(self.pid)
    }
}

fn replace(path: &Path, fresh: &Path, text: &str) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(fresh)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(fresh, path)
}

/// Blanks stand for what the old text was longer by, so that nothing has to be given back first.
fn overwrite(path: &Path, text: &str) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
    let before = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(before.max(bytes.len()), b' ');
    file.write_all(&bytes)
}

fn is_running(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| is_there(rustix::process::test_kill_process(pid)))
}

/// What asking for a process without a signal says: one of another user answers that it may not be asked.
fn is_there(probe: Result<(), rustix::io::Errno>) -> bool {
    probe != Err(rustix::io::Errno::SRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_another_user_runs_and_only_one_that_is_gone_does_not() {
        use rustix::io::Errno;
        assert!(is_there(Ok(())) && is_there(Err(Errno::PERM)));
        assert!(!is_there(Err(Errno::SRCH)));
        assert!(is_running(std::process::id()) && is_running(1), "the first process is there, whoever asks");
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(ServerFile::read(folder.path()).expect("nothing"), None);
        let file = ServerFile {
            url: "https://127.0.0.1:1/.well-known/pli".into(),
            address: "127.0.0.1:1".into(),
            quic: Some(SocketAddr::from(([127, 0, 0, 1], 1))),
            fingerprint: "ab".repeat(32),
            admin: SocketAddr::from(([127, 0, 0, 1], 2)),
            data: folder.path().into(),
            pid: 3,
        };
        file.write(folder.path()).expect("written");
        assert_eq!(ServerFile::read(folder.path()).expect("read"), Some(file.clone()));
        for pid in [4_000_000, 5] {
            let again = ServerFile { pid, ..file.clone() };
            let text = serde_json::to_string_pretty(&again).expect("encoded");
            overwrite(&folder.path().join(FILE), &text).expect("written");
            assert_eq!(
                ServerFile::read(folder.path()).expect("read"),
                Some(again),
                "over a longer one and a shorter one"
            );
        }
    }
}
