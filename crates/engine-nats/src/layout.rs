// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which streams there are and what their settings must be.

use std::time::Duration;

use pli_domain::ShardId;
use serde_json::{Map, Value, json};

use crate::error::ConnectError;
use crate::names::{LEASE_BUCKET, LEASE_STREAM, log_stream, log_subject};

/// Most shards of one stream: each has a consumer while it is owned, and twice that many while owners change. Servers
/// allow 1,000 consumers of a stream by default.
pub(crate) const SHARDS_PER_STREAM_MAX: u32 = 250;
/// The metadata in which the first stream keeps the key that maps accounts to shards, in hexadecimal.
pub(crate) const SHARD_KEY: &str = "pli.shard_key";
/// Most bytes of the leases' stream; a lease takes about 200.
const LEASE_BYTES_MAX: u64 = 64 << 20;

/// Streams of a cluster. Shards and streams are fixed when it is created: another number of streams would look for a
/// shard's entries where they are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Number of shards, 1 to 32,768.
    pub shards: u32,
    /// Number of streams that share them, at least one for 250 shards.
    pub streams: u16,
    /// Copies of each stream: 3 in production, 1 or 5 else.
    pub replicas: usize,
    /// Most bytes of one stream; appends are refused above it. Servers reserve it, times the streams, per copy.
    pub stream_bytes_max: u64,
    /// How long the server remembers message ids. Costs it memory for every append of that time; a retry after it is
    /// appended a second time, which readers bear.
    pub duplicate_window: Duration,
}

impl Default for Layout {
    fn default() -> Self {
        let duplicate_window = Duration::from_secs(120);
        Self { shards: 1_024, streams: 16, replicas: 3, stream_bytes_max: 16 << 30, duplicate_window }
    }
}

impl Layout {
    /// Errors where the numbers cannot be served.
    pub(crate) fn validate(&self) -> Result<(), ConnectError> {
        let refuse = |text: String| Err(ConnectError::Options(text));
        let streams_min = self.shards.div_ceil(SHARDS_PER_STREAM_MAX);
        if self.shards == 0 || self.shards > 32_768 {
            return refuse(format!("shards = {} is not from 1 to 32768", self.shards));
        }
        if u32::from(self.streams) < streams_min || u32::from(self.streams) > self.shards {
            return refuse(format!("streams = {} is not from {streams_min} to shards = {}", self.streams, self.shards));
        }
        if ![1, 3, 5].contains(&self.replicas) {
            return refuse(format!("replicas = {} is not 1, 3 or 5", self.replicas));
        }
        if i64::try_from(self.stream_bytes_max).is_err() || self.stream_bytes_max < 1 << 20 {
            return refuse(format!("stream_bytes_max = {} is not from 1 MiB to 8 EiB", self.stream_bytes_max));
        }
        // JetStream refuses less than 100 ms.
        if self.duplicate_window < Duration::from_millis(100) {
            return refuse("duplicate_window is below 100 ms".into());
        }
        Ok(())
    }

    /// The stream that a shard's entries are in.
    pub fn stream_of(&self, shard: ShardId) -> String {
        log_stream(shard.get() % self.streams.max(1))
    }

    /// Names of all streams of shard logs.
    pub(crate) fn log_streams(&self) -> impl Iterator<Item = String> {
        (0..self.streams).map(log_stream)
    }

    /// Every stream with the settings it must have, shard logs first, the leases last.
    pub(crate) fn wanted(&self) -> Vec<Wanted> {
        let mut wanted: Vec<Wanted> = (0..self.streams).map(|number| self.wanted_log(number)).collect();
        wanted.push(self.wanted_leases());
        wanted
    }

    fn metadata(&self) -> Map<String, Value> {
        let mut metadata = Map::new();
        metadata.insert("pli.shards".into(), self.shards.to_string().into());
        metadata.insert("pli.streams".into(), self.streams.to_string().into());
        metadata
    }

    fn wanted_log(&self, number: u16) -> Wanted {
        let shards = (0..self.shards).filter_map(|shard| u16::try_from(shard).ok());
        let own = shards.filter(|shard| shard % self.streams.max(1) == number);
        let subjects: Vec<String> = own.map(|shard| log_subject(ShardId::new(shard))).collect();
        Wanted::new(
            log_stream(number),
            json!({
                "subjects": subjects,
                "retention": "limits",
                "storage": "file",
                "discard": "new",
                "max_age": 0,
                "max_msgs": -1,
                "max_msgs_per_subject": -1,
                "max_bytes": self.stream_bytes_max,
                "num_replicas": self.replicas,
                "duplicate_window": nanos(self.duplicate_window),
                "allow_direct": false,
                "allow_rollup_hdrs": false,
                "allow_msg_ttl": false,
                "sealed": false,
                "deny_purge": false,
            }),
            self.metadata(),
        )
    }

