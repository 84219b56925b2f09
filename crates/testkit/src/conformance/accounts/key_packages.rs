// SPDX-License-Identifier: MIT OR Apache-2.0
//! Key packages: each is handed out once, but for those of last resort.

use std::collections::BTreeSet;

use pli_domain::limits::KEY_PACKAGES_MAX;

use super::removals::removal;
use super::*;

pub(super) async fn key_packages_are_claimed_once_each(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    let stock = accounts.put_key_packages(device(1), (0..5).map(package).collect(), None).await?;
    check_eq!(stock, KeyPackageStock { left: 5, last_resort: None }, "stock");
    let mut claimed = BTreeSet::new();
    for left in (0..5).rev() {
        let found = accounts.claim_key_package(device(1)).await?;
        let found = found.ok_or_else(|| Stop::failed("no key package although some are left"))?;
        check_eq!((found.left, found.last_resort), (left, false), "what is left");
        claimed.insert(found.key_package);
    }
    check_eq!(claimed, (0..5).map(package).collect::<BTreeSet<_>>(), "key packages claimed");
    check_eq!(accounts.claim_key_package(device(1)).await?, None, "a sixth of five key packages");
    check_eq!(accounts.key_package_stock(device(1)).await?.left, 0, "stock");
    Ok(())
}

pub(super) async fn racing_claimers_get_different_key_packages(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    accounts.put_key_packages(device(1), (0..60).map(package).collect(), Some(package(999))).await?;
    let mut race = JoinSet::new();
    for _ in 0..100 {
        let accounts = accounts.clone();
        race.spawn(async move { accounts.claim_key_package(device(1)).await });
    }
    let (mut single, mut last_resort) = (Vec::new(), 0);
    while let Some(done) = race.join_next().await {
        match done?? {
            Some(found) if found.last_resort => last_resort += 1,
            Some(found) => single.push(found.key_package),
            None => return Err(Stop::failed("no key package although there is one of last resort")),
        }
    }
    check_eq!((single.len(), last_resort), (60, 40), "single-use and last-resort packages handed out");
    check_eq!(single.into_iter().collect::<BTreeSet<_>>().len(), 60, "different single-use packages");
    Ok(())
}

pub(super) async fn the_last_resort_package_is_handed_out_again(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    let stock = accounts.put_key_packages(device(1), vec![package(1)], Some(package(9))).await?;
    check_eq!(stock, KeyPackageStock { left: 1, last_resort: Some(package(9)) }, "stock");
    let mut claimed = Vec::new();
    for _ in 0..4 {
        let found = accounts.claim_key_package(device(1)).await?;
        claimed.extend(found.map(|found| (found.key_package, found.last_resort)));
    }
    let last = (package(9), true);
    check_eq!(claimed, [(package(1), false), last.clone(), last.clone(), last], "key packages claimed");
    accounts.put_key_packages(device(1), Vec::new(), Some(package(8))).await?;
    accounts.put_key_packages(device(1), Vec::new(), None).await?;
    let newest = accounts.claim_key_package(device(1)).await?.map(|found| found.key_package);
    check_eq!(newest, Some(package(8)), "the newest last-resort package");
    Ok(())
}

pub(super) async fn a_look_at_the_stock_takes_nothing_and_shows_the_newest_last_resort_package(
    h: &mut dyn Harness<Store>,
) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    accounts.put_key_packages(device(1), vec![package(1)], Some(package(9))).await?;
    for left in [1, 0] {
        let stock = KeyPackageStock { left, last_resort: Some(package(9)) };
        for _ in 0..2 {
            check_eq!(accounts.key_package_stock(device(1)).await?, stock.clone(), "stock with {left} left");
        }
        accounts.claim_key_package(device(1)).await?;
    }
    accounts.put_key_packages(device(1), Vec::new(), Some(package(8))).await?;
    let stock = KeyPackageStock { left: 0, last_resort: Some(package(8)) };
    check_eq!(accounts.key_package_stock(device(1)).await?, stock, "stock after another last-resort package");
    // What is published between a look and the next is not touched by either.
    accounts.put_key_packages(device(1), vec![package(2)], None).await?;
    let stock = KeyPackageStock { left: 1, ..stock };
    check_eq!(accounts.key_package_stock(device(1)).await?, stock.clone(), "stock after a single-use package");
    check_eq!(accounts.key_package_stock(device(1)).await?, stock, "stock after a look");
    let claimed = accounts.claim_key_package(device(1)).await?.map(|found| found.key_package);
    check_eq!(claimed, Some(package(2)), "what was published after looks");
    Ok(())
}

