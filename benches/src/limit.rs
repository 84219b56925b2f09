// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a figure is held against.

use pli_testkit::summary::Limit;

/// Times a limit is measured; the median counts.
const RUNS: usize = 5;

/// The most that one run may be off the median of its own five.
const SCATTER_MAX: f64 = 2.0;

/// Why there is no limit.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// Its runs scatter too far to be trusted.
    #[error(
        "the limit `{name}` scatters more than {SCATTER_MAX}x around its median: {runs:?}; measure on a quiet machine"
    )]
    Scatters {
        /// Which.
        name: String,
        /// What the runs gave, in order of size.
        runs: Vec<f64>,
    },
    /// A run failed.
    #[error("the limit `{name}` could not be measured")]
    Failed {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Runs `once` five times and takes the median; refuses a limit of which any run is more than 2x off it.
pub fn measure_limit<E>(name: &str, once: impl FnMut() -> Result<f64, E>) -> Result<Limit, LimitError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let runs: Result<Vec<f64>, E> = std::iter::repeat_with(once).take(RUNS).collect();
    let mut runs = runs.map_err(|source| LimitError::Failed { name: name.to_owned(), source: source.into() })?;
    runs.sort_by(f64::total_cmp);
    let value = runs[RUNS / 2];
    let trusted = runs.iter().all(|run| *run > 0.0 && *run <= value * SCATTER_MAX && *run * SCATTER_MAX >= value);
    if !trusted {
        return Err(LimitError::Scatters { name: name.to_owned(), runs });
    }
    Ok(Limit { name: name.to_owned(), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_counts() {
        let mut values = [3.0, 1.9, 2.0, 2.1, 2.5].into_iter();
        let limit = measure_limit("steady", || values.next().ok_or("five runs")).expect("it scatters little");
        assert_eq!(limit.value, 2.1);
    }

    #[test]
    fn a_limit_that_scatters_is_refused() {
        let mut values = [1.0, 1.0, 1.0, 1.0, 2.1].into_iter();
        let refused = measure_limit("wild", || values.next().ok_or("five runs"));
        assert!(matches!(refused, Err(LimitError::Scatters { .. })), "{refused:?}");
    }

    #[test]
    fn a_limit_whose_run_fails_says_why() {
        let refused = measure_limit("broken", || Err("no server"));
        assert!(matches!(&refused, Err(LimitError::Failed { source, .. }) if source.to_string() == "no server"));
    }
}
