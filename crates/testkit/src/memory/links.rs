// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rendezvous.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::limits::RENDEZVOUS_BLOB_BYTES_MAX;
use pli_domain::{DeviceAddress, NotAdmitted, Place, Rendezvous, RendezvousId, SecretHash, Side, UnixMillis};
use pli_ports::{
    Access, GetBlobError, JoinRendezvousError, Links, NewRendezvous, OpenRendezvousError, PutBlobError, StoreError,
};

use super::{Inner, tables};

/// The model of [`Links`].
#[derive(Clone)]
pub struct MemoryLinks {
    world: Arc<Inner>,
}

struct Open {
    rendezvous: Rendezvous,
    blobs: BTreeMap<(Side, u8), Bytes>,
}

#[derive(Default)]
pub(super) struct State {
    open: BTreeMap<RendezvousId, Open>,
}

impl State {
    fn open(&mut self, new: NewRendezvous, now: UnixMillis) -> Result<UnixMillis, OpenRendezvousError> {
        let NewRendezvous { id, opener, approver, expires_at } = new;
        let made = Open { rendezvous: Rendezvous::new(opener, approver, expires_at), blobs: BTreeMap::new() };
        let found = self.open.entry(id).or_insert(made).rendezvous;
        if (found.opener, found.approver) != (opener, approver) {
            return Err(OpenRendezvousError::IdTaken);
        }
        if now >= found.expires_at { Err(NotAdmitted::Gone.into()) } else { Ok(found.expires_at) }
    }

    fn join(
        &mut self,
        id: RendezvousId,
        (secret, device): (SecretHash, DeviceAddress),
        now: UnixMillis,
    ) -> Result<UnixMillis, JoinRendezvousError> {
        let found = &mut self.open.get_mut(&id).ok_or(NotAdmitted::Gone)?.rendezvous;
        found.may_join(secret, device, now)?;
        found.joined = Some(device);
        Ok(found.expires_at)
    }

    fn put(&mut self, access: &Access, number: u8, blob: Bytes) -> Result<(), PutBlobError> {
        let found = self.open.get_mut(&access.id).ok_or(NotAdmitted::Gone)?;
        let side = found.rendezvous.admit(&access.party, access.now)?;
        match found.rendezvous.place(side, number)? {
            Place::Before if found.blobs.get(&(side, number)) != Some(&blob) => Err(PutBlobError::Conflict),
            Place::Before => Ok(()),
            Place::Next => {
                found.blobs.insert((side, number), blob);
                found.rendezvous = found.rendezvous.with_blob(side);
                Ok(())
            }
        }
    }

    fn blob(&self, access: &Access, number: u8) -> Result<Option<Bytes>, GetBlobError> {
        let found = self.open.get(&access.id).ok_or(NotAdmitted::Gone)?;
        let side = found.rendezvous.admit(&access.party, access.now)?;
        Ok(found.blobs.get(&(side.other(), number)).cloned())
    }

    fn expire(&mut self, now: UnixMillis, limit: u32) -> u32 {
        let expired = self.open.iter().filter(|(_, open)| open.rendezvous.expires_at <= now).map(|(id, _)| *id);
        let expired: Vec<RendezvousId> = expired.take(limit as usize).collect();
        expired.iter().for_each(|id| drop(self.open.remove(id)));
        u32::try_from(expired.len()).unwrap_or(u32::MAX)
    }
}

impl MemoryLinks {
    pub(super) fn new(world: Arc<Inner>) -> Self {
        Self { world }
    }
}

#[async_trait]
impl Links for MemoryLinks {
    async fn open_rendezvous(
        &self,
        rendezvous: NewRendezvous,
        now: UnixMillis,
    ) -> Result<UnixMillis, OpenRendezvousError> {
        tables::write(&self.world, "open a rendezvous", |state| state.links.open(rendezvous, now)).await?
    }

    async fn join_rendezvous(
        &self,
        id: RendezvousId,
        who: (SecretHash, DeviceAddress),
        now: UnixMillis,
    ) -> Result<UnixMillis, JoinRendezvousError> {
        tables::write(&self.world, "join a rendezvous", |state| state.links.join(id, who, now)).await?
    }

    async fn put_blob(&self, access: Access, number: u8, blob: Bytes) -> Result<(), PutBlobError> {
        if !(1..=RENDEZVOUS_BLOB_BYTES_MAX).contains(&blob.len()) {
            return Err(StoreError::never("put a blob", "a blob has 1 byte to 16 KiB").into());
        }
        tables::write(&self.world, "put a blob", |state| state.links.put(&access, number, blob)).await?
    }

    async fn blob(&self, access: Access, number: u8) -> Result<Option<Bytes>, GetBlobError> {
        tables::read(&self.world, "read a blob", |state| state.links.blob(&access, number)).await?
    }

    async fn expire_rendezvous(&self, now: UnixMillis, limit: u32) -> Result<u32, StoreError> {
        tables::write(&self.world, "expire rendezvous", |state| state.links.expire(now, limit)).await
    }
}
