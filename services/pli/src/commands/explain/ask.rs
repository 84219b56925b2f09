// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asking admin ports for hops.

use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::join_all;
use pli_runtime::trail::{Hop, HopQuery, HopsReport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one process may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Most bytes of an answer: 1,024 hops are about 150 KB.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A process that answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its admin port.
    pub process: String,
    /// What it knows.
    pub report: HopsReport,
}

/// One that did not.
#[derive(Debug, Clone)]
pub struct Silent {
    /// Its admin port.
    pub process: String,
    /// What went wrong.
    pub why: String,
}

/// What all processes said to one question.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// In the order asked.
    pub answers: Vec<Answer>,
    /// In the order asked.
    pub silent: Vec<Silent>,
}

impl Asked {
    /// Asks all of them at once.
    pub async fn all(processes: &[String], query: HopQuery) -> Self {
        let mut asked = Self::default();
        let each = processes.iter().map(|process| async move { (process.clone(), ask(process, query).await) });
        for (process, answer) in join_all(each).await {
            match answer {
                Ok(report) => asked.answers.push(Answer { process, report }),
                Err(error) => asked.silent.push(Silent { process, why: format!("{error:#}") }),
            }
        }
        asked
    }

    /// Every hop with the process that noted it.
    pub fn hops(&self) -> impl Iterator<Item = (&str, &Hop)> {
        self.answers.iter().flat_map(|answer| answer.report.hops.iter().map(|hop| (answer.process.as_str(), hop)))
    }
}

async fn ask(process: &str, query: HopQuery) -> anyhow::Result<HopsReport> {
    let path = match query {
        HopQuery::Send(send) => format!("/hops?send={send:016x}"),
        HopQuery::Place(shard, place) => format!("/hops?shard={shard}&place={place}"),
    };
    let answer = timeout(ANSWER_WITHIN, get(process, &path)).await;
    let answer = answer.map_err(|_| anyhow::anyhow!("no answer within {} s", ANSWER_WITHIN.as_secs()))??;
    serde_json::from_slice(&answer).context("its answer is not that of a Pli admin port of this version")
}

/// The body of the answer to one GET, on a connection of its own.
async fn get(process: &str, path: &str) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(process).await.context("cannot connect")?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {process}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut said = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut said).await?;
    let head = said.windows(4).position(|end| end == b"\r\n\r\n").context("its answer is not HTTP")?;
    let status = String::from_utf8_lossy(said.get(9..12).unwrap_or_default()).into_owned();
    match status.as_str() {
        "200" => Ok(said.split_off(head + 4)),
        "404" => bail!("it has no hops to ask for; it is an older version, or no Pli admin port"),
        _ => bail!("it answered with status {status}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use pli_runtime::trail::{HopKind, Hops};
    use pli_runtime::{AdminServer, BuildInfo, Health, Telemetry};
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn who_answers_and_who_does_not_is_told_apart() {
        let hops = Hops::new(8);
        hops.note(Hop { at_ms: 1, kind: HopKind::Accepted, shard: 3, place: 1024, first: 7, second: 8 });
        let (telemetry, build) = (Telemetry::new("pli").expect("metrics"), BuildInfo::new("pli", "1"));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = AdminServer::bind(any, Health::default(), telemetry, hops, build).await.expect("a free port");
        let there = server.local_addr().to_string();
        let stop = CancellationToken::new();
        let running = tokio::spawn(server.run(stop.clone()));
        let closed = tokio::net::TcpListener::bind(any).await.expect("a free port").local_addr().expect("bound");
        let asked = Asked::all(&[there.clone(), closed.to_string()], HopQuery::Send(7)).await;
        assert_eq!(
            asked.hops().map(|(process, hop)| (process, hop.place)).collect::<Vec<_>>(),
            [(there.as_str(), 1024)]
        );
        assert_eq!(asked.silent.len(), 1);
        assert!(asked.silent[0].why.contains("cannot connect"), "{:?}", asked.silent);
        assert_eq!(Asked::all(&[there], HopQuery::Place(3, 1024)).await.hops().count(), 1);
        stop.cancel();
        running.await.expect("joins").expect("ends well");
    }
}
