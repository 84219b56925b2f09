// SPDX-License-Identifier: MIT OR Apache-2.0
//! Removals that are not carried out: notes in a few partitions, written before the list that leaves a device out is
//! decided, so that no death between the two loses one. A note counts once the account's row says that its list, and no
//! rival of the same version, was decided: a device that was left out never comes back, so the newest list tells.

use std::time::Duration;

use pli_domain::limits::EXPIRY_MAX;
use pli_domain::{AccountId, DeviceId};
use pli_ports::{Removal, StoreError};

use super::CqlAccounts;
use crate::codec::{Damaged, id};
use crate::statements::Statement;
use crate::store::Op;

/// Partitions of notes. Fixed by what is stored.
const BUCKETS: i32 = 16;
/// Notes read at a time.
const PART_NOTES: i32 = 256;
/// How long a note lives; no envelope lives longer than half of it.
const NOTE_TTL: Duration = Duration::from_secs(2 * EXPIRY_MAX.as_secs());

/// What became of a noted removal.
enum Fate {
    /// The list was decided, and left the device out.
    Decided,
    /// The list may still be decided.
    Pending,
    /// Another list has that version, and the device stays.
    Lost,
}

fn bucket(account: AccountId) -> i32 {
    i32::from(account.as_bytes()[15]) % BUCKETS
}

fn removal((account, version, device): (Vec<u8>, i64, Vec<u8>)) -> Result<Removal, Damaged> {
    const WHAT: &str = "removal";
    let version = u64::try_from(version).map_err(|_| Damaged { what: WHAT })?;
    Ok(Removal { account: id(WHAT, &account)?, version, device: id(WHAT, &device)? })
}

impl CqlAccounts {
    /// Notes what the list of this version is about to leave out.
    pub(super) async fn note_removals(
        &self,
        op: Op,
        (account, version): (AccountId, u64),
        gone: &[DeviceId],
    ) -> Result<(), StoreError> {
        let ttl = i32::try_from(NOTE_TTL.as_secs()).unwrap_or(i32::MAX);
        for device in gone {
            let row = (bucket(account), &account.as_bytes()[..], version as i64, &device.as_bytes()[..], ttl);
            self.store.write(op, Statement::NoteRemoval, row).await?;
        }
        Ok(())
    }

    /// Forgets on the way what was noted for a list that lost its version.
    pub(super) async fn list_removals(&self, after: Option<Removal>, max: usize) -> Result<Vec<Removal>, StoreError> {
        const OP: Op = Op("list removals");
        let (first, mut found) = (after.map_or(0, |after| bucket(after.account)), Vec::new());
        for at in first..BUCKETS {
            let mut from = after.filter(|_| at == first);
            loop {
                let notes = self.notes(OP, at, from).await?;
                for note in &notes {
                    if found.len() >= max {
                        return Ok(found);
                    }
                    match self.fate(OP, note).await? {
                        Fate::Decided => found.push(*note),
                        Fate::Pending => {}
                        Fate::Lost => self.forget_removal(OP, *note).await?,
                    }
                }
                from = notes.last().copied();
                if notes.len() < PART_NOTES as usize {
                    break;
                }
            }
        }
        Ok(found)
    }

    async fn notes(&self, op: Op, bucket: i32, after: Option<Removal>) -> Result<Vec<Removal>, StoreError> {
        // The empty key stands before every other.
        let (account, version, device) = match &after {
            Some(after) => (&after.account.as_bytes()[..], after.version as i64, &after.device.as_bytes()[..]),
            None => (&[][..], 0, &[][..]),
        };
        let key = (bucket, account, version, device, PART_NOTES);
        let rows = self.store.rows(op, Statement::ReadRemovals, key).await?;
        rows.into_iter().map(removal).collect::<Result<_, _>>().map_err(op.damaged())
    }

    async fn fate(&self, op: Op, note: &Removal) -> Result<Fate, StoreError> {
        let found = self.stored(op, Statement::ReadAccount, note.account).await?.filter(|found| found.live);
        Ok(match found.map(|found| found.devices) {
            Some(newest) if newest.version < note.version => Fate::Pending,
            Some(newest) if newest.devices.contains(&note.device) => Fate::Lost,
            Some(_) => Fate::Decided,
            None => Fate::Pending,
        })
    }

    pub(super) async fn end_removal(&self, removal: Removal) -> Result<(), StoreError> {
        self.remove_packages(&[removal.device]).await?;
        self.forget_removal(Op("finish a removal"), removal).await
    }

    async fn forget_removal(&self, op: Op, removal: Removal) -> Result<(), StoreError> {
        let Removal { account, version, device } = removal;
        let key = (bucket(account), &account.as_bytes()[..], version as i64, &device.as_bytes()[..]);
        self.store.write(op, Statement::ForgetRemoval, key).await
    }
}
