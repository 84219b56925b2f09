// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where QUIC is not tried for a while, because WebSocket was there first. Kept in a file of the profile, so that a command
//! that runs for a second need not find it out each time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pli_domain::UnixMillis;

use crate::ServerAddress;

/// Where WebSocket won, QUIC is not tried again for so long: its packets are likely to be dropped on the way. Whoever
/// changes to a network without such a way goes on over WebSocket until then, and loses nothing but the better carrier.
const SHUNNED_FOR: Duration = Duration::from_secs(600);
/// Addresses that are remembered; the one that ends first goes first.
const ADDRESSES_MAX: usize = 16;

/// Addresses with the local time up to which each is shunned. Local time may jump: what lies further ahead than it can is
/// not believed.
#[derive(Debug, Default)]
pub(super) struct Shunned {
    until: BTreeMap<String, UnixMillis>,
    file: Option<PathBuf>,
}

impl Shunned {
    /// What the file says, one `ADDRESS MILLISECONDS` a line; nothing where it says nothing that makes sense.
    pub fn load(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = |line: &str| {
            let (address, until) = line.split_once(' ')?;
            Some((address.to_string(), UnixMillis(until.parse().ok()?)))
        };
        let until = text.lines().take(ADDRESSES_MAX).filter_map(line).collect();
        Self { until, file: Some(file.to_path_buf()) }
    }

    /// Whether QUIC is left alone there.
    pub fn holds(&self, address: &ServerAddress, now: UnixMillis) -> bool {
        let ahead = self.until.get(&address.authority()).map(|until| until.since(now));
        ahead.is_some_and(|ahead| !ahead.is_zero() && ahead <= SHUNNED_FOR)
    }

    /// From now on, for a while.
    pub fn add(&mut self, address: &ServerAddress, now: UnixMillis) {
        self.until.insert(address.authority(), now.after(SHUNNED_FOR));
        while self.until.len() > ADDRESSES_MAX {
            let first = self.until.iter().min_by_key(|(_, until)| **until).map(|(address, _)| address.clone());
            first.and_then(|first| self.until.remove(&first));
        }
        let Some(file) = &self.file else { return };
        let text: String = self.until.iter().map(|(address, until)| format!("{address} {}\n", until.0)).collect();
        // Without the file the next process finds out for itself.
        if let Err(error) = std::fs::write(file, text) {
            tracing::debug!(%error, file = %file.display(), "what is known of QUIC is not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn address(text: &str) -> ServerAddress {
        text.parse().expect("an address")
    }

    fn later(seconds: u64) -> UnixMillis {
        UnixMillis(NOW.0 + seconds * 1_000)
    }

    #[test]
    fn an_address_is_shunned_for_ten_minutes_by_the_next_process_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("quic");
        let (here, there) = (address("127.0.0.1:9"), address("[::1]:9"));
        let mut shunned = Shunned::load(&file);
        shunned.add(&here, NOW);
        for shunned in [&shunned, &Shunned::load(&file)] {
            assert!(shunned.holds(&here, NOW) && shunned.holds(&here, later(599)));
            assert!(!shunned.holds(&here, later(600)) && !shunned.holds(&there, NOW));
        }
    }

    #[test]
    fn a_clock_that_went_back_and_nonsense_in_the_file_are_not_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("quic");
        let here = address("127.0.0.1:9");
        for nonsense in ["127.0.0.1:9 18446744073709551615\n", "127.0.0.1:9\n", "\u{0} x", "127.0.0.1:9 1\n"] {
            std::fs::write(&file, nonsense).expect("written");
            assert!(!Shunned::load(&file).holds(&here, NOW), "{nonsense}");
        }
    }

    #[test]
    fn only_so_many_addresses_are_kept() {
        let mut shunned = Shunned::default();
        for n in 0..40 {
            shunned.add(&address(&format!("127.0.0.1:{}", 1_000 + n)), later(n));
        }
        assert_eq!(shunned.until.len(), ADDRESSES_MAX);
        assert!(shunned.holds(&address("127.0.0.1:1039"), later(40)));
    }
}
