// SPDX-License-Identifier: MIT OR Apache-2.0
//! Log lines on standard error.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogsConfig {
    /// Directives of tracing's env-filter, for example `info,pli_edge=debug`.
    pub filter: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

impl Default for LogsConfig {
    fn default() -> Self {
        Self { filter: "warn".into(), format: LogFormat::Text }
    }
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Directives that cannot be parsed.
    #[error("logs.filter `{filter}` is not a filter: {source}; an example is info,pli_edge=debug")]
    Filter {
        /// What was given.
        filter: String,
        /// The fault.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process logs already.
    #[error("logging is set up already")]
    Twice,
}

/// Checks the directives without starting anything.
fn filter_of(config: &LogsConfig) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(&config.filter).map_err(|source| LogError::Filter { filter: config.filter.clone(), source })
}

impl LogsConfig {
    /// Whether the filter can be used.
    pub fn check(&self) -> Result<(), LogError> {
        filter_of(self).map(|_| ())
    }
}

/// Starts logging to standard error, once per process; standard output belongs to the command.
pub fn init_logs(config: &LogsConfig) -> Result<(), LogError> {
    let lines = tracing_subscriber::fmt().with_env_filter(filter_of(config)?).with_writer(std::io::stderr);
    // A line that cannot be written is lost: telling so, on the same standard error, would panic.
    let lines = lines.log_internal_errors(false);
    let started = match config.format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    started.map_err(|_| LogError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_parsed_is_named() {
        let config = LogsConfig { filter: "pli=loud".into(), format: LogFormat::Text };
        assert!(config.check().expect_err("no such level").to_string().contains("pli=loud"));
        assert!(LogsConfig::default().check().is_ok());
    }
}
