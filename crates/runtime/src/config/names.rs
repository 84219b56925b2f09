// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of settings and of the environment variables that set them.

use super::SEPARATOR;

/// Begins the name of every variable of ours.
pub(super) const VARIABLE: &str = "PLI_";
/// What tests, benches and planted faults read, without what every name begins with; one that ends in `_` stands for all
/// that begin so.
const OF_TESTS: [&str; 10] =
    ["BENCH_", "FAULTS_", "MUTANT", "POWERCUT_", "SEED", "SIM_", "SOAK", "TEST_", "WORKER_", "WRITE_"];

/// The variable that sets this setting: `edge.listen` is `PLI_EDGE__LISTEN`.
pub(super) fn variable_of(key: &str) -> String {
    format!("{VARIABLE}{}", key.replace('.', SEPARATOR).to_ascii_uppercase())
}

/// The setting that this variable would set.
pub(super) fn key_of(variable: &str) -> Option<String> {
    let rest = variable.strip_prefix(VARIABLE).filter(|rest| rest.contains(SEPARATOR))?;
    Some(rest.to_ascii_lowercase().replace(SEPARATOR, "."))
}

/// What stands under `key`, section by section.
pub(super) fn look_up<'a>(table: &'a toml::Table, key: &str) -> Option<&'a toml::Value> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    match (table.get(first)?, rest) {
        (value, None) => Some(value),
        (toml::Value::Table(below), Some(rest)) => look_up(below, rest),
        _ => None,
    }
}

/// Every setting of a table that holds them all, as `section.name`.
pub(super) fn keys(table: &toml::Table) -> Vec<String> {
    let below = |(name, value): (&String, &toml::Value)| match value {
        toml::Value::Table(section) => keys(section).iter().map(|key| format!("{name}.{key}")).collect(),
        _ => vec![name.clone()],
    };
    table.iter().flat_map(below).collect()
}

/// Whether a variable that is no setting is read by something else of ours: a flag's (`others`), or a test's.
pub(super) fn is_read_elsewhere(variable: &str, others: &[String]) -> bool {
    let Some(rest) = variable.strip_prefix(VARIABLE) else { return true };
    let of_tests = |name: &str| rest == name || (name.ends_with('_') && rest.starts_with(name));
    others.iter().any(|other| other == variable) || OF_TESTS.into_iter().any(of_tests)
}

/// The name that was most likely meant, where one is near enough: at most a third of it is written otherwise. How often
/// `_` is repeated does not count: that is the commonest mistake.
pub(super) fn nearest(variable: &str, known: impl IntoIterator<Item = String>) -> Option<String> {
    let plain = |name: &str| name.split('_').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_");
    let written = plain(variable.strip_prefix(VARIABLE)?);
    let far = |name: &String| distance(&written, &plain(name.strip_prefix(VARIABLE).unwrap_or(name)));
    let (far, name) = known.into_iter().map(|name| (far(&name), name)).min()?;
    (far * 3 <= written.len()).then_some(name)
}

/// How many letters must be put in, left out or exchanged (Levenshtein, 1966); in one row of memory.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.iter().enumerate() {
            let exchanged = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_as_counted_by_hand() {
        for (from, to, far) in [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("same", "same", 0)] {
            assert_eq!(distance(from, to), far, "{from} {to}");
        }
    }

    #[test]
    fn the_name_that_was_meant_is_found_and_nothing_is_made_up() {
        let known = || ["PLI_EDGE__SESSIONS_MAX", "PLI_SERVER__PORT", "PLI_HOME"].map(String::from);
        let meant = |variable: &str| nearest(variable, known());
        assert_eq!(meant("PLI_SERVER_PORT").as_deref(), Some("PLI_SERVER__PORT"));
        assert_eq!(meant("PLI_EDGE__SESIONS_MAX").as_deref(), Some("PLI_EDGE__SESSIONS_MAX"));
        assert_eq!(meant("PLI_HOEM"), None);
        assert_eq!(meant("PLI_HOMES").as_deref(), Some("PLI_HOME"));
        assert_eq!(meant("PLI_FOO"), None);
    }

    #[test]
    fn variables_of_flags_and_tests_are_read_elsewhere() {
        let flags = ["PLI_HOME".to_string()];
        for variable in ["PLI_HOME", "PLI_SEED", "PLI_SOAK", "PLI_SIM_SEED", "PLI_TEST_NATS_SERVER", "HOME"] {
            assert!(is_read_elsewhere(variable, &flags), "{variable}");
        }
        for variable in ["PLI_FOO", "PLI_DELIVERY", "PLI_SEEDS", "PLI_", "PLI_SIM"] {
            assert!(!is_read_elsewhere(variable, &flags), "{variable}");
        }
    }
}
