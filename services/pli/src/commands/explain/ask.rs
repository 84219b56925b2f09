// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asking admin ports for hops.

use futures::future::join_all;
use pli_runtime::trail::{Hop, HopQuery, HopsReport};
use pli_runtime::{AdminAskError, AdminClient};

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
                Err(why) => asked.silent.push(Silent { process, why }),
            }
        }
        asked
    }

    /// Whom to ask more.
    pub fn answered(&self) -> Vec<String> {
        self.answers.iter().map(|answer| answer.process.clone()).collect()
    }

    /// Every hop with the process that noted it.
    pub fn hops(&self) -> impl Iterator<Item = (&str, &Hop)> {
        self.answers.iter().flat_map(|answer| answer.report.hops.iter().map(|hop| (answer.process.as_str(), hop)))
    }
}

async fn ask(process: &str, query: HopQuery) -> Result<HopsReport, String> {
    let path = match query {
        HopQuery::Send(send) => format!("/hops?send={send:016x}"),
        HopQuery::Place(shard, place) => format!("/hops?shard={shard}&place={place}"),
    };
    AdminClient::new(process).json(&path).await.map_err(|error| match error {
        AdminAskError::Status { status: 404, .. } => {
            "it has no hops to ask for; it is an older version, or no Pli admin port".to_owned()
        }
        error => error.to_string(),
    })
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
        let again = Asked::all(&asked.answered(), HopQuery::Place(3, 1024)).await;
        assert_eq!((again.hops().count(), again.silent.len()), (1, 0), "who did not answer is not asked again");
        stop.cancel();
        running.await.expect("joins").expect("ends well");
    }
}
