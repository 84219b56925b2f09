// SPDX-License-Identifier: MIT OR Apache-2.0
//! Settings that cannot work.

use tokio::sync::Semaphore;

use super::Config;
use crate::session::hello::version_numbers;

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("edge.{field} {problem}")]
pub struct InvalidConfig {
    /// The field.
    pub field: &'static str,
    /// What is wrong and what would do.
    pub problem: &'static str,
}

impl Config {
    /// Whether the settings can work together; names the first that cannot.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let problem = |field, problem| Err(InvalidConfig { field, problem });
        if let Some(field) = self.zero() {
            return problem(field, "is 0; set at least 1");
        }
        let (session, limits) = (&self.session, &self.limits);
        if session.recheck_min_ms > session.recheck_max_ms {
            return problem("session.recheck_min_ms", "must be at most session.recheck_max_ms");
        }
        if version_numbers(&self.client_version_min).is_none() {
            return problem("client_version_min", "is no version; write three numbers, as 0.1.0");
        }
        let counted = [
            ("limits.edge_connections_max", limits.edge_connections_max),
            ("append.queue_max", self.append.queue_max),
            ("append.entries_in_flight", self.append.entries_in_flight),
        ];
        match counted.into_iter().find(|(_, value)| *value > Semaphore::MAX_PERMITS) {
            Some((field, _)) => problem(field, "is more than can be counted; set at most 2305843009213693951"),
            None => Ok(()),
        }
    }

    /// The first field that must not be 0 and is.
    fn zero(&self) -> Option<&'static str> {
        let (session, append, limits) = (&self.session, &self.append, &self.limits);
        let positive = [
            ("session.hello_ms", session.hello_ms),
            ("session.nonce_ms", session.nonce_ms),
            ("session.frame_ms", session.frame_ms),
            ("session.frame_bytes_per_s", session.frame_bytes_per_s.into()),
            ("session.idle_ms", session.idle_ms),
            ("session.write_stall_ms", session.write_stall_ms),
            ("session.send_window", session.send_window.into()),
            ("session.delivery_window", session.delivery_window.into()),
            ("session.call_window", session.call_window.into()),
            ("session.open_receipts_max", session.open_receipts_max as u64),
            ("session.page_rows", session.page_rows.into()),
            ("session.page_bytes", session.page_bytes.into()),
            ("session.recheck_min_ms", session.recheck_min_ms),
            ("fan_out.window", self.fan_out.window as u64),
            ("append.entries_in_flight", append.entries_in_flight as u64),
            ("append.queue_max", append.queue_max as u64),
            ("append.tries_max", append.tries_max.into()),
            ("append.try_ms", append.try_ms),
            ("limits.edge_connections_max", limits.edge_connections_max as u64),
            ("open_receipts_max", self.open_receipts_max as u64),
            ("owner_request_ms", self.owner_request_ms),
            ("call_ms", self.call_ms),
        ];
        positive.into_iter().find(|(_, value)| *value == 0).map(|(field, _)| field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_work_and_nonsense_is_named() {
        assert_eq!(Config::default().check(), Ok(()));
        type Break = fn(&mut Config);
        let broken: [(&str, Break); 5] = [
            ("session.send_window", |config| config.session.send_window = 0),
            ("session.idle_ms", |config| config.session.idle_ms = 0),
            ("session.recheck_min_ms", |config| config.session.recheck_min_ms = 400_000),
            ("client_version_min", |config| config.client_version_min = "new".into()),
            ("limits.edge_connections_max", |config| config.limits.edge_connections_max = usize::MAX),
        ];
        for (field, breaks) in broken {
            let mut config = Config::default();
            breaks(&mut config);
            assert_eq!(config.check().map_err(|error| error.field), Err(field));
        }
    }
}
