// SPDX-License-Identifier: MIT OR Apache-2.0
//! PublishKeyPackages and ClaimKeyPackages.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pli_api::directory::{
    ClaimKeyPackagesRequest, ClaimKeyPackagesResponse, DeviceKeyPackage, PublishKeyPackagesRequest,
    PublishKeyPackagesResponse,
};
use pli_api::{Caller, address};
use pli_domain::limits::{CLAIM_DEVICES_MAX, KEY_PACKAGES_MAX};
use pli_domain::{AccountId, DeviceAddress, DeviceId};
use pli_ports::{KeyPackageStock, StoreError};
use prost::Message;

use crate::device_lists::ANSWER_BYTES_MAX;
use crate::error::{ClaimError, PublishError};
use crate::key_package::{self, Holder, Kind};
use crate::list;
use crate::service::Inner;

/// Most bytes of one key package.
pub(crate) const KEY_PACKAGE_BYTES_MAX: usize = 4 * 1024;
/// Expired packages thrown away for one device of one claim: all that can be in stock, and the last-resort one.
const EXPIRED_MAX: usize = KEY_PACKAGES_MAX + 1;

impl Inner {
    /// Adds key packages of the calling device, all or none.
    pub(crate) async fn publish(
        &self,
        caller: Caller,
        request: PublishKeyPackagesRequest,
    ) -> Result<PublishKeyPackagesResponse, PublishError> {
        let caller = caller.authenticated().map_err(|refused| PublishError::Caller(Box::new(refused)))?;
        let last_resort = Some(request.last_resort).filter(|p| !p.is_empty());
        let packages = request.key_packages;
        check_sizes(&packages, last_resort.as_ref())?;
        self.limits.publications.take(&caller.account, packages.len() + usize::from(last_resort.is_some()))?;

        let holder = self.holder(caller).await?;
        for (index, package) in packages.iter().enumerate() {
            key_package::verify(&self.crypto, package, &holder, Kind::SingleUse)
                .map_err(|source| PublishError::Invalid { index, source })?;
        }
        if let Some(package) = &last_resort {
            key_package::verify(&self.crypto, package, &holder, Kind::LastResort)
                .map_err(PublishError::InvalidLastResort)?;
        }
        let count = packages.len() as u64;
        let stock = self.accounts.put_key_packages(caller.device, packages, last_resort).await?;
        self.metrics.published.add(count, &[]);
        Ok(PublishKeyPackagesResponse { stock: stock.left })
    }

    async fn holder(&self, device: DeviceAddress) -> Result<Holder, PublishError> {
        let account = self.accounts.account(device.account).await?;
        let devices = account.map(|account| list::stored(&account.devices)).transpose()?;
        let listed = devices.and_then(|(_, devices)| devices.into_iter().find(|d| d.device == device.device));
        match listed {
            Some(listed) => Ok(Holder { address: device, key: listed.key, post_quantum: self.config.post_quantum }),
            None => Err(PublishError::NotListed(Box::new(self.not_listed(device).await?))),
        }
    }

    /// Takes one package of each device. Nothing is taken when a device is unknown or has none at all, so a refusal
    /// spends nothing.
    pub(crate) async fn claim(
        &self,
        caller: Caller,
        request: ClaimKeyPackagesRequest,
    ) -> Result<ClaimKeyPackagesResponse, ClaimError> {
        let caller = caller.authenticated().map_err(|refused| ClaimError::Caller(Box::new(refused)))?;
        if !(1..=CLAIM_DEVICES_MAX).contains(&request.devices.len()) {
            return Err(ClaimError::Count(request.devices.len()));
        }
        let wanted = request.devices.iter().map(|d| address("devices", Some(d))).collect::<Result<Vec<_>, _>>()?;
        if wanted.iter().collect::<BTreeSet<_>>().len() != wanted.len() {
            return Err(ClaimError::Duplicate);
        }
        self.limits.claims.take(&caller.account, wanted.len())?;
        self.check_listed(&wanted).await?;
        self.check_stocked(&wanted).await?;
        self.limit_each(caller.account, &wanted)?;

        let mut response = ClaimKeyPackagesResponse::default();
        let mut bytes = 0;
        for device in wanted {
            // The rest is asked for again; a claimed package that did not fit would be lost.
            if bytes + KEY_PACKAGE_BYTES_MAX + 64 > ANSWER_BYTES_MAX {
                break;
            }
            let key_package = match self.take(device).await {
                Ok(key_package) => key_package,
                // What was taken must not be lost with the refusal; asking for the rest meets it again.
                Err(_) if !response.key_packages.is_empty() => break,
                Err(error) => return Err(error),
            };
            let taken = DeviceKeyPackage { device: Some(device.into()), key_package };
            bytes += taken.encoded_len() + 8;
            response.key_packages.push(taken);
        }
        Ok(response)
    }

