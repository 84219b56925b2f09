// SPDX-License-Identifier: MIT OR Apache-2.0
//! Handles and device ids: claimed once, by compare-and-set on the partition of the name.

use pli_domain::{AccountId, DeviceId, Handle};
use pli_ports::StoreError;
use scylla::serialize::value::SerializeValue;

use super::CqlAccounts;
use super::create::RESERVED_MAX;
use crate::locks::Turn;
use crate::statements::Statement;
use crate::store::Op;

/// A claim that changes hands so often under its claimer is answered with "try later".
const ROUNDS_MAX: u32 = 8;

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Made by this call.
    Won,
    /// It stood before.
    Mine,
    /// Another account's claim counts.
    Foreign,
}

/// Whose a device is, seen from an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// No claim counts.
    Nobody,
    /// The account itself: a list had it, or was to have it and lost its version to another.
    Itself,
    /// Another account.
    Another,
}

/// The statements of one kind of name.
#[derive(Clone, Copy)]
struct Names {
    table: &'static str,
    claim: Statement,
    read: Statement,
    take: Statement,
}

const HANDLES: Names = Names {
    table: "handle",
    claim: Statement::ClaimHandle,
    read: Statement::ReadHandleDecided,
    take: Statement::TakeHandle,
};
const DEVICES: Names = Names {
    table: "device_account",
    claim: Statement::ClaimDevice,
    read: Statement::ReadDeviceDecided,
    take: Statement::TakeDevice,
};

impl CqlAccounts {
    pub(super) async fn claim_handle(
        &self,
        op: Op,
        handle: &Handle,
        account: AccountId,
        attempt: &[u8],
    ) -> Result<bool, StoreError> {
        let _turn = self.store.locks.turn(Turn::Handle, handle.as_str().as_bytes()).await;
        Ok(self.claim(op, HANDLES, (handle.as_str(), account, attempt)).await? != Claim::Foreign)
    }

    pub(super) async fn claim_device(
        &self,
        op: Op,
        device: DeviceId,
        account: AccountId,
        attempt: &[u8],
    ) -> Result<Claim, StoreError> {
        self.claim(op, DEVICES, (&device.as_bytes()[..], account, attempt)).await
    }

    /// Whose the device is, without claiming it.
    pub(super) async fn holder_of(
        &self,
        op: Op,
        device: DeviceId,
        account: AccountId,
        attempt: &[u8],
    ) -> Result<Holder, StoreError> {
        let name = (&device.as_bytes()[..],);
        let Some((holder, theirs)) = self.store.first::<(Vec<u8>, Vec<u8>)>(op, DEVICES.read, name).await? else {
            return Ok(Holder::Nobody);
        };
        let holder: AccountId = crate::codec::id(DEVICES.table, &holder).map_err(op.damaged())?;
        if holder == account {
            return Ok(if theirs == attempt { Holder::Itself } else { Holder::Nobody });
        }
        Ok(if self.counts(op, holder, &theirs).await? { Holder::Another } else { Holder::Nobody })
    }

    /// The live account whose claim on the device counts, if one of its lists has or had the device: it is claimed
    /// before the list that adds it is decided, and stays claimed where that one is refused.
    pub(super) async fn account_of(&self, device: DeviceId) -> Result<Option<AccountId>, StoreError> {
        const OP: Op = Op("find a device's account");
        let name = (&device.as_bytes()[..],);
        let Some((holder, attempt)) = self.store.first::<(Vec<u8>, Vec<u8>)>(OP, DEVICES.read, name).await? else {
            return Ok(None);
        };
        let holder: AccountId = crate::codec::id(DEVICES.table, &holder).map_err(OP.damaged())?;
        let found = self.stored(OP, Statement::ReadAccount, holder).await?;
        let Some(found) = found.filter(|found| found.live && found.attempt == attempt) else { return Ok(None) };
        let listed = found.devices.devices.contains(&device) || self.was_listed(holder, &found, &[device]).await?;
        Ok(listed.then_some(holder))
    }

    /// Claims `name` for (account, attempt).
    async fn claim<N>(
        &self,
        op: Op,
        names: Names,
        (name, account, attempt): (N, AccountId, &[u8]),
    ) -> Result<Claim, StoreError>
    where
        N: SerializeValue + Copy + Send + Sync,
    {
        let mine = &account.as_bytes()[..];
        for _ in 0..ROUNDS_MAX {
            let found = self.store.first::<(Vec<u8>, Vec<u8>)>(op, names.read, (name,)).await?;
            let Some((holder, theirs)) = found else {
                if self.store.decide(op, names.claim, (name, mine, attempt)).await? {
                    return Ok(Claim::Won);
                }
                continue;
            };
            if holder == mine && theirs == attempt {
                return Ok(Claim::Mine);
            }
            let holder: AccountId = crate::codec::id(names.table, &holder).map_err(op.damaged())?;
            if holder != account && self.counts(op, holder, &theirs).await? {
                return Ok(Claim::Foreign);
            }
            if self.store.decide(op, names.take, (mine, attempt, name, theirs)).await? {
                return Ok(Claim::Won);
            }
        }
        Err(StoreError::later(op.0, "a name changes hands faster than it can be claimed"))
    }

    /// Whether a claim of (holder, attempt) counts: its creation is complete, or may still become so. A dead one is
    /// dropped first, so that it never does. An account has one attempt at a time, so a claim of another one is dead.
    async fn counts(&self, op: Op, holder: AccountId, attempt: &[u8]) -> Result<bool, StoreError> {
        let found = self.stored(op, Statement::ReadAccountDecided, holder).await?;
        let Some(found) = found.filter(|found| found.attempt == attempt) else { return Ok(false) };
        if found.live || self.store.now().since(found.reserved_at) < RESERVED_MAX {
            return Ok(true);
        }
        self.drop_reservation(holder, attempt).await?;
        // It may have become live in the last moment.
        let found = self.stored(op, Statement::ReadAccountDecided, holder).await?;
        Ok(found.is_some_and(|found| found.attempt == attempt))
    }
}
