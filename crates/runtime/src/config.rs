// SPDX-License-Identifier: MIT OR Apache-2.0
//! One way to configure: defaults < TOML file < environment < flags; a key that nothing reads is an error.

mod names;

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
/// Stands between the elements of a list in an environment variable.
const LIST_SEPARATOR: char = ',';

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
    #[error("configuration: {message}; check {given} (`pli config print` shows all keys)")]
    Value {
        /// The key and the fault.
        message: String,
        /// The variables and flags that were given.
        given: String,
    },
    /// A variable is written like a setting, and there is none of its name.
    #[error("the environment variable {variable} sets nothing: there is no setting `{key}`{meant}")]
    Variable {
        /// The variable.
        variable: String,
        /// The setting that it would set.
        key: String,
        /// What was probably meant, as the end of the sentence.
        meant: String,
    },
    /// Values that can be read do not work.
    #[error("{origin}: {message}")]
    Unusable {
        /// Where the value comes from.
        origin: String,
        /// The key, the fault and what would do.
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
        let ours = |variable: &str| variable.starts_with(names::VARIABLE);
        let environment = variables.into_iter().filter(|(variable, _)| ours(variable)).collect();
        Self { environment, ..Self::default() }
    }

    /// What of `T` the environment sets: variable, setting and value.
    fn settings(&self) -> impl Iterator<Item = (&str, String, &str)> {
        self.environment.iter().filter_map(|(variable, value)| Some((&**variable, names::key_of(variable)?, &**value)))
    }

    /// Warnings, one for each variable that begins with `PLI_` and is not written like a setting (`PLI_SECTION__NAME`)
    /// nor read by anything else; `others` are the variables of flags. It is no error: such names may be of somebody
    /// else's making, as those that Kubernetes sets for a service called `pli`.
    pub fn unread<T: Serialize + Default>(&self, others: &[String]) -> Vec<String> {
        let Ok(defaults) = toml::Table::try_from(T::default()) else { return Vec::new() };
        let is_setting = |variable: &str| names::key_of(variable).is_some();
        let unread = |variable: &&String| !is_setting(variable) && !names::is_read_elsewhere(variable, others);
        let mut unread: Vec<&String> = self.environment.keys().filter(unread).collect();
        unread.sort_unstable();
        let warning = |variable: &String| {
            let meant = meant(variable, &defaults, others);
            format!("the environment variable {variable} is read by nothing{meant}")
        };
        unread.into_iter().map(warning).collect()
    }

    /// An error for values that can be read but do not work; `message` names the setting, or several, with their
    /// sections. Says which source the first one that was given comes from.
    pub fn unusable(&self, message: &str) -> ConfigError {
        let words = message.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_')));
        let origin = words.filter(|word| word.contains('.')).find_map(|key| self.origin(key.trim_end_matches('.')));
        ConfigError::Unusable { origin: origin.unwrap_or_else(|| "configuration".into()), message: message.into() }
    }

    /// Where the value of this setting comes from; none for a default.
    fn origin(&self, key: &str) -> Option<String> {
        if self.flags.iter().any(|(flag, _)| *flag == key) {
            return Some("command line".into());
        }
        if let Some((variable, ..)) = self.settings().find(|(_, set, _)| set == key) {
            return Some(format!("environment variable {variable}"));
        }
        let path = self.file.as_ref()?;
        let given: toml::Table = toml::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
        names::look_up(&given, key).map(|_| path.display().to_string())
    }

    /// What was given above the file, for a message that cannot say which of it is wrong.
    fn given(&self) -> String {
        let mut variables: Vec<&str> = self.settings().map(|(variable, ..)| variable).collect();
        variables.sort_unstable();
        variables.extend(self.flags.iter().map(|(key, _)| *key));
        if variables.is_empty() { "the defaults".into() } else { variables.join(", ") }
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
    let fault = |message: String| ConfigError::Value { message, given: sources.given() };
    let value_error = |error: ::config::ConfigError| fault(error.to_string());
    let defaults = toml::Table::try_from(T::default())
        .map_err(|error| fault(format!("the defaults cannot be written: {error}")))?;
    let lists = checked_environment(sources, &defaults)?;
    let mut builder = Config::builder().add_source(File::from_str(&defaults.to_string(), FileFormat::Toml));
    if let Some(path) = &sources.file {
        builder = builder.add_source(File::from_str(&checked_file::<T>(path, defaults)?, FileFormat::Toml));
    }
    let single = |(variable, key, value): (&str, String, &str)| {
        (!lists.contains_key(&key)).then(|| (variable.to_string(), value.to_string()))
    };
    let environment = Environment::with_prefix(PREFIX)
        .prefix_separator("_")
        .separator(SEPARATOR)
        .try_parsing(true)
        .source(Some(sources.settings().filter_map(single).collect()));
    builder = builder.add_source(environment);
    for (key, elements) in lists {
        builder = builder.set_override(key, elements).map_err(value_error)?;
    }
    for (key, value) in &sources.flags {
        builder = builder.set_override(*key, value.as_str()).map_err(value_error)?;
    }
    builder.build().and_then(Config::try_deserialize).map_err(value_error)
}

