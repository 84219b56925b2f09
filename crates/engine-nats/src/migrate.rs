// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creates the streams and the bucket, or brings their settings up to date.

use pli_domain::{InvalidShardMap, ShardMap};
use serde_json::{Map, Value, json};

use crate::NatsEngine;
use crate::error::ApiError;
use crate::layout::{SHARD_KEY, Wanted};
use crate::link::Link;
use crate::names::log_stream;
use crate::wire::{Done, NO_PEERS, NO_RESOURCES, NOT_ENABLED, STREAM_NAME_IN_USE, STREAM_NOT_FOUND, StreamInfo};

/// Rounds in which a stream that somebody else changes at the same time is looked at again.
const TRIES: usize = 5;

/// Why the streams are not as they must be.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A setting differs that cannot be changed without losing what the stream holds.
    #[error("stream {stream}: {difference}; that is fixed when a cluster is created, so use the options it has")]
    Fixed {
        /// The stream.
        stream: String,
        /// Setting, what it is, what it must be.
        difference: String,
    },
    /// JetStream is off.
    #[error("JetStream is off on this server or for this account; add a jetstream block to its configuration")]
    NoJetStream(#[source] ApiError),
    /// The disk limit does not hold what the streams reserve.
    #[error("no room for stream {stream}; raise max_file_store or the account's limits, or lower stream_bytes_max")]
    NoRoom {
        /// The stream.
        stream: String,
        /// What the server said.
        #[source]
        source: ApiError,
    },
    /// Fewer servers than copies.
    #[error(
        "stream {stream} wants {replicas} replicas and the cluster has fewer servers that can take one; add servers"
    )]
    NoPeers {
        /// The stream.
        stream: String,
        /// Copies wanted.
        replicas: usize,
        /// What the server said.
        #[source]
        source: ApiError,
    },
    /// Anything else.
    #[error("stream {stream} could not be created or changed")]
    Api {
        /// The stream.
        stream: String,
        /// What the server said.
        #[source]
        source: ApiError,
    },
}

/// Why it is not known which shard an account belongs to.
#[derive(Debug, thiserror::Error)]
pub enum ShardMapError {
    /// The stream that says it is missing, or was made by something else.
    #[error("stream {stream} does not say how accounts map to shards; `pli migrate` makes it")]
    Missing {
        /// The first stream.
        stream: String,
    },
    /// The number of shards cannot be one.
    #[error(transparent)]
    Shards(#[from] InvalidShardMap),
    /// It could not be asked.
    #[error("stream {stream} cannot be asked")]
    Api {
        /// The first stream.
        stream: String,
        /// What the server said.
        #[source]
        source: ApiError,
    },
}

/// What is drawn once, when a cluster is made: whoever creates the first stream decides for all.
fn facts(wanted: &Wanted) -> Map<String, Value> {
    let mut facts = Map::new();
    if wanted.name == log_stream(0) {
        let key: [u8; 16] = rand::random();
        facts.insert(SHARD_KEY.into(), hex::encode(key).into());
    }
    facts
}

/// The stream as it is, or none.
pub(crate) async fn stream_info(link: &Link, stream: &str) -> Result<Option<StreamInfo>, ApiError> {
    match link.api::<StreamInfo>(&format!("STREAM.INFO.{stream}"), &json!({})).await {
        Ok(info) => Ok(Some(info)),
        Err(error) if error.code() == Some(STREAM_NOT_FOUND) => Ok(None),
        Err(error) => Err(error),
    }
}

impl NatsEngine {
    /// Creates the streams and the bucket that are missing and changes the settings that differ. Idempotent, and safe
    /// twice at once. Never touches what a stream holds: a setting that would need that is an error.
    pub async fn migrate(&self) -> Result<(), MigrateError> {
        for wanted in self.options.layout.wanted() {
            self.migrate_stream(&wanted).await?;
        }
        Ok(())
    }

    /// Which shard an account belongs to: fixed when the cluster was made, the same for every process.
    pub async fn shard_map(&self) -> Result<ShardMap, ShardMapError> {
        let stream = log_stream(0);
        let info = stream_info(&self.link, &stream).await;
        let info = info.map_err(|source| ShardMapError::Api { stream: stream.clone(), source })?;
        let key = info.as_ref().and_then(|info| info.config.get("metadata")?.get(SHARD_KEY)?.as_str());
        let key = key.and_then(|key| <[u8; 16]>::try_from(hex::decode(key).ok()?).ok());
        Ok(ShardMap::new(self.options.layout.shards, key.ok_or(ShardMapError::Missing { stream })?)?)
    }

    async fn migrate_stream(&self, wanted: &Wanted) -> Result<(), MigrateError> {
        let mut last = None;
        for _ in 0..TRIES {
            match self.migrate_once(wanted).await {
                Err(MigrateError::Api { source, .. }) if source.code() == Some(STREAM_NAME_IN_USE) => {
                    last = Some(source);
                }
                done => return done,
            }
        }
        let source = last.unwrap_or_else(|| ApiError::Timeout(wanted.name.clone()));
        Err(MigrateError::Api { stream: wanted.name.clone(), source })
    }

    async fn migrate_once(&self, wanted: &Wanted) -> Result<(), MigrateError> {
        let failed = |source| self.migrate_error(wanted, source);
        let Some(info) = stream_info(&self.link, &wanted.name).await.map_err(failed)? else {
            let create = format!("STREAM.CREATE.{}", wanted.name);
            return self.link.api::<Done>(&create, &wanted.to_create(&facts(wanted))).await.map(|_| ()).map_err(failed);
        };
        let differences = wanted.differences(&info.config);
        if let Some(fixed) = differences.iter().find(|difference| difference.fixed) {
            return Err(MigrateError::Fixed { stream: wanted.name.clone(), difference: fixed.text.clone() });
        }
        if differences.is_empty() {
            return Ok(());
        }
        let update = format!("STREAM.UPDATE.{}", wanted.name);
        self.link.api::<Done>(&update, &wanted.over(&info.config)).await.map(|_| ()).map_err(failed)
    }

    fn migrate_error(&self, wanted: &Wanted, source: ApiError) -> MigrateError {
        let stream = wanted.name.clone();
        match source.code() {
            Some(code) if NOT_ENABLED.contains(&code) => MigrateError::NoJetStream(source),
            Some(code) if NO_RESOURCES.contains(&code) => MigrateError::NoRoom { stream, source },
            Some(NO_PEERS) => MigrateError::NoPeers { stream, replicas: self.options.layout.replicas, source },
            None if matches!(source, ApiError::NoResponder(_)) => MigrateError::NoJetStream(source),
            _ => MigrateError::Api { stream, source },
        }
    }
}