    /// Every other account whose packages are claimed has its own limit of this claimer. Only accounts that exist and
    /// have packages are counted; whoever brings its own devices into its groups takes nothing from anybody.
    fn limit_each(&self, claimer: AccountId, wanted: &[DeviceAddress]) -> Result<(), ClaimError> {
        let mut counts: BTreeMap<AccountId, usize> = BTreeMap::new();
        for address in wanted.iter().filter(|address| address.account != claimer) {
            *counts.entry(address.account).or_default() += 1;
        }
        for (owner, count) in counts {
            self.limits.claims_of_one.take(&(claimer, owner), count)?;
        }
        Ok(())
    }

    /// Every device stands in the list of the account that it is said to belong to.
    async fn check_listed(&self, wanted: &[DeviceAddress]) -> Result<(), ClaimError> {
        let mut listed: BTreeMap<AccountId, Vec<DeviceId>> = BTreeMap::new();
        for address in wanted {
            if let Entry::Vacant(vacant) = listed.entry(address.account) {
                let record = self.accounts.account(address.account).await?;
                vacant.insert(record.map(|r| r.devices.devices).unwrap_or_default());
            }
        }
        let unknown = |a: &&DeviceAddress| !listed.get(&a.account).is_some_and(|devices| devices.contains(&a.device));
        let unknown: Vec<_> = wanted.iter().filter(unknown).copied().collect();
        if unknown.is_empty() { Ok(()) } else { Err(ClaimError::UnknownDevices(unknown)) }
    }

    async fn check_stocked(&self, wanted: &[DeviceAddress]) -> Result<(), ClaimError> {
        let mut exhausted = Vec::new();
        for &address in wanted {
            let stock = self.stock(address.device).await?;
            if stock.left == 0 && stock.last_resort.is_none() {
                exhausted.push(address);
            }
        }
        if exhausted.is_empty() { Ok(()) } else { Err(ClaimError::Exhausted(exhausted)) }
    }

    /// What a device has published, without a last-resort package that has expired, which is never taken away: it stands
    /// for a device that nobody can add. Whatever single-use packages have expired goes with the next claim.
    pub(crate) async fn stock(&self, device: DeviceId) -> Result<KeyPackageStock, StoreError> {
        let mut stock = self.accounts.key_package_stock(device).await?;
        // Only looked at where it decides: every hello of a device comes here.
        if stock.left == 0 {
            stock.last_resort = stock.last_resort.filter(|package| key_package::still_valid(&self.crypto, package));
        }
        Ok(stock)
    }

    /// The first package in stock that has not expired meanwhile.
    async fn take(&self, device: DeviceAddress) -> Result<Bytes, ClaimError> {
        for _ in 0..=EXPIRED_MAX {
            let Some(claimed) = self.accounts.claim_key_package(device.device).await? else { break };
            if key_package::still_valid(&self.crypto, &claimed.key_package) {
                self.metrics.claimed(if claimed.last_resort { "last_resort" } else { "single_use" });
                return Ok(claimed.key_package);
            }
            self.metrics.claimed("expired");
            if claimed.last_resort {
                break;
            }
        }
        Err(ClaimError::Exhausted(vec![device]))
    }
}

fn check_sizes(packages: &[Bytes], last_resort: Option<&Bytes>) -> Result<(), PublishError> {
    if packages.len() > KEY_PACKAGES_MAX {
        return Err(PublishError::TooMany(packages.len()));
    }
    match packages.iter().chain(last_resort).enumerate().find(|(_, p)| p.len() > KEY_PACKAGE_BYTES_MAX) {
        Some((index, package)) => {
            let field = if index < packages.len() { format!("key_packages[{index}]") } else { "last_resort".into() };
            Err(PublishError::TooLarge { field, bytes: package.len() })
        }
        None => Ok(()),
    }
}
