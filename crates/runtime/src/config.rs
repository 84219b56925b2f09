// SPDX-License-Identifier: MIT OR Apache-2.0
//! One way to configure: defaults < TOML file < environment < flags; a key that nothing reads is an error.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ::config::{Config, Environment, File, FileFormat};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Environment variables of the configuration begin so.
const PREFIX: &str = "PLI";
/// Stands between the levels of a key in an environment variable: `PLI_EDGE__LISTEN` is `edge.listen`. A variable
/// without it (`PLI_HOME`) belongs to a command line flag, not to the configuration.
const SEPARATOR: &str = "__";

/// Why a configuration cannot be used; each message names the key or the place.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The named file cannot be read.
    #[error("cannot read the configuration file {path}: {source}; name an existing file with --config")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML, or holds a key or value that nothing reads.
    #[error("{path}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// Line, column and fault.
        message: String,
    },
    /// A value from the environment or a flag cannot be used.
    #[error(
        "configuration: {message}; check the PLI_… environment variables and flags (`pli config print` shows all keys)"
    )]
    Value {
        /// The key and the fault.
        message: String,
    },
}

/// Where the values above the defaults come from.
#[derive(Debug, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    environment: HashMap<String, String>,
    flags: Vec<(&'static str, String)>,
}

impl Sources {
    /// The process environment; no file, no flags.
    pub fn from_process() -> Self {
        Self::from_environment(
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))),
        )
    }

    /// An environment of one's own; no file, no flags.
    pub fn from_environment(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = |key: &str| key.strip_prefix("PLI_").is_some_and(|rest| rest.contains(SEPARATOR));
        let environment = variables.into_iter().filter(|(key, _)| ours(key)).collect();
        Self { environment, ..Self::default() }
    }

    /// Reads this TOML file; it must exist.
    #[must_use]
    pub fn file(mut self, path: Option<PathBuf>) -> Self {
        self.file = path;
        self
    }

    /// Sets `key` (`section.name`) above everything else where `value` is given.
    #[must_use]
    pub fn flag(mut self, key: &'static str, value: Option<impl ToString>) -> Self {
        self.flags.extend(value.map(|v| (key, v.to_string())));
        self
    }
}

/// Merges the sources into `T`, whose `Default` holds the defaults and whose structs deny unknown fields. The defaults
/// are a source like the others: whatever is not given, however deep, is what it is by default.
pub fn load<T: DeserializeOwned + Serialize + Default>(sources: &Sources) -> Result<T, ConfigError> {
    let defaults = toml::Table::try_from(T::default())
        .map_err(|error| ConfigError::Value { message: format!("the defaults cannot be written: {error}") })?;
    let mut builder = Config::builder().add_source(File::from_str(&defaults.to_string(), FileFormat::Toml));
    if let Some(path) = &sources.file {
        builder = builder.add_source(File::from_str(&checked_file::<T>(path, defaults)?, FileFormat::Toml));
    }
    let environment = Environment::with_prefix(PREFIX)
        .prefix_separator("_")
        .separator(SEPARATOR)
        .try_parsing(true)
        .source(Some(sources.environment.clone().into_iter().collect()));
    builder = builder.add_source(environment);
    for (key, value) in &sources.flags {
        builder = builder.set_override(*key, value.as_str()).map_err(value_error)?;
    }
    builder.build().and_then(Config::try_deserialize).map_err(value_error)
}

/// The text of a file that is right over the defaults; its faults are told with their line.
fn checked_file<T: DeserializeOwned>(path: &Path, defaults: toml::Table) -> Result<String, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
    let fault = |message: String| ConfigError::File { path: path.to_path_buf(), message };
    let given: toml::Table = toml::from_str(&text).map_err(|error| fault(error.to_string()))?;
    match over(defaults, given).try_into::<T>() {
        Ok(_) => Ok(text),
        // Only the text knows its lines, but by itself it may also lack what the defaults give.
        Err(error) => Err(fault(match toml::from_str::<T>(&text) {
            Err(located) if !located.message().starts_with("missing field") => located.to_string(),
            _ => error.to_string(),
        })),
    }
}