pub(super) async fn a_key_package_stored_before_is_not_stored_twice(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    for _ in 0..2 {
        let both = vec![package(1), package(2), package(1)];
        check_eq!(accounts.put_key_packages(device(1), both, None).await?.left, 2, "stock of two packages");
    }
    let claimed = accounts.claim_key_package(device(1)).await?.map(|found| found.key_package);
    // A retry that arrives late must not put back what somebody was handed.
    let stock = accounts.put_key_packages(device(1), vec![package(1), package(2)], None).await?;
    check_eq!(stock.left, 1, "stock after {claimed:?} was handed out");
    let other = accounts.claim_key_package(device(1)).await?.map(|found| found.key_package);
    check!(other != claimed, "{claimed:?} was handed out twice");
    Ok(())
}

pub(super) async fn a_stock_of_key_packages_is_bounded(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    let full = u32::try_from(KEY_PACKAGES_MAX)?;
    let stock = accounts.put_key_packages(device(1), (0..KEY_PACKAGES_MAX).map(package).collect(), None).await?;
    check_eq!(stock.left, full, "a full stock");
    let stock = accounts.put_key_packages(device(1), vec![package(1_000)], Some(package(999))).await?;
    check_eq!(stock, KeyPackageStock { left: full, last_resort: Some(package(999)) }, "one above a full stock");
    let claimed = claim_all(&*accounts).await?;
    check!(claimed.contains(&package(1_000)), "the newest was left out");
    check_eq!(claimed.len(), KEY_PACKAGES_MAX, "claimed of a full stock");
    let stock = accounts.put_key_packages(device(1), vec![package(1_001)], None).await?;
    check_eq!(stock.left, 1, "a stock that has room again");
    Ok(())
}

pub(super) async fn a_full_stock_of_key_packages_gives_way_to_newer_ones(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    let many = |from: usize| (from..from + KEY_PACKAGES_MAX).map(package).collect::<Vec<_>>();
    accounts.put_key_packages(device(1), many(0), Some(package(9_999))).await?;
    for _ in 0..2 {
        let stock = accounts.put_key_packages(device(1), many(1_000), None).await?;
        check_eq!(stock.left, u32::try_from(KEY_PACKAGES_MAX)?, "the stock, and of the same call again");
    }
    // What gave way does not come back.
    accounts.put_key_packages(device(1), many(0)[..50].to_vec(), None).await?;
    let claimed: BTreeSet<Bytes> = claim_all(&*accounts).await?.into_iter().collect();
    check_eq!(claimed, many(1_000).into_iter().collect::<BTreeSet<Bytes>>(), "claimed after all were made anew");
    Ok(())
}

/// Every single-use package of the first device, in the order in which they are handed out.
async fn claim_all(accounts: &dyn Accounts) -> Result<Vec<Bytes>, pli_ports::StoreError> {
    let mut claimed = Vec::new();
    while let Some(found) = accounts.claim_key_package(device(1)).await?.filter(|found| !found.last_resort) {
        claimed.push(found.key_package);
    }
    Ok(claimed)
}

pub(super) async fn key_packages_of_devices_are_apart(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    accounts.create(new(2, "bob")?).await?;
    accounts.put_key_packages(device(1), vec![package(1)], Some(package(9))).await?;
    let none = KeyPackageStock::default();
    check_eq!(accounts.key_package_stock(device(2)).await?, none, "stock of the other device");
    check_eq!(accounts.claim_key_package(device(2)).await?, None, "a key package of the other device");
    // The same bytes may be published by two devices.
    check_eq!(accounts.put_key_packages(device(2), vec![package(1)], None).await?.left, 1, "stock of the other device");
    Ok(())
}

pub(super) async fn key_packages_of_a_device_that_was_left_out_are_deleted(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    put(&*accounts, 1, list(2, &[1, 11])).await?;
    for number in [1, 11] {
        accounts.put_key_packages(device(number), vec![package(1)], Some(package(9))).await?;
    }
    put(&*accounts, 1, list(3, &[1])).await?;
    check_eq!(accounts.claim_key_package(device(11)).await?, None, "a key package of the device left out");
    let none = KeyPackageStock::default();
    check_eq!(accounts.key_package_stock(device(11)).await?, none, "stock of the device left out");
    check_eq!(accounts.key_package_stock(device(1)).await?.left, 1, "stock of the device that stays");
    // What comes late, from who had read the list before, goes with the end of the removal.
    accounts.put_key_packages(device(11), vec![package(2)], Some(package(8))).await?;
    accounts.finish_removal(removal(3, 11)).await?;
    check_eq!(accounts.key_package_stock(device(11)).await?, none, "stock of the device left out, once it is finished");
    check_eq!(accounts.key_package_stock(device(1)).await?.left, 1, "stock of the device that stays");
    Ok(())
}
