// SPDX-License-Identifier: MIT OR Apache-2.0
//! The data folder's version and the engine's health.

use std::path::Path;
use std::time::Duration;

use pli_runtime::AdminClient;

use super::finding::Finding;
use crate::server::data_folder::{FolderState, inspect, open_to_others};
use crate::server::server_file::ServerFile;

const NAME: &str = "data folder";
const MODES: &str = "file modes";
const ENGINE: &str = "engine";
/// A healthy server answers its admin port well within this.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Whether this program can use the folder.
pub fn version(folder: &Path) -> Finding {
    let path = folder.display();
    match inspect(folder) {
        FolderState::Absent => Finding::fine(NAME, format!("{path} does not exist; the first start makes it")),
        FolderState::Empty => Finding::fine(NAME, format!("{path} holds no data of pli; the first start adds it")),
        FolderState::Version(found) => Finding::fine(NAME, format!("{path} has version {found}")),
        FolderState::NotAFolder => {
            Finding::fault(NAME, format!("{path} is not a folder"), "name another one with --data")
        }
        FolderState::ReadOnly => Finding::fault(
            NAME,
            format!("{path} cannot be written by this user"),
            format!("run `chown -R \"$USER\" {path}`, or name another folder with --data"),
        ),
        FolderState::Newer(found) => Finding::fault(
            NAME,
            format!("{path} has version {found}, written by a newer pli"),
            "run the version that wrote it, or name another folder with --data",
        ),
        FolderState::DatabaseGone => Finding::fault(
            NAME,
            format!("{path} has lost its database: pli.db is missing or empty"),
            "restore a backup with `pli restore --replace`, or name another folder with --data",
        ),
        FolderState::Unstamped => Finding::fault(
            NAME,
            format!("{path} holds a database without a readable VERSION"),
            "restore a backup with `pli restore --replace`, or name another one with --data",
        ),
    }
}

/// Whether the folder and its files are for their owner alone.
pub fn modes(folder: &Path) -> Finding {
    match open_to_others(folder).as_slice() {
        [] => Finding::fine(MODES, "for their owner alone"),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            let all: Vec<String> = [first].into_iter().chain(rest).map(|path| path.display().to_string()).collect();
            Finding::warning(
                MODES,
                format!("others may use {}{more}", first.display()),
                format!("run `chmod go= {}`", all.join(" ")),
            )
        }
    }
}

/// The running server's own word, else what the database says of itself.
pub async fn engine(folder: &Path, running: Option<&ServerFile>) -> Finding {
    if let Some(server) = running {
        let client = AdminClient::new(server.admin.to_string()).patience(ANSWER_WITHIN);
        return match client.get("/readyz").await {
            Ok(answer) if answer.status == 200 => {
                Finding::fine(ENGINE, format!("process {} says that it is ready", server.pid))
            }
            Ok(answer) => {
                let seen = format!("process {} is not ready: {}", server.pid, answer.text().trim_end());
                Finding::fault(ENGINE, seen, "look at its log")
            }
            Err(error) => Finding::fault(
                ENGINE,
                format!("process {} does not answer at its admin port: {error}", server.pid),
                "look at its log, and start it again if it hangs",
            ),
        };
    }
    let folder = folder.to_path_buf();
    let checked = tokio::task::spawn_blocking(move || pli_engine_embedded::check_database(&folder)).await;
    match checked {
        Ok(Ok(true)) => Finding::fine(ENGINE, "the database is whole"),
        Ok(Ok(false)) => Finding::fine(ENGINE, "there is no database yet"),
        Ok(Err(error)) => Finding::fault(ENGINE, error.to_string(), "restore a backup with `pli restore --replace`"),
        Err(error) => Finding::fault(ENGINE, error.to_string(), "report this as a defect"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_a_fault() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let admin = listener.local_addr().expect("bound");
        drop(listener);
        let server = ServerFile {
            url: String::new(),
            address: String::new(),
            quic: None,
            fingerprint: String::new(),
            admin,
            data: "x".into(),
            pid: 7,
        };
        assert_eq!(engine(Path::new("x"), Some(&server)).await.level, Level::Fault);
    }

    #[test]
    fn a_newer_folder_is_a_fault_with_a_fix() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("VERSION"), "99\n").expect("written");
        let finding = version(folder.path());
        assert_eq!(finding.level, Level::Fault);
        assert!(finding.fix.expect("a fix").contains("--data"));
    }

    #[test]
    fn a_file_that_others_may_read_is_named_with_its_fix() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).expect("set");
        assert_eq!(modes(folder.path()).level, Level::Fine);
        let file = folder.path().join("pli.db-wal");
        std::fs::write(&file, "x").expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("set");
        let finding = modes(folder.path());
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.fix.expect("a fix").contains("pli.db-wal"));
    }

    #[test]
    fn a_folder_that_holds_nothing_of_pli_is_not_to_be_closed_to_others() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("set");
        assert_eq!(modes(folder.path()).level, Level::Fine);
        std::fs::write(folder.path().join("VERSION"), "1\n").expect("written");
        assert_eq!(modes(folder.path()).level, Level::Warning);
    }

    #[test]
    fn a_folder_that_lost_its_database_is_a_fault() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("VERSION"), format!("1\n{}\n", "0".repeat(32))).expect("written");
        assert_eq!(version(folder.path()).level, Level::Fault);
    }
}