/// The lists that the environment sets. A variable that no setting has the name of is refused with the nearest one.
fn checked_environment(sources: &Sources, defaults: &toml::Table) -> Result<HashMap<String, Vec<String>>, ConfigError> {
    let mut lists = HashMap::new();
    for (variable, key, value) in sources.settings() {
        match names::look_up(defaults, &key) {
            None => {
                let meant = meant(variable, defaults, &[]);
                return Err(ConfigError::Variable { variable: variable.into(), key, meant });
            }
            Some(toml::Value::Array(_)) => {
                let elements = value.split(LIST_SEPARATOR).map(str::trim).filter(|element| !element.is_empty());
                lists.insert(key, elements.map(String::from).collect());
            }
            Some(_) => {}
        }
    }
    Ok(lists)
}

/// How a message about a variable that nothing reads ends: what was probably meant.
fn meant(variable: &str, defaults: &toml::Table, others: &[String]) -> String {
    let known = || names::keys(defaults).into_iter().map(|key| names::variable_of(&key));
    let section = format!("{variable}{SEPARATOR}");
    let near = names::nearest(variable, known().chain(others.iter().cloned()));
    match known().find(|name| name.starts_with(&section)) {
        Some(first) => format!("; it names a section: name a setting of it, such as {first}"),
        None => match near {
            Some(name) => format!("; did you mean {name}?"),
            None => "; `pli config print` shows all settings".into(),
        },
    }
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
        hosts: Vec<String>,
        ports: Vec<u16>,
    }
    impl Default for Edge {
        fn default() -> Self {
            let hellos = crate::limits::Rate::new(100, 20);
            Self { listen: "127.0.0.1:7480".into(), sessions_max: 10, hellos, hosts: Vec::new(), ports: vec![1] }
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

    #[test]
    fn lists_are_given_by_the_environment_with_commas() {
        let hosts = |value: &str| load::<All>(&env(&[("PLI_EDGE__HOSTS", value)])).expect("valid").edge.hosts;
        assert_eq!(hosts("a.example,b.example"), ["a.example", "b.example"]);
        assert_eq!(hosts(" a , b,"), ["a", "b"]);
        assert_eq!(hosts("7"), ["7"]);
        assert!(hosts("").is_empty());
        let (_folder, path) = file("[edge]\nports = [4, 5, 6]\n");
        let ports = env(&[("PLI_EDGE__PORTS", "7,8")]).file(Some(path));
        assert_eq!(load::<All>(&ports).expect("valid").edge.ports, [7, 8]);
        let error = load::<All>(&env(&[("PLI_EDGE__PORTS", "7,many")])).expect_err("no number").to_string();
        assert!(error.contains("many") && error.contains("PLI_EDGE__PORTS"), "{error}");
        let comma = env(&[("PLI_EDGE__LISTEN", "a,b")]);
        assert_eq!(load::<All>(&comma).expect("valid").edge.listen, "a,b");
    }

    #[test]
    fn a_variable_that_sets_nothing_is_refused_or_told_with_what_was_meant() {
        let error = load::<All>(&env(&[("PLI_EDGE__SESIONS_MAX", "1")])).expect_err("a typing mistake").to_string();
        assert!(error.contains("PLI_EDGE__SESIONS_MAX") && error.contains("mean PLI_EDGE__SESSIONS_MAX"), "{error}");
        let given =
            env(&[("PLI_FOO", "1"), ("PLI_EDGE", "1"), ("PLI_EDGE_LISTEN", "x"), ("PLI_HOME", "/"), ("FOO", "")]);
        let said = given.unread::<All>(&["PLI_HOME".into()]);
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].contains("PLI_EDGE is read by nothing; it names a section"), "{said:?}");
        assert!(said[1].contains("PLI_EDGE_LISTEN ") && said[1].contains("mean PLI_EDGE__LISTEN?"), "{said:?}");
        assert!(said[2].contains("PLI_FOO ") && said[2].contains("pli config print"), "{said:?}");
        assert!(load::<All>(&given).is_ok());
    }

    #[test]
    fn what_does_not_work_is_told_with_where_it_stands() {
        let (_folder, path) = file("[edge]\nsessions_max = 0\n");
        let message = "edge.sessions_max is 0; set at least 1";
        let said = |sources: Sources| sources.unusable(message).to_string();
        assert_eq!(said(env(&[]).file(Some(path.clone()))), format!("{}: {message}", path.display()));
        let both = env(&[("PLI_EDGE__SESSIONS_MAX", "0")]).file(Some(path));
        assert_eq!(said(both), format!("environment variable PLI_EDGE__SESSIONS_MAX: {message}"));
        assert_eq!(said(env(&[]).flag("edge.sessions_max", Some(0))), format!("command line: {message}"));
        assert_eq!(said(env(&[])), format!("configuration: {message}"));
    }
}
