// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service value, and who may do what.

use std::sync::Arc;

use bytes::Bytes;
use openmls_rust_crypto::RustCrypto;
use opentelemetry::metrics::Meter;
use pli_api::{Caller, Channel, ids};
use pli_domain::{AccountId, ConversationId, DeviceAddress, MlsEpoch, ShardMap};
use pli_ports::{Clock, ConversationHead, Conversations, Payloads, ShardLog};
use pli_runtime::limits::Limit;

use crate::config::Config;
use crate::error::Denied;
use crate::group::Groups;
use crate::limits::Limits;
use crate::metrics::Metrics;

/// What the service stands on.
#[derive(Clone)]
pub struct Ports {
    /// Epochs, rosters and commit intents.
    pub conversations: Arc<dyn Conversations>,
    /// Objects too large for an envelope.
    pub payloads: Arc<dyn Payloads>,
    /// Where commits, welcomes and proposals are fanned out to.
    pub log: Arc<dyn ShardLog>,
    /// Server time.
    pub clock: Arc<dyn Clock>,
    /// The directory, asked for device lists.
    pub directory: Channel,
}

/// The conversations service: a cheap handle over its ports, answering `pli.conversations.v1`.
#[derive(Clone)]
pub struct ConversationsService {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) ports: Ports,
    pub(crate) shards: ShardMap,
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) groups: Groups,
    pub(crate) crypto: RustCrypto,
}

impl ConversationsService {
    /// A service over `ports` for a cluster with this map of shards. Run [`ConversationsService::run`] beside it.
    pub fn new(ports: Ports, shards: ShardMap, config: Config, meter: &Meter) -> Self {
        let limits = Limits::new(&config);
        let groups = Groups::new(config.groups_cached_bytes);
        let metrics = Metrics::new(meter);
        let crypto = RustCrypto::default();
        Self { inner: Arc::new(Inner { ports, shards, config, limits, metrics, groups, crypto }) }
    }
}

impl std::fmt::Debug for ConversationsService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConversationsService").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

/// A conversation as one of its members sees it.
pub(crate) struct Membership {
    pub conversation: ConversationId,
    pub caller: DeviceAddress,
    pub head: ConversationHead,
    /// The newest roster, sorted.
    pub roster: Vec<DeviceAddress>,
}

impl Membership {
    /// Whether the device itself is in the newest roster, not just another device of its account.
    pub(crate) fn device_is_in(&self) -> bool {
        self.roster.binary_search(&self.caller).is_ok()
    }
}

impl Inner {
    /// The calling device, within `limit`.
    pub(crate) fn caller(&self, caller: Caller, limit: &Limit<AccountId>) -> Result<DeviceAddress, Denied> {
        let caller = caller.authenticated().map_err(|refused| Denied::Caller(Box::new(refused)))?;
        limit.take(&caller.account, 1)?;
        Ok(caller)
    }

    /// The conversation if an account of its newest roster asks; else the same refusal as for none at all.
    pub(crate) async fn membership(&self, conversation: &Bytes, caller: DeviceAddress) -> Result<Membership, Denied> {
        let conversation = ids::from("conversation", conversation)?;
        let head = self.ports.conversations.head(conversation).await?.ok_or(Denied::UnknownConversation)?;
        let roster = self.devices(conversation, head.epoch).await?;
        if !roster.iter().any(|device| device.account == caller.account) {
            return Err(Denied::UnknownConversation);
        }
        Ok(Membership { conversation, caller, head, roster })
    }

    /// The same for a device of the newest roster.
    pub(crate) async fn member(&self, conversation: &Bytes, caller: DeviceAddress) -> Result<Membership, Denied> {
        let membership = self.membership(conversation, caller).await?;
        if membership.device_is_in() { Ok(membership) } else { Err(Denied::UnknownConversation) }
    }

    /// The devices of an epoch that is known to exist.
    async fn devices(&self, conversation: ConversationId, epoch: MlsEpoch) -> Result<Vec<DeviceAddress>, Denied> {
        let roster = self.ports.conversations.roster(conversation, epoch).await?;
        Ok(roster.ok_or(Denied::UnknownConversation)?.devices)
    }
}
