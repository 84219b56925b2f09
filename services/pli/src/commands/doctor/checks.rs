// SPDX-License-Identifier: MIT OR Apache-2.0
//! The checks of `pli doctor`.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pli_runtime::AdminClient;
use rustix::process::{Resource, getrlimit};
use tokio::net::TcpListener;

use super::{cluster, data, finding::Finding};
use crate::config::{Config, EngineKind};
use crate::server::server_file::ServerFile;

/// Below this a server soon refuses messages.
const DISK_FAULT_BYTES: u64 = 64 * 1024 * 1024;
/// Below this it is time to act.
const DISK_WARNING_BYTES: u64 = 1024 * 1024 * 1024;
/// Sessions are file descriptors; below this many a server is soon full.
const FILES_WARNING: u64 = 4_096;
/// A file this far in the future says that the clock went back.
const CLOCK_SLACK: Duration = Duration::from_secs(5);
/// This program is not older than that (2026-01-01), so no right clock shows less.
const CLOCK_MIN: Duration = Duration::from_secs(1_767_225_600);

/// Every check, in the order of the help text.
pub async fn all(config: &Config) -> Vec<Finding> {
    let server = &config.server;
    let running = ServerFile::running(&server.data).ok().flatten();
    let (sessions, admin) = addresses(config, running.as_ref());
    let mut findings = match running.is_none() && config.engine.kind == EngineKind::Cluster && is_served(admin).await {
        // Which roles it has stands on its command line; what it could not listen on it has said itself.
        true => {
            vec![Finding::fine("ports", format!("a process of this configuration runs: its admin port is {admin}"))]
        }
        false => vec![
            port("port", sessions, running.as_ref()).await,
            port("admin port", admin, running.as_ref()).await,
            quic_port(config, running.as_ref()),
        ],
    };
    findings.extend([clock(&server.data), disk(&server.data), file_limit(), data::modes(&server.data)]);
    match config.engine.kind {
        EngineKind::Embedded => {
            findings.push(data::version(&server.data));
            findings.push(data::engine(&server.data, running.as_ref()).await);
        }
        EngineKind::Cluster => findings.extend(cluster::all(config).await),
    }
    findings
}

/// Whether the admin port of a process of ours answers there.
async fn is_served(admin: SocketAddr) -> bool {
    let asked = AdminClient::new(admin.to_string()).patience(Duration::from_secs(1)).get("/metrics").await;
    asked.is_ok_and(|answer| answer.status == 200 && answer.text().contains("pli_"))
}

/// Where the folder's server listens; of one that does not run, where it would.
fn addresses(config: &Config, running: Option<&ServerFile>) -> (SocketAddr, SocketAddr) {
    let server = &config.server;
    let sessions = running.and_then(|file| file.address.parse().ok());
    let sessions = sessions.unwrap_or_else(|| SocketAddr::new(server.host, server.port));
    let admin = running.map(|file| file.admin);
    (sessions, admin.unwrap_or_else(|| SocketAddr::new(server.admin_host, server.admin_port)))
}

async fn port(name: &'static str, address: SocketAddr, running: Option<&ServerFile>) -> Finding {
    let served = |file: &&ServerFile| file.address == address.to_string() || file.admin == address;
    match (TcpListener::bind(address).await, running.filter(served)) {
        (Ok(_), _) => Finding::fine(name, format!("{address} is free")),
        (Err(_), Some(file)) => {
            Finding::fine(name, format!("{address} is served by this folder's server, process {}", file.pid))
        }
        (Err(error), None) => {
            let (flag, setting) =
                if name == "port" { ("--port", "server.port") } else { ("--admin-port", "server.admin_port") };
            Finding::fault(
                name,
                format!("{address}: {error}"),
                format!(
                    "end the process that listens there, or choose another number ({flag} of `pli dev`, or {setting})"
                ),
            )
        }
    }
}

