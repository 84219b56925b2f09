// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server says about itself on its monitoring port (`/varz`).

use std::io;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// More than any server's answer.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// The part that is read here.
#[derive(Debug, Deserialize)]
pub(crate) struct Varz {
    #[serde(default)]
    pub server_name: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub jetstream: JetStream,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct JetStream {
    #[serde(default)]
    config: Option<Config>,
    #[serde(default)]
    stats: Option<Stats>,
}

#[derive(Debug, Deserialize)]
struct Config {
    /// Whether every write is synced before it is acknowledged. The proof: `sync_interval` still reads two minutes.
    #[serde(default)]
    sync_always: bool,
    #[serde(default)]
    max_storage: u64,
}

#[derive(Debug, Deserialize)]
struct Stats {
    #[serde(default)]
    storage: u64,
}

impl JetStream {
    pub fn is_on(&self) -> bool {
        self.config.is_some()
    }

    pub fn is_synced(&self) -> bool {
        self.config.as_ref().is_some_and(|config| config.sync_always)
    }

    /// Bytes used and bytes that there are.
    pub fn storage(&self) -> (u64, u64) {
        let used = self.stats.as_ref().map_or(0, |stats| stats.storage);
        (used, self.config.as_ref().map_or(0, |config| config.max_storage))
    }
}

/// Asks `host:port`. HTTP/1.0, so that the answer comes in one piece and ends with the connection (RFC 1945).
pub(crate) async fn varz(address: &str, patience: Duration) -> io::Result<Varz> {
    tokio::time::timeout(patience, ask(address)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn ask(address: &str) -> io::Result<Varz> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET /varz HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not that of NATS monitoring");
    if !answer.starts_with(b"HTTP/1.") || !answer[9.min(answer.len())..].starts_with(b"200") {
        return Err(wrong());
    }
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(wrong)?;
    serde_json::from_slice(&answer[head + 4..]).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synced_storage_is_read_from_what_a_server_prints() {
        // As 2.15.1 prints it, shortened.
        let text = r#"{"server_name":"n1","version":"2.15.1","jetstream":{"config":{"max_storage":1073741824,
            "sync_interval":120000000000,"sync_always":true},"stats":{"storage":7}}}"#;
        let varz: Varz = serde_json::from_str(text).unwrap();
        assert!(varz.jetstream.is_on() && varz.jetstream.is_synced());
        assert_eq!(varz.jetstream.storage(), (7, 1 << 30));
        let varz: Varz = serde_json::from_str(&text.replace("\"sync_always\":true", "\"strict\":true")).unwrap();
        assert!(varz.jetstream.is_on() && !varz.jetstream.is_synced());
        let varz: Varz = serde_json::from_str(r#"{"jetstream":{}}"#).unwrap();
        assert!(!varz.jetstream.is_on());
    }
}