/// `upper` over `lower`, table by table.
fn over(mut lower: toml::Table, upper: toml::Table) -> toml::Table {
    for (key, value) in upper {
        let value = match (lower.remove(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => toml::Value::Table(over(below, above)),
            (_, value) => value,
        };
        lower.insert(key, value);
    }
    lower
}

fn value_error(error: ::config::ConfigError) -> ConfigError {
    ConfigError::Value { message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Edge {
        listen: String,
        sessions_max: u32,
        hellos: crate::limits::Rate,
    }
    impl Default for Edge {
        fn default() -> Self {
            let hellos = crate::limits::Rate::new(100, 20);
            Self { listen: "127.0.0.1:7480".into(), sessions_max: 10, hellos }
        }
    }
    #[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct All {
        edge: Edge,
    }

    fn env(pairs: &[(&str, &str)]) -> Sources {
        Sources::from_environment(pairs.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())))
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pli.toml");
        std::fs::write(&path, text).expect("a file");
        (folder, path)
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let (_folder, path) = file("[edge]\nsessions_max = 20\nlisten = \"file\"\n");
        let of = |sources: Sources| load::<All>(&sources).expect("valid").edge;
        assert_eq!(of(env(&[])), Edge::default());
        let from_file = |sessions_max| Edge { listen: "file".into(), sessions_max, ..Edge::default() };
        assert_eq!(of(env(&[]).file(Some(path.clone()))), from_file(20));
        let both = env(&[("PLI_EDGE__SESSIONS_MAX", "30"), ("PLI_HOME", "/x")]).file(Some(path));
        assert_eq!(of(both), from_file(30));
        let all = env(&[("PLI_EDGE__SESSIONS_MAX", "30")]).flag("edge.sessions_max", Some(40));
        assert_eq!(of(all).sessions_max, 40);
    }

    #[test]
    fn of_a_nested_setting_too_only_what_differs_need_be_given() {
        let (_folder, path) = file("[edge.hellos]\nburst = 7\n");
        let of = |sources: Sources| load::<All>(&sources).expect("valid").edge.hellos;
        assert_eq!(of(env(&[]).file(Some(path.clone()))), crate::limits::Rate::new(7, 20));
        let above = env(&[("PLI_EDGE__HELLOS__PER_MINUTE", "9")]);
        assert_eq!(of(above.file(Some(path))), crate::limits::Rate::new(7, 9));
        assert_eq!(of(env(&[("PLI_EDGE__HELLOS__BURST", "3")])), crate::limits::Rate::new(3, 20));
    }

    #[test]
    fn a_fault_beside_a_setting_that_is_not_given_whole_is_told_with_its_name() {
        let (_folder, path) = file("[edge.hellos]\nburst = 7\nper_minut = 3\n");
        let error = load::<All>(&env(&[]).file(Some(path))).expect_err("a typing mistake").to_string();
        assert!(error.contains("per_minut"), "{error}");
        let (_folder, path) = file("[edge.hellos]\nburst = 0\n");
        let error = load::<All>(&env(&[]).file(Some(path))).expect_err("a zero").to_string();
        assert!(error.contains("zero"), "{error}");
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_name() {
        let (_folder, path) = file("[edge]\nlisten = \"x\"\nsesions_max = 20\n");
        let error = load::<All>(&env(&[]).file(Some(path))).expect_err("a typing mistake").to_string();
        assert!(error.contains("sesions_max") && error.contains("line 3"), "{error}");
        let error = load::<All>(&env(&[("PLI_EDGE__SESIONS_MAX", "1")])).expect_err("a typing mistake").to_string();
        assert!(error.contains("sesions_max"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused_with_its_key() {
        let error = load::<All>(&env(&[("PLI_EDGE__SESSIONS_MAX", "many")])).expect_err("no number").to_string();
        assert!(error.contains("sessions_max"), "{error}");
    }

    #[test]
    fn a_missing_file_is_refused_with_its_path() {
        let error = load::<All>(&env(&[]).file(Some("/no/such/pli.toml".into()))).expect_err("missing").to_string();
        assert!(error.contains("/no/such/pli.toml"), "{error}");
    }
}
