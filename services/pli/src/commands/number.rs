// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers on the command line: what makes no sense is refused with the fix; the flag is named by the parser.

/// Longest wait: 30 days, what a message lives.
const SECONDS_MAX: f64 = 30.0 * 24.0 * 3600.0;
/// Most messages a second; above it leave the flag out.
const RATE_MAX: f64 = 1_000_000.0;
/// Most messages of one command.
const COUNT_MAX: u64 = 1_000_000;

/// A time to wait, in seconds.
pub fn seconds(text: &str) -> Result<f64, String> {
    within(text, SECONDS_MAX).ok_or_else(|| format!("give seconds above 0 and at most {SECONDS_MAX}, for example 60"))
}

/// Messages a second.
pub fn rate(text: &str) -> Result<f64, String> {
    within(text, RATE_MAX).ok_or_else(|| {
        format!("give messages a second, above 0 and at most {RATE_MAX}, for example 20; leave it out for no limit")
    })
}

/// How many messages.
pub fn count(text: &str) -> Result<u64, String> {
    let fits = text.parse().ok().filter(|count| (1..=COUNT_MAX).contains(count));
    fits.ok_or_else(|| format!("give a whole number from 1 to {COUNT_MAX}, for example 10"))
}

fn within(text: &str, most: f64) -> Option<f64> {
    // NaN compares as false.
    text.parse().ok().filter(|number: &f64| *number > 0.0 && *number <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_with_the_fix() {
        for text in ["0", "-1", "NaN", "inf", "1e300", "", "ten"] {
            assert!(seconds(text).is_err_and(|said| said.contains("for example")), "{text}");
            assert!(rate(text).is_err_and(|said| said.contains("for example")), "{text}");
            assert!(count(text).is_err_and(|said| said.contains("for example")), "{text}");
        }
        assert_eq!((seconds("0.5"), rate("20"), count("10")), (Ok(0.5), Ok(20.0), Ok(10)));
        assert!(count("1.5").is_err());
    }
}
