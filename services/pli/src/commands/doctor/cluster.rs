// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `pli doctor` asks the servers of a cluster.

use std::time::Duration;

use pli_engine_nats::NatsEngine;
use pli_ports::{Clock, SystemClock};

use super::finding::Finding;
use crate::config::Config;
use crate::exit::{Failure, with_causes};

const NATS: &str = "nats";
const CQL: &str = "cql";
const CLOCKS: &str = "clocks";
/// Removing a device and LWT use the wall clock; further apart than this they go wrong.
const SKEW_MAX: Duration = Duration::from_secs(60);

/// NATS, CQL, and whether their clock is near ours.
pub async fn all(config: &Config) -> Vec<Finding> {
    let mut findings = nats(config).await;
    findings.extend(cql(config).await);
    findings
}

async fn nats(config: &Config) -> Vec<Finding> {
    let options = match config.nats.options(config.engine.shards, vec![pli_engine_nats::Role::Operator]) {
        Ok(options) => options,
        Err(Failure { error, .. }) => return vec![fault(NATS, &error.to_string())],
    };
    let nats = match NatsEngine::connect(options).await {
        Ok(nats) => nats,
        Err(error) => return vec![fault(NATS, &with_causes(&error))],
    };
    let report = nats.check().await;
    let mut findings: Vec<_> = report.problems.iter().map(|problem| fault(NATS, &with_causes(problem))).collect();
    findings.extend(report.warnings.iter().map(|warning| {
        let (seen, fix) = split(&with_causes(warning));
        Finding::warning(NATS, seen, fix)
    }));
    if report.problems.is_empty()
        && let Err(error) = nats.shard_map().await
    {
        findings.push(fault(NATS, &with_causes(&error)));
    }
    nats.close().await;
    if findings.is_empty() {
        let seen = format!("{} streams with {} synced replicas", config.nats.streams, config.nats.replicas);
        findings.push(Finding::fine(NATS, seen));
    }
    findings
}

async fn cql(config: &Config) -> Vec<Finding> {
    let options = match config.cql.options() {
        Ok(options) => options,
        Err(Failure { error, .. }) => return vec![fault(CQL, &error.to_string())],
    };
    if let Err(error) = pli_engine_cql::check(&options).await {
        return vec![fault(CQL, &with_causes(&error))];
    }
    let fine = format!("keyspace {}, schema version {}", options.keyspace, pli_engine_cql::SCHEMA_VERSION);
    let mut findings = vec![Finding::fine(CQL, fine)];
    findings.push(match pli_engine_cql::server_time(&options).await {
        Ok(theirs) => clocks(SystemClock.now().0, theirs.0),
        Err(error) => fault(CLOCKS, &with_causes(&error)),
    });
    findings
}

/// Both in milliseconds since 1970.
fn clocks(ours: u64, theirs: u64) -> Finding {
    let apart = Duration::from_millis(ours.abs_diff(theirs));
    let seen = format!("this machine and the database are {:.1} s apart", apart.as_secs_f64());
    if apart > SKEW_MAX {
        return Finding::fault(CLOCKS, seen, "set both clocks (chrony or systemd-timesyncd)");
    }
    Finding::fine(CLOCKS, seen)
}

fn fault(name: &'static str, text: &str) -> Finding {
    let (seen, fix) = split(text);
    Finding::fault(name, seen, fix)
}

/// Errors of the engines say what is wrong, then the fix, with a semicolon between.
fn split(text: &str) -> (String, String) {
    match text.split_once("; ") {
        Some((seen, fix)) => (seen.to_string(), fix.to_string()),
        None => (text.to_string(), "see docs/operations.md".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[tokio::test]
    async fn servers_that_do_not_answer_are_faults_with_a_fix() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let mut config = Config::default();
        config.nats.servers = vec![format!("nats://127.0.0.1:{port}")];
        config.cql.contact_points = vec![format!("127.0.0.1:{port}")];
        let findings = all(&config).await;
        assert_eq!(findings.len(), 2, "{findings:?}");
        for finding in findings {
            assert_eq!(finding.level, Level::Fault);
            assert!(finding.fix.is_some_and(|fix| fix.contains("address") || fix.contains("start it")));
        }
    }

    #[tokio::test]
    async fn a_cluster_without_addresses_is_told_by_key() {
        let findings = all(&Config::default()).await;
        let seen: Vec<_> = findings.iter().map(|finding| finding.seen.as_str()).collect();
        assert_eq!(seen, ["nats.servers is empty", "cql.contact_points is empty"]);
    }

    #[test]
    fn clocks_far_apart_are_a_fault() {
        assert_eq!(clocks(100_000, 130_000).level, Level::Fine);
        assert_eq!(clocks(100_000, 3_700_000).level, Level::Fault);
    }
}