    fn wanted_leases(&self) -> Wanted {
        Wanted::new(
            LEASE_STREAM.into(),
            json!({
                "subjects": [format!("$KV.{LEASE_BUCKET}.>")],
                "retention": "limits",
                "storage": "file",
                "discard": "new",
                "max_age": 0,
                "max_msgs": -1,
                "max_msgs_per_subject": 1,
                "max_bytes": LEASE_BYTES_MAX,
                "num_replicas": self.replicas,
                "duplicate_window": nanos(Duration::from_secs(120)),
                "allow_direct": true,
                "allow_rollup_hdrs": true,
                "allow_msg_ttl": true,
                "sealed": false,
                "deny_purge": false,
            }),
            Map::new(),
        )
    }
}

pub(crate) fn nanos(of: Duration) -> u64 {
    u64::try_from(of.as_nanos()).unwrap_or(u64::MAX)
}

/// One stream with the settings that it must have; settings that are not named may be anything.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub name: String,
    pub settings: Map<String, Value>,
    metadata: Map<String, Value>,
}

/// Settings that an existing stream cannot get without losing what it holds or where it is looked for.
const FIXED: &[&str] = &["subjects", "retention", "storage", "metadata"];

impl Wanted {
    fn new(name: String, settings: Value, metadata: Map<String, Value>) -> Self {
        let Value::Object(mut settings) = settings else { unreachable!("written as an object above") };
        settings.insert("name".into(), name.clone().into());
        Self { name, settings, metadata }
    }

    /// The settings to create it with. `facts` are drawn by whoever creates it and hold from then on.
    pub fn to_create(&self, facts: &Map<String, Value>) -> Value {
        let mut settings = self.settings.clone();
        let mut metadata = self.metadata.clone();
        metadata.extend(facts.clone());
        if !metadata.is_empty() {
            settings.insert("metadata".into(), metadata.into());
        }
        settings.into()
    }

    /// What stands on the server with our settings put over it.
    pub fn over(&self, found: &Map<String, Value>) -> Value {
        let mut settings = found.clone();
        settings.extend(self.settings.clone());
        settings.into()
    }

    /// How `found` differs: setting, what it is, what it must be.
    pub fn differences(&self, found: &Map<String, Value>) -> Vec<Difference> {
        let null = Value::Null;
        let differ = |(name, wanted): (&String, &Value)| {
            let is = found.get(name).unwrap_or(&null);
            (is != wanted).then(|| Difference::new(name, is, wanted))
        };
        let mut differences: Vec<_> = self.settings.iter().filter_map(differ).collect();
        let empty = Map::new();
        let metadata = found.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
        for (name, wanted) in &self.metadata {
            let is = metadata.get(name).unwrap_or(&null);
            if is != wanted {
                differences.push(Difference { fixed: true, ..Difference::new(name, is, wanted) });
            }
        }
        differences
    }
}

/// One setting that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    pub text: String,
    /// Whether it cannot be changed in place.
    pub fixed: bool,
}

impl Difference {
    fn new(name: &str, is: &Value, wanted: &Value) -> Self {
        let short = |value: &Value| {
            let text = value.to_string();
            if text.len() <= 80 { text } else { format!("{}…", text.chars().take(80).collect::<String>()) }
        };
        let text = format!("{name} is {}, must be {}", short(is), short(wanted));
        Self { text, fixed: FIXED.contains(&name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_has_one_stream() {
        let layout = Layout { shards: 64, streams: 3, ..Layout::default() };
        let mut seen = Vec::new();
        for wanted in layout.wanted().iter().filter(|wanted| wanted.name != LEASE_STREAM) {
            for subject in wanted.settings["subjects"].as_array().unwrap() {
                seen.push((subject.as_str().unwrap().to_owned(), wanted.name.clone()));
            }
        }
        seen.sort();
        let mut expected: Vec<_> =
            (0..64).map(ShardId::new).map(|shard| (log_subject(shard), layout.stream_of(shard))).collect();
        expected.sort();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_layout_that_cannot_be_served_is_refused() {
        let fine = Layout::default();
        assert!(fine.validate().is_ok());
        let small = Duration::from_millis(99);
        for bad in [
            Layout { shards: 0, ..fine.clone() },
            Layout { streams: 4, ..fine.clone() },
            Layout { streams: 0, ..fine.clone() },
            Layout { replicas: 2, ..fine.clone() },
            Layout { stream_bytes_max: 1_000, ..fine.clone() },
            Layout { duplicate_window: small, ..fine.clone() },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn differences_name_the_setting_and_what_cannot_be_changed() {
        let wanted = &Layout::default().wanted()[0];
        let Value::Object(mut found) = wanted.to_create(&Map::new()) else { panic!() };
        assert_eq!(wanted.differences(&found), []);
        found.insert("max_age".into(), 5.into());
        found["metadata"]["pli.streams"] = "4".into();
        let differences = wanted.differences(&found);
        assert_eq!(differences[0].text, "max_age is 5, must be 0");
        assert_eq!(differences[1].text, "pli.streams is \"4\", must be \"16\"");
        assert_eq!(differences.iter().map(|d| d.fixed).collect::<Vec<_>>(), [false, true]);
    }
}
