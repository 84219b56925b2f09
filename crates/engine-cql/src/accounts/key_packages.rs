// SPDX-License-Identifier: MIT OR Apache-2.0
//! Key packages. Each is written at timestamp 1 and spent by a conditional deletion, whose winner hands it out; a late
//! upload of the same package stays deleted.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use pli_domain::DeviceId;
use pli_domain::limits::KEY_PACKAGES_MAX;
use pli_ports::{ClaimedKeyPackage, KeyPackageStock, StoreError};
use rand::Rng;
use sha2::{Digest, Sha256};

use super::CqlAccounts;
use crate::locks::Turn;
use crate::statements::Statement;
use crate::store::Op;

/// Packages of one batch: about 32 KiB.
const BATCH_PACKAGES_MAX: usize = 32;
/// Packages that give way at a time.
const SPENT_AT_ONCE: usize = 4;

impl CqlAccounts {
    /// Digests of what is left; two uploads at once may leave up to their size more than the bound.
    async fn digests(&self, op: Op, device: DeviceId) -> Result<Vec<Vec<u8>>, StoreError> {
        let key = (&device.as_bytes()[..],);
        let rows: Vec<(Option<Vec<u8>>,)> = self.store.rows(op, Statement::ReadDigests, key).await?;
        Ok(rows.into_iter().filter_map(|(digest,)| digest).collect())
    }

    async fn last_resort(&self, op: Op, device: DeviceId) -> Result<Option<Bytes>, StoreError> {
        let key = (&device.as_bytes()[..],);
        let found: Option<(Option<Bytes>,)> = self.store.first(op, Statement::ReadLastResort, key).await?;
        Ok(found.and_then(|(package,)| package))
    }

    pub(super) async fn stock(&self, device: DeviceId) -> Result<KeyPackageStock, StoreError> {
        const OP: Op = Op("count key packages");
        let (left, last_resort) = futures::try_join!(self.digests(OP, device), self.last_resort(OP, device))?;
        let left = u32::try_from(left.len()).unwrap_or(u32::MAX);
        Ok(KeyPackageStock { left, last_resort })
    }

    pub(super) async fn put_packages(
        &self,
        device: DeviceId,
        single_use: Vec<Bytes>,
        last_resort: Option<Bytes>,
    ) -> Result<KeyPackageStock, StoreError> {
        const OP: Op = Op("store key packages");
        let _turn = self.store.locks.turn(Turn::KeyPackages, device.as_bytes()).await;
        let key = device.as_bytes().to_vec();
        let before: BTreeSet<Vec<u8>> = self.digests(OP, device).await?.into_iter().collect();
        let named: BTreeMap<Vec<u8>, Bytes> =
            single_use.into_iter().map(|package| (Sha256::digest(&package).to_vec(), package)).collect();
        let put = |(digest, package): (&Vec<u8>, &Bytes)| {
            (Statement::PutPackage, (key.clone(), digest.clone(), package.clone()))
        };
        let mut writes: Vec<_> = named.iter().filter(|(digest, _)| !before.contains(*digest)).map(put).collect();
        while !writes.is_empty() {
            let rest = writes.split_off(writes.len().min(BATCH_PACKAGES_MAX));
            self.store.batch(OP, std::mem::replace(&mut writes, rest)).await?;
        }
        if before.len() + named.len() > KEY_PACKAGES_MAX {
            // What was spent before has not come back: only what is there counts.
            let there = self.digests(OP, device).await?;
            let surplus = there.len().saturating_sub(KEY_PACKAGES_MAX);
            let old = there.into_iter().filter(|digest| !named.contains_key(digest));
            self.spend(OP, device, old.take(surplus)).await?;
        }
        if let Some(package) = last_resort {
            let row = (self.store.stamps.next(), package, key);
            self.store.write(OP, Statement::PutLastResort, row).await?;
        }
        self.stock(device).await
    }

    /// Packages that give way to newer ones: nobody gets them any more.
    async fn spend(&self, op: Op, device: DeviceId, digests: impl Iterator<Item = Vec<u8>>) -> Result<(), StoreError> {
        let spending = digests.map(|digest| async move {
            self.store.decide(op, Statement::SpendPackage, (&device.as_bytes()[..], &digest[..])).await.map(|_| ())
        });
        stream::iter(spending.collect::<Vec<_>>()).buffer_unordered(SPENT_AT_ONCE).try_collect().await
    }

    /// A package whose spending has no known outcome counts as spent: the next one is tried.
    pub(super) async fn claim_package(&self, device: DeviceId) -> Result<Option<ClaimedKeyPackage>, StoreError> {
        const OP: Op = Op("claim a key package");
        let _turn = self.store.locks.turn(Turn::KeyPackages, device.as_bytes()).await;
        let key = &device.as_bytes()[..];
        let mut digests = self.digests(OP, device).await?;
        while !digests.is_empty() {
            // Any of them, so that claimers of other processes seldom want the same one.
            let digest = digests.swap_remove(rand::rng().random_range(0..digests.len()));
            let found: Option<(Option<Bytes>,)> =
                self.store.first(OP, Statement::ReadPackage, (key, &digest[..])).await?;
            let Some(key_package) = found.and_then(|(package,)| package) else { continue };
            if self.store.decide(OP, Statement::SpendPackage, (key, &digest[..])).await? {
                let left = u32::try_from(digests.len()).unwrap_or(u32::MAX);
                return Ok(Some(ClaimedKeyPackage { key_package, last_resort: false, left }));
            }
        }
        let package = self.last_resort(OP, device).await?;
        Ok(package.map(|key_package| ClaimedKeyPackage { key_package, last_resort: true, left: 0 }))
    }

    /// Deletes what devices that left their account's list have published.
    pub(super) async fn remove_packages(&self, devices: &[DeviceId]) -> Result<(), StoreError> {
        const OP: Op = Op("remove key packages");
        for device in devices {
            let row = (self.store.stamps.next(), &device.as_bytes()[..]);
            self.store.write(OP, Statement::RemovePackages, row).await?;
        }
        Ok(())
    }
}
