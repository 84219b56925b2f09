// SPDX-License-Identifier: MIT OR Apache-2.0
//! `target/bench/summary.json`: one list of rows for all bench targets and the demo.

#![allow(clippy::print_stdout, reason = "figures are printed as they are taken")]

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A measured ceiling.
#[derive(Debug, Clone)]
pub struct Limit {
    /// What does the work, for the table.
    pub name: String,
    /// Median of five runs, in the unit of the figure.
    pub value: f64,
}

/// Which way a figure gets better, so that a ratio better than its limit can be recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// More is better (a rate): the ratio to the limit stays at or below 1.
    More,
    /// Less is better (a cost): the ratio to the limit stays at or above 1.
    Less,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name in the documentation.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// What it is held against.
    pub limit_name: Option<String>,
    /// The limit in the same unit.
    pub limit_value: Option<f64>,
    /// value / limit_value.
    pub ratio: Option<f64>,
}

impl Row {
    /// A figure without a limit.
    pub fn plain(name: &str, value: f64, unit: &str) -> Self {
        Self { name: name.into(), value, unit: unit.into(), limit_name: None, limit_value: None, ratio: None }
    }

    /// A figure with its limit. Errors when it is better than the limit: then the limit measures something else.
    pub fn limited(name: &str, value: f64, unit: &str, limit: &Limit, better: Direction) -> Result<Self, SummaryError> {
        let ratio = value / limit.value;
        let beaten = match better {
            Direction::More => ratio > 1.0,
            Direction::Less => ratio < 1.0,
        };
        if beaten {
            return Err(SummaryError::BetterThanLimit { name: name.into(), value, limit: limit.clone() });
        }
        Ok(Self {
            limit_name: Some(limit.name.clone()),
            limit_value: Some(limit.value),
            ratio: Some(ratio),
            ..Self::plain(name, value, unit)
        })
    }
}

/// Why a figure was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum SummaryError {
    /// The limit is no limit.
    #[error("{name} = {value} is better than its limit {limit:?}; the limit does not measure the same work")]
    BetterThanLimit {
        /// The figure.
        name: String,
        /// Its value.
        value: f64,
        /// The limit.
        limit: Limit,
    },
    /// The summary could not be read or written.
    #[error("the summary {path} could not be read or written")]
    File {
        /// Where it lies.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The rows of one bench target, merged into the file when it is done.
#[derive(Debug)]
pub struct Summary {
    path: PathBuf,
    rows: Vec<Row>,
}

fn bench_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench")
}

/// A folder for the data of one bench target, removed when dropped. It lies on the disk of the project: /tmp may be
/// memory.
pub fn data_folder() -> std::io::Result<tempfile::TempDir> {
    fs::create_dir_all(bench_folder())?;
    tempfile::Builder::new().prefix("pli-bench-").tempdir_in(bench_folder())
}

impl Summary {
    /// Of the file in the workspace's target folder.
    pub fn open() -> Self {
        Self::at(bench_folder().join("summary.json"))
    }

    /// Of a file beside it, for a run that only tries whether a measurement works: its figures count for nothing.
    pub fn trial() -> Self {
        Self::at(bench_folder().join("trial.json"))
    }

    fn at(path: PathBuf) -> Self {
        Self { path, rows: Vec::new() }
    }

    /// Which of these names have no row.
    pub fn missing<'a>(&self, names: &[&'a str]) -> Vec<&'a str> {
        names.iter().copied().filter(|name| self.rows.iter().all(|row| row.name != *name)).collect()
    }

    /// Adds a row and prints it.
    pub fn add(&mut self, row: Row) {
        let limit = match (&row.limit_name, row.limit_value, row.ratio) {
            (Some(name), Some(value), Some(ratio)) => format!("   limit {value:.4} ({name}), ratio {ratio:.4}"),
            _ => String::new(),
        };
        println!("{:28} {:>16.4} {}{limit}", row.name, row.value, row.unit);
        self.rows.push(row);
    }

    /// Writes the rows into the file: rows of the same name are replaced, all others stay.
    pub fn save(self) -> Result<(), SummaryError> {
        let failed = |source| SummaryError::File { path: self.path.clone(), source };
        let mut all: Vec<Row> = match fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| failed(e.into()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(failed(e)),
        };
        all.retain(|old| self.rows.iter().all(|new| new.name != old.name));
        all.extend(self.rows.iter().cloned());
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let text = serde_json::to_vec_pretty(&all).map_err(|e| failed(e.into()))?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).and_then(|()| fs::write(&self.path, text)).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_replaces_its_own_rows_and_leaves_the_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bench/summary.json");
        let save = |rows: &[(&str, f64)]| {
            let mut summary = Summary::at(path.clone());
            rows.iter().for_each(|(name, value)| summary.add(Row::plain(name, *value, "s")));
            summary.save().expect("it is written");
        };
        save(&[("a", 1.0), ("b", 2.0)]);
        save(&[("b", 3.0)]);
        let rows: Vec<Row> = serde_json::from_slice(&fs::read(&path).expect("it is there")).expect("rows");
        assert_eq!(rows, [Row::plain("a", 1.0, "s"), Row::plain("b", 3.0, "s")]);
    }

    #[test]
    fn names_without_a_row_are_missing() {
        let mut summary = Summary::at("never written".into());
        summary.add(Row::plain("a", 1.0, "s"));
        assert_eq!(summary.missing(&["a", "b"]), ["b"]);
    }

    #[test]
    fn a_ratio_better_than_the_limit_is_refused() {
        let limit = Limit { name: "raw".into(), value: 10.0 };
        assert!(Row::limited("rate", 11.0, "1/s", &limit, Direction::More).is_err());
        assert!(Row::limited("cost", 9.0, "us", &limit, Direction::Less).is_err());
        assert_eq!(Row::limited("rate", 5.0, "1/s", &limit, Direction::More).expect("below").ratio, Some(0.5));
    }
}
