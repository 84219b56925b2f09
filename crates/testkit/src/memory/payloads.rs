// SPDX-License-Identifier: MIT OR Apache-2.0
//! Payloads.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::limits::{PAGE_BYTES_MAX, PAYLOAD_BYTES_MAX};
use pli_domain::{PayloadId, UnixMillis};
use pli_ports::{PayloadPage, Payloads, StoreError};

use super::{Inner, tables};

/// The model of [`Payloads`].
#[derive(Clone)]
pub struct MemoryPayloads {
    world: Arc<Inner>,
}

#[derive(Default)]
pub(super) struct State {
    payloads: BTreeMap<PayloadId, (Bytes, UnixMillis)>,
}

impl State {
    fn expire(&mut self, now: UnixMillis, limit: u32) -> u32 {
        let expired = self.payloads.iter().filter(|(_, (_, expires_at))| *expires_at <= now).map(|(id, _)| *id);
        let expired: Vec<PayloadId> = expired.take(limit as usize).collect();
        expired.iter().for_each(|id| drop(self.payloads.remove(id)));
        u32::try_from(expired.len()).unwrap_or(u32::MAX)
    }

    fn page(&self, id: PayloadId, offset: u64, now: UnixMillis) -> Option<PayloadPage> {
        let (bytes, _) = self.payloads.get(&id).filter(|(_, expires_at)| *expires_at > now)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let to = from.saturating_add(PAGE_BYTES_MAX).min(bytes.len());
        Some(PayloadPage { bytes: bytes.slice(from..to), size: bytes.len() as u64 })
    }
}

impl MemoryPayloads {
    pub(super) fn new(world: Arc<Inner>) -> Self {
        Self { world }
    }
}

#[async_trait]
impl Payloads for MemoryPayloads {
    async fn put(&self, id: PayloadId, bytes: Bytes, expires_at: UnixMillis) -> Result<(), StoreError> {
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return Err(StoreError::never("put payload", "a payload has at most 4 MiB"));
        }
        let put = |state: &mut tables::State| {
            state.payloads.payloads.entry(id).or_insert((bytes, expires_at));
        };
        tables::write(&self.world, "put payload", put).await
    }

    async fn page(&self, id: PayloadId, offset: u64, now: UnixMillis) -> Result<Option<PayloadPage>, StoreError> {
        tables::read(&self.world, "payload page", |state| state.payloads.page(id, offset, now)).await
    }

    async fn expire(&self, now: UnixMillis, limit: u32) -> Result<u32, StoreError> {
        tables::write(&self.world, "expire payloads", |state| state.payloads.expire(now, limit)).await
    }
}
