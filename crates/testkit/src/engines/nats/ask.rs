// SPDX-License-Identifier: MIT OR Apache-2.0
//! One question to a server by hand, in the text protocol of NATS: for breaking what an engine stands on.

use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// An answer comes by then or not at all.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// Asks the JetStream API (`STREAM.INFO.<stream>`) and answers what it says; its refusals are errors.
pub async fn ask(server: &str, what: &str, question: &Value) -> io::Result<Value> {
    let (subject, payload) = (format!("$JS.API.{what}"), question.to_string());
    let asking = timeout(ANSWERED_WITHIN, request(server, &subject, &payload));
    let bytes = asking.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let answer: Value = serde_json::from_slice(&bytes)?;
    match answer.get("error") {
        Some(error) => Err(io::Error::other(format!("{what}: {error}"))),
        None => Ok(answer),
    }
}

async fn request(server: &str, subject: &str, payload: &str) -> io::Result<Vec<u8>> {
    let mut stream = BufReader::new(TcpStream::connect(server).await?);
    let (inbox, length) = (format!("_INBOX.{:032x}", rand::random::<u128>()), payload.len());
    let said = format!(
        "CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {inbox} 1\r\nPUB {subject} {inbox} {length}\r\n{payload}\r\n"
    );
    stream.write_all(said.as_bytes()).await?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.starts_with("-ERR") {
            return Err(io::Error::other(line));
        }
        // MSG <subject> <subscription> [reply] <bytes>
        let Some(message) = line.strip_prefix("MSG ") else { continue };
        let length = message.split_whitespace().last().and_then(|length| length.parse().ok()).unwrap_or(usize::MAX);
        if length > ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).await?;
        return Ok(bytes);
    }
}
