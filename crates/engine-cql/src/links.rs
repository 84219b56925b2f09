// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rendezvous: one partition each, changed by compare-and-set alone. The database forgets them by itself (TTL).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::limits::RENDEZVOUS_BLOB_BYTES_MAX;
use pli_domain::{DeviceAddress, NotAdmitted, Place, Rendezvous, RendezvousId, SecretHash, Side, UnixMillis};
use pli_ports::{
    Access, GetBlobError, JoinRendezvousError, Links, NewRendezvous, OpenRendezvousError, PutBlobError, StoreError,
};

use crate::codec::{Damaged, Decoded, address, address_bytes, millis, time};
use crate::locks::Turn;
use crate::statements::Statement;
use crate::store::{Op, Store};

/// A rendezvous that changes so often under one call is answered with "try later". It changes at most nine times.
const ROUNDS_MAX: u32 = 16;

/// [`Links`] on CQL.
pub(crate) struct CqlLinks {
    pub(crate) store: Arc<Store>,
}

/// opener, approver, expires_at, joined, opener_blobs, approver_blobs
type Row = (Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>, Option<Vec<u8>>, Option<i32>, Option<i32>);

const fn side_number(side: Side) -> i32 {
    match side {
        Side::Opener => 0,
        Side::Approver => 1,
    }
}

fn hash(stored: &[u8]) -> Decoded<SecretHash> {
    stored.try_into().map(SecretHash::from_bytes).map_err(|_| Damaged { what: "rendezvous" })
}

/// None for what is not there any more, or only in parts that have not gone yet.
fn rendezvous(row: Row) -> Decoded<Option<Rendezvous>> {
    let (Some(opener), Some(approver), Some(expires_at), joined, Some(opener_blobs), Some(approver_blobs)) = row else {
        return Ok(None);
    };
    let count = |stored: i32| u8::try_from(stored).map_err(|_| Damaged { what: "rendezvous" });
    Ok(Some(Rendezvous {
        opener: hash(&opener)?,
        approver: hash(&approver)?,
        expires_at: time(expires_at),
        joined: joined.as_deref().map(address).transpose()?,
        opener_blobs: count(opener_blobs)?,
        approver_blobs: count(approver_blobs)?,
    }))
}

/// A blob that is about to be put.
struct Put<'a> {
    id: RendezvousId,
    side: Side,
    number: u8,
    blob: &'a Bytes,
}

impl CqlLinks {
    async fn read(&self, op: Op, statement: Statement, id: RendezvousId) -> Result<Option<Rendezvous>, StoreError> {
        let row: Option<Row> = self.store.first(op, statement, (&id.as_bytes()[..],)).await?;
        Ok(row.map(rendezvous).transpose().map_err(op.damaged())?.flatten())
    }

    /// What was decided so far.
    async fn decided(&self, op: Op, id: RendezvousId) -> Result<Option<Rendezvous>, StoreError> {
        self.read(op, Statement::ReadRendezvousDecided, id).await
    }

    async fn stored(&self, op: Op, id: RendezvousId, side: Side, number: u8) -> Result<Option<Bytes>, StoreError> {
        let key = (&id.as_bytes()[..], side_number(side), i32::from(number));
        let row: Option<(Option<Bytes>,)> = self.store.first(op, Statement::ReadBlob, key).await?;
        Ok(row.and_then(|(blob,)| blob))
    }

    /// Puts a side's next blob if nothing was put since `found` was read.
    async fn put_next(&self, op: Op, found: &Rendezvous, put: Put<'_>) -> Result<bool, StoreError> {
        let Put { id, side, number, blob } = put;
        let statement = match side {
            Side::Opener => Statement::PutOpenerBlob,
            Side::Approver => Statement::PutApproverBlob,
        };
        let (key, ttl, number) = (&id.as_bytes()[..], self.store.ttl(found.expires_at), i32::from(number));
        let before = (i32::from(found.opener_blobs), i32::from(found.approver_blobs));
        let values = (ttl, number, key, before.0, before.1, key, number, blob.clone(), ttl);
        self.store.decide(op, statement, values).await
    }
}

fn too_often(op: Op) -> StoreError {
    StoreError::later(op.0, "the rendezvous changes faster than it can be changed")
}

