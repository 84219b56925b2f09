// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a figure is held against.

use std::fmt;

/// Times a limit is measured; the median counts.
const RUNS: usize = 5;

/// The most that one run may be off the median of its own five.
const SCATTER_MAX: f64 = 2.0;

/// A measured ceiling.
#[derive(Debug, Clone)]
pub struct Limit {
    /// What does the work, for the table.
    pub name: String,
    /// Median of five runs, in the unit of the figure.
    pub value: f64,
}

/// A limit that cannot be trusted.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitError {
    name: String,
    runs: Vec<f64>,
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the limit `{}` scatters more than {SCATTER_MAX}x around its median: {:?}; measure on a quiet machine",
            self.name, self.runs
        )
    }
}
impl std::error::Error for LimitError {}

/// Runs `once` five times and takes the median; refuses a limit of which any run is more than 2x off it.
pub fn measure_limit(name: &str, once: impl FnMut() -> f64) -> Result<Limit, LimitError> {
    let mut runs: Vec<f64> = std::iter::repeat_with(once).take(RUNS).collect();
    runs.sort_by(f64::total_cmp);
    let value = runs[RUNS / 2];
    let trusted = runs.iter().all(|run| *run > 0.0 && *run <= value * SCATTER_MAX && *run * SCATTER_MAX >= value);
    if !trusted {
        return Err(LimitError { name: name.to_owned(), runs });
    }
    Ok(Limit { name: name.to_owned(), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_counts() {
        let mut values = [3.0, 1.9, 2.0, 2.1, 2.5].into_iter();
        let limit = measure_limit("steady", || values.next().expect("five runs")).expect("it scatters little");
        assert_eq!(limit.value, 2.1);
    }

    #[test]
    fn a_limit_that_scatters_is_refused() {
        let mut values = [1.0, 1.0, 1.0, 1.0, 2.1].into_iter();
        assert!(measure_limit("wild", || values.next().expect("five runs")).is_err());
    }
}