/// Where sessions over QUIC are served, or would be.
fn quic_port(config: &Config, running: Option<&ServerFile>) -> Finding {
    let server = &config.server;
    if !server.quic {
        return Finding::fine("QUIC port", "server.quic is false: sessions over WebSocket alone");
    }
    if let Some((file, address)) = running.and_then(|file| Some((file, file.quic?))) {
        return Finding::fine(
            "QUIC port",
            format!("{address} is served by this folder's server, process {}", file.pid),
        );
    }
    let port = if server.quic_port == 0 { server.port } else { server.quic_port };
    let address = SocketAddr::new(server.host, port);
    match UdpSocket::bind(address) {
        Ok(_) => Finding::fine("QUIC port", format!("{address} (UDP) is free")),
        Err(error) => Finding::fault(
            "QUIC port",
            format!("{address} (UDP): {error}"),
            "end the process that listens there, choose another port with server.quic_port, or set server.quic to false",
        ),
    }
}

fn clock(data: &Path) -> Finding {
    let now = SystemTime::now();
    if now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() < CLOCK_MIN {
        return Finding::fault(
            "clock",
            "the clock shows a year before 2026",
            "set the clock (chrony or systemd-timesyncd)",
        );
    }
    let newest = std::fs::read_dir(data).into_iter().flatten().flatten();
    let newest = newest.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max();
    let ahead = newest.and_then(|newest| newest.duration_since(now).ok()).unwrap_or_default();
    if ahead > CLOCK_SLACK {
        let seen = format!("a file in the data folder is {} s in the future: the clock went back", ahead.as_secs());
        return Finding::warning(
            "clock",
            seen,
            "set the clock (chrony or systemd-timesyncd); messages expire late until then",
        );
    }
    Finding::fine("clock", "plausible, and not behind the data folder")
}

fn disk(data: &Path) -> Finding {
    let folder = nearest_existing(data);
    let free = match rustix::fs::statvfs(&folder) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => {
            return Finding::fault("disk", format!("{}: {error}", folder.display()), "make the folder readable");
        }
    };
    let seen = format!("{} MiB free at {}", free / (1024 * 1024), folder.display());
    if free < DISK_FAULT_BYTES {
        Finding::fault("disk", seen, "free some space: appends are refused when the disk is full")
    } else if free < DISK_WARNING_BYTES {
        Finding::warning("disk", seen, "free some space, or move the data folder with --data")
    } else {
        Finding::fine("disk", seen)
    }
}

/// The folder itself, or the nearest one above it that exists.
fn nearest_existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    absolute.ancestors().find(|path| path.exists()).map_or_else(|| PathBuf::from("/"), Path::to_path_buf)
}

fn file_limit() -> Finding {
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < FILES_WARNING => Finding::warning(
            "open files",
            format!("at most {limit}: every session takes one"),
            "raise it: `ulimit -n 65536`, or LimitNOFILE=65536 in the systemd unit",
        ),
        Some(limit) => Finding::fine("open files", format!("at most {limit}")),
        None => Finding::fine("open files", "no limit"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_a_fault_with_a_fix() {
        let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let number = taken.local_addr().expect("bound").port();
        let finding = port("port", SocketAddr::from(([127, 0, 0, 1], number)), None).await;
        assert_eq!(finding.level, Level::Fault);
        assert!(finding.fix.expect("a fix").contains("--port"));
    }

    #[test]
    fn a_taken_udp_port_is_a_fault_with_a_fix_unless_nothing_is_served_there() {
        let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let mut config = Config::default();
        config.server.quic_port = taken.local_addr().expect("bound").port();
        let finding = quic_port(&config, None);
        assert_eq!(finding.level, Level::Fault);
        assert!(finding.fix.expect("a fix").contains("server.quic_port"));
        config.server.quic = false;
        assert_eq!(quic_port(&config, None).level, Level::Fine);
    }

    #[test]
    fn a_file_in_the_future_tells_that_the_clock_went_back() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(clock(folder.path()).level, Level::Fine);
        let file = std::fs::File::create(folder.path().join("x")).expect("a file");
        file.set_modified(SystemTime::now() + Duration::from_secs(3_600)).expect("set");
        assert_eq!(clock(folder.path()).level, Level::Warning);
    }

    #[test]
    fn the_disk_below_a_folder_that_does_not_exist_yet_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(disk(&folder.path().join("not/yet")).seen.contains(&folder.path().display().to_string()));
    }
}