#[async_trait]
impl Links for CqlLinks {
    async fn open_rendezvous(
        &self,
        rendezvous: NewRendezvous,
        now: UnixMillis,
    ) -> Result<UnixMillis, OpenRendezvousError> {
        const OP: Op = Op("open a rendezvous");
        let NewRendezvous { id, opener, approver, expires_at } = rendezvous;
        let (key, ttl) = (&id.as_bytes()[..], self.store.ttl(expires_at));
        let hashes = (&opener.as_bytes()[..], &approver.as_bytes()[..]);
        let row = (ttl, hashes.0, hashes.1, millis(expires_at), key);
        let _turn = self.store.locks.turn(Turn::Rendezvous, key).await;
        for _ in 0..ROUNDS_MAX {
            if self.store.decide(OP, Statement::OpenRendezvous, row).await? {
                return Ok(expires_at);
            }
            // Its own win without an answer, an earlier call, or somebody else; or it has gone by itself meanwhile.
            let Some(found) = self.decided(OP, id).await? else { continue };
            return match (found.opener, found.approver) == (opener, approver) {
                false => Err(OpenRendezvousError::IdTaken),
                true if now >= found.expires_at => Err(NotAdmitted::Gone.into()),
                true => Ok(found.expires_at),
            };
        }
        Err(too_often(OP).into())
    }

    async fn join_rendezvous(
        &self,
        id: RendezvousId,
        (secret, device): (SecretHash, DeviceAddress),
        now: UnixMillis,
    ) -> Result<UnixMillis, JoinRendezvousError> {
        const OP: Op = Op("join a rendezvous");
        let key = &id.as_bytes()[..];
        let _turn = self.store.locks.turn(Turn::Rendezvous, key).await;
        for _ in 0..ROUNDS_MAX {
            let found = self.decided(OP, id).await?.ok_or(NotAdmitted::Gone)?;
            found.may_join(secret, device, now)?;
            let row = (self.store.ttl(found.expires_at), &address_bytes(&device)[..], key, &secret.as_bytes()[..]);
            if found.joined.is_some() || self.store.decide(OP, Statement::JoinRendezvous, row).await? {
                return Ok(found.expires_at);
            }
        }
        Err(too_often(OP).into())
    }

    async fn put_blob(&self, access: Access, number: u8, blob: Bytes) -> Result<(), PutBlobError> {
        const OP: Op = Op("put a blob of a rendezvous");
        if !(1..=RENDEZVOUS_BLOB_BYTES_MAX).contains(&blob.len()) {
            let text = format!("a blob has {} bytes; put 1 to {RENDEZVOUS_BLOB_BYTES_MAX}", blob.len());
            return Err(StoreError::never(OP.0, text).into());
        }
        let Access { id, party, now } = access;
        let _turn = self.store.locks.turn(Turn::Rendezvous, &id.as_bytes()[..]).await;
        for _ in 0..ROUNDS_MAX {
            let found = self.decided(OP, id).await?.ok_or(NotAdmitted::Gone)?;
            let side = found.admit(&party, now)?;
            if found.place(side, number)? == Place::Before {
                // Also the win of an earlier round whose answer was lost.
                let stored = self.stored(OP, id, side, number).await?;
                return if stored.as_ref() == Some(&blob) { Ok(()) } else { Err(PutBlobError::Conflict) };
            }
            if self.put_next(OP, &found, Put { id, side, number, blob: &blob }).await? {
                return Ok(());
            }
        }
        Err(too_often(OP).into())
    }

    async fn blob(&self, access: Access, number: u8) -> Result<Option<Bytes>, GetBlobError> {
        const OP: Op = Op("read a blob of a rendezvous");
        let Access { id, party, now } = access;
        let found = self.read(OP, Statement::ReadRendezvous, id).await?.ok_or(NotAdmitted::Gone)?;
        let side = found.admit(&party, now)?.other();
        if !(1..=found.blobs(side)).contains(&number) {
            return Ok(None);
        }
        Ok(self.stored(OP, id, side, number).await?)
    }

    /// Nothing to do: they expire by themselves.
    async fn expire_rendezvous(&self, _now: UnixMillis, _limit: u32) -> Result<u32, StoreError> {
        Ok(0)
    }
}
