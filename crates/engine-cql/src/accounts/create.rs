// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creating an account: three partitions that become visible at one instant.
//!
//! 1. The account is reserved under a random attempt, invisible.
//! 2. Its device ids and then its handle are claimed for (account, attempt).
//! 3. The account becomes live, if it still is that attempt's. That is the instant: who looks a handle up counts its
//!    claim only if its account is live by the attempt that the claim names.
//!
//! A creation that dies leaves an account that is not live. Whoever meets a claim of it after [`RESERVED_MAX`] drops
//! the reservation by compare-and-set, after which step 3 cannot succeed, and takes the claim. Clocks decide how
//! soon that happens, never who wins.

use std::time::Duration;

use pli_ports::{CreateAccountError, NewAccount, StoreError};

use super::claims::Claim;
use super::{CqlAccounts, Stored};
use crate::codec::{devices_bytes, millis};
use crate::locks::Turn;
use crate::statements::Statement;
use crate::store::Op;

pub(super) const OP: Op = Op("create an account");
/// A creation that is not complete after this is dead.
pub(super) const RESERVED_MAX: Duration = Duration::from_secs(60);
/// Rivals may move the reservation this often before the call answers "try later".
const ROUNDS_MAX: u32 = 8;

enum Claimed {
    All,
    ForeignDevice,
    HandleTaken,
}

impl CqlAccounts {
    pub(super) async fn create_account(&self, new: &NewAccount) -> Result<(), CreateAccountError> {
        let _turn = self.store.locks.turn(Turn::Account, new.account.as_bytes()).await;
        for _ in 0..ROUNDS_MAX {
            let Some(attempt) = self.reserve(new).await? else { return Ok(()) };
            let refusal = match self.claim_all(new, &attempt).await? {
                Claimed::All => {
                    let row = (&new.account.as_bytes()[..], &attempt[..]);
                    if self.store.decide(OP, Statement::OpenAccount, row).await? {
                        return Ok(());
                    }
                    // Open already (the answer was lost), or dropped by a rival: look again.
                    continue;
                }
                Claimed::ForeignDevice => CreateAccountError::IdTaken,
                Claimed::HandleTaken => CreateAccountError::HandleTaken,
            };
            self.give_up(new, &attempt).await?;
            return Err(refusal);
        }
        Err(StoreError::later(OP.0, "rivals keep taking the reservation").into())
    }

    /// The attempt under which the account is reserved for these very contents, or none when it is live.
    async fn reserve(&self, new: &NewAccount) -> Result<Option<Vec<u8>>, CreateAccountError> {
        for _ in 0..ROUNDS_MAX {
            match self.stored(OP, Statement::ReadAccountDecided, new.account).await? {
                Some(found) if found.identity_key != new.identity_key => return Err(CreateAccountError::IdTaken),
                Some(found) if found.handle == new.handle && found.live => return Ok(None),
                // An earlier call died or is under way: both go on with one attempt, whose list is the same account's.
                Some(found) if found.handle == new.handle && is_first_list(&found, new) => {
                    return Ok(Some(found.attempt));
                }
                Some(found) if found.live => return Err(CreateAccountError::IdTaken),
                Some(found) => self.drop_reservation(new.account, &found.attempt).await?,
                None => {
                    let attempt: [u8; 16] = rand::random();
                    if self.store.decide(OP, Statement::ReserveAccount, self.reservation(new, &attempt)).await? {
                        return Ok(Some(attempt.to_vec()));
                    }
                }
            }
        }
        Err(StoreError::later(OP.0, "rivals keep taking the reservation").into())
    }

    #[expect(clippy::type_complexity, reason = "the values of one statement")]
    fn reservation<'a>(
        &self,
        new: &'a NewAccount,
        attempt: &'a [u8],
    ) -> (&'a [u8], &'a str, &'a [u8], i64, i64, &'a [u8], i64, &'a [u8], Vec<u8>) {
        (
            &new.account.as_bytes()[..],
            new.handle.as_str(),
            &new.identity_key[..],
            millis(new.created_at),
            millis(self.store.now()),
            attempt,
            new.devices.version as i64,
            &new.devices.signed[..],
            devices_bytes(&new.devices.devices),
        )
    }

    async fn claim_all(&self, new: &NewAccount, attempt: &[u8]) -> Result<Claimed, StoreError> {
        for device in &new.devices.devices {
            if self.claim_device(OP, *device, new.account, attempt).await? == Claim::Foreign {
                return Ok(Claimed::ForeignDevice);
            }
        }
        let won = self.claim_handle(OP, &new.handle, new.account, attempt).await?;
        Ok(if won { Claimed::All } else { Claimed::HandleTaken })
    }

    /// First the reservation, so that nobody counts the claims while they go. Claims that stay are dead.
    async fn give_up(&self, new: &NewAccount, attempt: &[u8]) -> Result<(), StoreError> {
        self.drop_reservation(new.account, attempt).await?;
        for device in &new.devices.devices {
            let claim = (&device.as_bytes()[..], attempt);
            self.store.decide(OP, Statement::ReleaseDevice, claim).await?;
        }
        self.store.decide(OP, Statement::ReleaseHandle, (new.handle.as_str(), attempt)).await.map(drop)
    }

    pub(super) async fn drop_reservation(
        &self,
        account: pli_domain::AccountId,
        attempt: &[u8],
    ) -> Result<(), StoreError> {
        let row = (&account.as_bytes()[..], attempt);
        self.store.decide(OP, Statement::DropAccount, row).await.map(drop)
    }
}

fn is_first_list(found: &Stored, new: &NewAccount) -> bool {
    found.devices == new.devices
}
