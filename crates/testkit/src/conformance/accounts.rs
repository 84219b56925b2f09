// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every [`Accounts`] does.

use std::collections::BTreeSet;

use bytes::Bytes;
use pli_domain::limits::{DEVICE_LISTS_KEPT, KEY_PACKAGES_MAX};
use pli_domain::{AccountId, DeviceId, Handle, UnixMillis};
use pli_ports::{
    AccountRecord, Accounts, CreateAccountError, DeviceListRecord, KeyPackageStock, ListHash, NewAccount,
    PutDeviceListError, Removal,
};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use super::{Harness, Outcome, Restart, Stop, id_bytes, restarted, rivals};

type Store = dyn Accounts;

cases! { Store:
    an_account_is_found_by_id_and_by_handle,
    what_was_never_created_is_absent,
    creating_the_same_account_again_is_accepted,
    a_taken_handle_is_refused_and_leaves_nothing,
    a_taken_account_id_is_refused,
    a_taken_device_id_is_refused_and_leaves_nothing,
    racing_accounts_claim_a_handle_once,
    a_device_list_follows_the_one_before,
    a_device_list_that_does_not_follow_is_refused,
    a_device_list_made_from_another_is_refused,
    a_device_list_with_another_accounts_device_is_refused,
    a_device_that_was_removed_never_comes_back,
    a_device_of_a_list_that_lost_its_version_may_be_named_again,
    a_refused_device_list_leaves_no_claim,
    racing_device_lists_are_taken_once,
    a_chain_is_read_in_order_from_any_version,
    the_newest_lists_of_a_chain_are_kept,
    a_device_is_known_to_be_an_accounts_for_ever,
    key_packages_are_claimed_once_each,
    racing_claimers_get_different_key_packages,
    the_last_resort_package_is_handed_out_again,
    a_key_package_stored_before_is_not_stored_twice,
    a_stock_of_key_packages_is_bounded,
    a_full_stock_of_key_packages_gives_way_to_newer_ones,
    key_packages_of_devices_are_apart,
    key_packages_of_a_device_that_was_left_out_are_deleted,
    a_removal_is_there_until_it_is_finished,
    a_list_that_is_refused_removes_nothing,
    a_removal_is_there_in_time_for_whoever_sees_the_list,
    removals_are_read_in_pages,
    removals_survive_a_restart,
    removals_survive_a_kill,
    removals_survive_a_power_cut,
    accounts_survive_a_restart,
    accounts_survive_a_kill,
    accounts_survive_a_power_cut,
}

const NOW: UnixMillis = UnixMillis(1_767_225_600_000);

fn account(number: u64) -> AccountId {
    AccountId::from_bytes(id_bytes(6, number))
}

fn device(number: u64) -> DeviceId {
    DeviceId::from_bytes(id_bytes(7, number))
}

fn handle(name: &str) -> Result<Handle, Stop> {
    Ok(name.parse()?)
}

fn list(version: u64, devices: &[u64]) -> DeviceListRecord {
    let signed = Bytes::from(format!("list {version} of {devices:?}"));
    DeviceListRecord { version, signed, devices: devices.iter().copied().map(device).collect() }
}

fn hash(list: &DeviceListRecord) -> ListHash {
    Sha256::digest(&list.signed).into()
}

/// Puts `list` behind the newest one, as who has just fetched that one does.
async fn put(accounts: &Store, number: u64, list: DeviceListRecord) -> Result<Vec<DeviceId>, PutDeviceListError> {
    let newest = accounts.account(account(number)).await?.map(|account| hash(&account.devices));
    accounts.put_device_list(account(number), newest.unwrap_or_default(), list).await
}

/// Account `number` with one device of the same number.
fn new(number: u64, name: &str) -> Result<NewAccount, Stop> {
    let handle = handle(name)?;
    let identity_key = [number as u8; 32];
    Ok(NewAccount { account: account(number), handle, identity_key, devices: list(1, &[number]), created_at: NOW })
}

fn record(new: &NewAccount) -> AccountRecord {
    let NewAccount { account, handle, identity_key, devices, .. } = new.clone();
    AccountRecord { account, handle, identity_key, devices }
}

fn package(number: usize) -> Bytes {
    Bytes::from(format!("key package {number}"))
}

async fn an_account_is_found_by_id_and_by_handle(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    for (number, name) in [(1, "alice"), (2, "alic"), (3, "alice_"), (4, "alice.b")] {
        let made = new(number, name)?;
        accounts.create(made.clone()).await?;
        check_eq!(accounts.account(account(number)).await?, Some(record(&made)), "account {number}");
        check_eq!(accounts.by_handle(&handle(name)?).await?, Some(record(&made)), "the account of {name}");
    }
    // Handles are lower-cased on input.
    check_eq!(accounts.by_handle(&handle("ALICE")?).await?.map(|a| a.account), Some(account(1)), "ALICE");
    Ok(())
}

async fn what_was_never_created_is_absent(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    check_eq!(accounts.account(account(2)).await?, None, "an account that never was");
    for name in ["alic", "alicf", "alice.", "al_ce"] {
        check_eq!(accounts.by_handle(&handle(name)?).await?, None, "the account of {name}");
    }
    check_eq!(accounts.claim_key_package(device(9)).await?, None, "a key package of a device that never was");
    let none = KeyPackageStock { left: 0, last_resort: false };
    check_eq!(accounts.key_package_stock(device(9)).await?, none, "stock of a device that never was");
    let unknown = put(&*accounts, 2, list(1, &[2])).await;
    check!(matches!(unknown, Err(PutDeviceListError::UnknownAccount)), "a list of no account: {unknown:?}");
    Ok(())
}

async fn creating_the_same_account_again_is_accepted(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    let made = new(1, "alice")?;
    for _ in 0..3 {
        accounts.create(made.clone()).await?;
    }
    put(&*accounts, 1, list(2, &[1, 8])).await?;
    accounts.create(made).await?;
    let found = accounts.account(account(1)).await?.map(|account| account.devices);
    check_eq!(found, Some(list(2, &[1, 8])), "the device list after a late retry of the creation");
    Ok(())
}

async fn a_taken_handle_is_refused_and_leaves_nothing(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    let second = accounts.create(new(2, "alice")?).await;
    check!(matches!(second, Err(CreateAccountError::HandleTaken)), "a taken handle: {second:?}");
    check_eq!(accounts.account(account(2)).await?, None, "the account that was refused");
    check_eq!(accounts.by_handle(&handle("alice")?).await?.map(|a| a.account), Some(account(1)), "the handle");
    accounts.create(new(2, "bob")?).await?;
    Ok(())
}

async fn a_taken_account_id_is_refused(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    let other_key = NewAccount { identity_key: [9; 32], ..new(1, "alice")? };
    let other_handle = NewAccount { devices: list(1, &[5]), ..new(1, "bob")? };
    for taken in [other_key, other_handle] {
        let answer = accounts.create(taken).await;
        check!(matches!(answer, Err(CreateAccountError::IdTaken)), "a taken account id: {answer:?}");
    }
    check_eq!(accounts.by_handle(&handle("bob")?).await?, None, "the handle of the refused account");
    check_eq!(accounts.account(account(1)).await?, Some(record(&new(1, "alice")?)), "the account");
    Ok(())
}

async fn a_taken_device_id_is_refused_and_leaves_nothing(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    let answer = accounts.create(NewAccount { devices: list(1, &[1]), ..new(2, "bob")? }).await;
    check!(matches!(answer, Err(CreateAccountError::IdTaken)), "a taken device id: {answer:?}");
    check_eq!(accounts.account(account(2)).await?, None, "the account that was refused");
    check_eq!(accounts.by_handle(&handle("bob")?).await?, None, "the handle of the refused account");
    accounts.create(new(2, "bob")?).await?;
    Ok(())
}

async fn racing_accounts_claim_a_handle_once(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    let mut race = JoinSet::new();
    for number in 0..rivals(h).min(200) as u64 {
        let (accounts, made) = (accounts.clone(), new(number, "alice")?);
        race.spawn(async move { (number, accounts.create(made).await) });
    }
    let mut winners = Vec::new();
    while let Some(done) = race.join_next().await {
        match done? {
            (number, Ok(())) => winners.push(account(number)),
            (_, Err(CreateAccountError::HandleTaken)) => {}
            (number, Err(error)) => return Err(Stop::failed(format!("account {number}: {error}"))),
        }
    }
    check_eq!(winners.len(), 1, "accounts that got the handle: {winners:?}");
    check_eq!(accounts.by_handle(&handle("alice")?).await?.map(|a| a.account), Some(winners[0]), "its holder");
    Ok(())
}

async fn a_device_list_follows_the_one_before(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    let mut newest = list(1, &[1]);
    for (next, gone) in [(list(2, &[1, 11]), vec![]), (list(3, &[11]), vec![device(1)]), (list(4, &[11, 12]), vec![])] {
        for _ in 0..2 {
            let left_out = accounts.put_device_list(account(1), hash(&newest), next.clone()).await?;
            check_eq!(left_out, gone, "the devices that version {} left out", next.version);
            let found = accounts.account(account(1)).await?.map(|account| account.devices);
            check_eq!(found, Some(next.clone()), "the device list");
        }
        newest = next;
    }
    let by_handle = accounts.by_handle(&handle("alice")?).await?.map(|account| account.devices);
    check_eq!(by_handle, Some(list(4, &[11, 12])), "the device list found by handle");
    Ok(())
}

async fn a_device_list_that_does_not_follow_is_refused(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    put(&*accounts, 1, list(2, &[1, 11])).await?;
    let other_bytes = DeviceListRecord { signed: Bytes::from_static(b"another"), ..list(2, &[1, 11]) };
    for refused in [list(1, &[1]), other_bytes, list(4, &[1]), list(0, &[]), list(u64::MAX, &[1])] {
        let answer = put(&*accounts, 1, refused.clone()).await;
        let told = matches!(answer, Err(PutDeviceListError::Version { current: 2 }));
        check!(told, "version {} after version 2: {answer:?}", refused.version);
    }
    let found = accounts.account(account(1)).await?.map(|account| account.devices);
    check_eq!(found, Some(list(2, &[1, 11])), "the device list");
    Ok(())
}

async fn a_device_list_made_from_another_is_refused(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    put(&*accounts, 1, list(2, &[1, 11])).await?;
    for other in [hash(&list(1, &[1])), hash(&list(2, &[1, 12])), [0; 32]] {
        let answer = accounts.put_device_list(account(1), other, list(3, &[1])).await;
        let told = matches!(answer, Err(PutDeviceListError::Previous { current: 2 }));
        check!(told, "a version 3 made from another version 2: {answer:?}");
    }
    let found = accounts.account(account(1)).await?.map(|account| account.devices);
    check_eq!(found, Some(list(2, &[1, 11])), "the device list");
    Ok(())
}

async fn a_device_list_with_another_accounts_device_is_refused(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    accounts.create(new(2, "bob")?).await?;
    put(&*accounts, 2, list(2, &[2, 22])).await?;
    put(&*accounts, 2, list(3, &[2])).await?;
    // Bob's device, and one that he had once: ids are never reused.
    for devices in [&[1, 2][..], &[2], &[1, 22]] {
        let answer = put(&*accounts, 1, list(2, devices)).await;
        check!(matches!(answer, Err(PutDeviceListError::IdTaken)), "a list of {devices:?}: {answer:?}");
    }
    check_eq!(accounts.account(account(1)).await?, Some(record(&new(1, "alice")?)), "the account after refusals");
    let theirs = accounts.account(account(2)).await?.map(|account| account.devices);
    check_eq!(theirs, Some(list(3, &[2])), "the other account's list");
    Ok(())
}

async fn a_device_that_was_removed_never_comes_back(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    for next in [list(2, &[1, 11]), list(3, &[11]), list(4, &[11, 12])] {
        put(&*accounts, 1, next).await?;
    }
    for devices in [&[1][..], &[11, 12, 1], &[11, 13, 1]] {
        let answer = put(&*accounts, 1, list(5, devices)).await;
        check!(matches!(answer, Err(PutDeviceListError::Removed)), "a list of {devices:?}: {answer:?}");
    }
    let found = accounts.account(account(1)).await?.map(|account| account.devices);
    check_eq!(found, Some(list(4, &[11, 12])), "the list after refusals");
    put(&*accounts, 1, list(5, &[11, 12, 13])).await?;
    Ok(())
}

async fn a_device_of_a_list_that_lost_its_version_may_be_named_again(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    let first = hash(&list(1, &[1]));
    let mut race = JoinSet::new();
    for number in 0..8 {
        let accounts = accounts.clone();
        race.spawn(async move { accounts.put_device_list(account(1), first, list(2, &[1, 100 + number])).await });
    }
    while race.join_next().await.is_some() {}
    let newest = accounts.account(account(1)).await?.ok_or_else(|| Stop::failed("no account"))?.devices;
    // Whoever lost makes the change again, with the device that is made already.
    let lost = (100..108).find(|number| !newest.devices.contains(&device(*number)));
    let lost = lost.ok_or_else(|| Stop::failed("nobody lost"))?;
    put(&*accounts, 1, list(3, &[1, lost])).await?;
    Ok(())
}

async fn a_refused_device_list_leaves_no_claim(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    accounts.create(new(2, "bob")?).await?;
    put(&*accounts, 1, list(2, &[1, 11])).await?;
    put(&*accounts, 1, list(3, &[1])).await?;
    let answer = put(&*accounts, 1, list(4, &[1, 12, 13, 2])).await;
    check!(matches!(answer, Err(PutDeviceListError::IdTaken)), "a list with another's device: {answer:?}");
    // Ids that were new are free; one of a former list is not.
    put(&*accounts, 2, list(2, &[2, 12, 13])).await?;
    let answer = put(&*accounts, 2, list(3, &[2, 11])).await;
    check!(matches!(answer, Err(PutDeviceListError::IdTaken)), "a device that another had once: {answer:?}");
    Ok(())
}

async fn racing_device_lists_are_taken_once(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    let mut race = JoinSet::new();
    for number in 0..32 {
        let (accounts, first) = (accounts.clone(), hash(&list(1, &[1])));
        let rival = list(2, &[1, 100 + number]);
        race.spawn(async move { accounts.put_device_list(account(1), first, rival).await });
    }
    let mut taken = 0;
    while let Some(done) = race.join_next().await {
        match done? {
            Ok(_) => taken += 1,
            Err(PutDeviceListError::Version { current: 2 }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    check_eq!(taken, 1, "lists taken as version 2");
    let chain = accounts.device_lists(account(1), 0, 9).await?;
    let newest = accounts.account(account(1)).await?.map(|account| account.devices);
    check_eq!(chain, [Some(list(1, &[1])), newest].into_iter().flatten().collect::<Vec<_>>(), "the chain");
    Ok(())
}

async fn a_chain_is_read_in_order_from_any_version(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    let chain: Vec<_> = std::iter::once(list(1, &[1])).chain((2..=5).map(|v| list(v, &[1, 10 + v]))).collect();
    for next in &chain[1..] {
        put(&*accounts, 1, next.clone()).await?;
    }
    for (after, max, found) in [(0, 9, &chain[..]), (1, 9, &chain[1..]), (1, 2, &chain[1..3]), (4, 9, &chain[4..])] {
        let lists = accounts.device_lists(account(1), after, max).await?;
        check_eq!(lists, found.to_vec(), "{max} lists above version {after}");
    }
    for after in [5, 6, u64::MAX] {
        check_eq!(accounts.device_lists(account(1), after, 9).await?, Vec::new(), "lists above version {after}");
    }
    check_eq!(accounts.device_lists(account(2), 0, 9).await?, Vec::new(), "lists of no account");
    Ok(())
}

async fn the_newest_lists_of_a_chain_are_kept(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    let newest = DEVICE_LISTS_KEPT + 3;
    let mut before = hash(&list(1, &[1]));
    for version in 2..=newest {
        let next = list(version, &[1]);
        accounts.put_device_list(account(1), before, next.clone()).await?;
        before = hash(&next);
    }
    let lists = accounts.device_lists(account(1), 0, usize::MAX).await?;
    let versions: Vec<u64> = lists.iter().map(|list| list.version).collect();
    check_eq!(versions, (4..=newest).collect::<Vec<_>>(), "versions that are kept");
    Ok(())
}

async fn a_device_is_known_to_be_an_accounts_for_ever(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    put(&*accounts, 1, list(2, &[1, 11])).await?;
    put(&*accounts, 1, list(3, &[1])).await?;
    for (number, owner) in [(1, Some(account(1))), (11, Some(account(1))), (12, None)] {
        check_eq!(accounts.device_account(device(number)).await?, owner, "the account of device {number}");
    }
    Ok(())
}

async fn key_packages_are_claimed_once_each(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    let stock = accounts.put_key_packages(device(1), (0..5).map(package).collect(), None).await?;
    check_eq!(stock, KeyPackageStock { left: 5, last_resort: false }, "stock");
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

async fn racing_claimers_get_different_key_packages(h: &mut dyn Harness<Store>) -> Outcome {
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

async fn the_last_resort_package_is_handed_out_again(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    let stock = accounts.put_key_packages(device(1), vec![package(1)], Some(package(9))).await?;
    check_eq!(stock, KeyPackageStock { left: 1, last_resort: true }, "stock");
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

async fn a_key_package_stored_before_is_not_stored_twice(h: &mut dyn Harness<Store>) -> Outcome {
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

async fn a_stock_of_key_packages_is_bounded(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    let full = u32::try_from(KEY_PACKAGES_MAX)?;
    let stock = accounts.put_key_packages(device(1), (0..KEY_PACKAGES_MAX).map(package).collect(), None).await?;
    check_eq!(stock.left, full, "a full stock");
    let stock = accounts.put_key_packages(device(1), vec![package(1_000)], Some(package(999))).await?;
    check_eq!(stock, KeyPackageStock { left: full, last_resort: true }, "one above a full stock");
    let claimed = claim_all(&*accounts).await?;
    check!(claimed.contains(&package(1_000)), "the newest was left out");
    check_eq!(claimed.len(), KEY_PACKAGES_MAX, "claimed of a full stock");
    let stock = accounts.put_key_packages(device(1), vec![package(1_001)], None).await?;
    check_eq!(stock.left, 1, "a stock that has room again");
    Ok(())
}

async fn a_full_stock_of_key_packages_gives_way_to_newer_ones(h: &mut dyn Harness<Store>) -> Outcome {
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

async fn key_packages_of_devices_are_apart(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    accounts.create(new(2, "bob")?).await?;
    accounts.put_key_packages(device(1), vec![package(1)], Some(package(9))).await?;
    let none = KeyPackageStock { left: 0, last_resort: false };
    check_eq!(accounts.key_package_stock(device(2)).await?, none, "stock of the other device");
    check_eq!(accounts.claim_key_package(device(2)).await?, None, "a key package of the other device");
    // The same bytes may be published by two devices.
    check_eq!(accounts.put_key_packages(device(2), vec![package(1)], None).await?.left, 1, "stock of the other device");
    Ok(())
}

async fn key_packages_of_a_device_that_was_left_out_are_deleted(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    put(&*accounts, 1, list(2, &[1, 11])).await?;
    for number in [1, 11] {
        accounts.put_key_packages(device(number), vec![package(1)], Some(package(9))).await?;
    }
    put(&*accounts, 1, list(3, &[1])).await?;
    check_eq!(accounts.claim_key_package(device(11)).await?, None, "a key package of the device left out");
    let none = KeyPackageStock { left: 0, last_resort: false };
    check_eq!(accounts.key_package_stock(device(11)).await?, none, "stock of the device left out");
    check_eq!(accounts.key_package_stock(device(1)).await?.left, 1, "stock of the device that stays");
    // What comes late, from who had read the list before, goes with the end of the removal.
    accounts.put_key_packages(device(11), vec![package(2)], Some(package(8))).await?;
    accounts.finish_removal(removal(3, 11)).await?;
    check_eq!(accounts.key_package_stock(device(11)).await?, none, "stock of the device left out, once it is finished");
    check_eq!(accounts.key_package_stock(device(1)).await?.left, 1, "stock of the device that stays");
    Ok(())
}

fn removal(version: u64, number: u64) -> Removal {
    Removal { account: account(1), version, device: device(number) }
}

async fn removals(accounts: &Store) -> Result<BTreeSet<Removal>, Stop> {
    Ok(accounts.removals(None, 100).await?.into_iter().collect())
}

async fn a_removal_is_there_until_it_is_finished(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    put(&*accounts, 1, list(2, &[1, 11, 12])).await?;
    check_eq!(removals(&*accounts).await?, BTreeSet::new(), "removals before any");
    put(&*accounts, 1, list(3, &[1, 12])).await?;
    let third = hash(&list(3, &[1, 12]));
    accounts.put_device_list(account(1), third, list(4, &[1])).await?;
    let both = BTreeSet::from([removal(3, 11), removal(4, 12)]);
    for _ in 0..2 {
        check_eq!(removals(&*accounts).await?, both.clone(), "removals of two lists");
    }
    for _ in 0..2 {
        accounts.finish_removal(removal(3, 11)).await?;
        check_eq!(removals(&*accounts).await?, BTreeSet::from([removal(4, 12)]), "what is left of them");
    }
    accounts.finish_removal(removal(4, 12)).await?;
    check_eq!(removals(&*accounts).await?, BTreeSet::new(), "removals that are all finished");
    Ok(())
}

async fn a_list_that_is_refused_removes_nothing(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    accounts.create(new(2, "bob")?).await?;
    put(&*accounts, 1, list(2, &[1, 11])).await?;
    let second = hash(&list(2, &[1, 11]));
    for refused in [(second, list(4, &[1])), (hash(&list(1, &[1])), list(3, &[1])), (second, list(3, &[1, 2]))] {
        let answer = accounts.put_device_list(account(1), refused.0, refused.1).await;
        check!(answer.is_err(), "a list that does not fit: {answer:?}");
    }
    // Of rivals one wins; what the others would have left out stays.
    let mut race = JoinSet::new();
    for number in [1, 11] {
        let accounts = accounts.clone();
        race.spawn(async move { accounts.put_device_list(account(1), second, list(3, &[number])).await });
    }
    while race.join_next().await.is_some() {}
    let newest = accounts.account(account(1)).await?.ok_or_else(|| Stop::failed("no account"))?.devices;
    let gone = if newest.devices == [device(1)] { 11 } else { 1 };
    check_eq!(removals(&*accounts).await?, BTreeSet::from([removal(3, gone)]), "the removals of {newest:?}");
    Ok(())
}

/// Whoever sees the list sees the removal: nothing that dies between the two loses it.
async fn a_removal_is_there_in_time_for_whoever_sees_the_list(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    put(&*accounts, 1, list(2, &[1, 11])).await?;
    let putting = {
        let accounts = accounts.clone();
        tokio::spawn(async move { accounts.put_device_list(account(1), hash(&list(2, &[1, 11])), list(3, &[1])).await })
    };
    loop {
        let is_over = putting.is_finished();
        let newest = accounts.account(account(1)).await?.map(|account| account.devices.version);
        if newest == Some(3) {
            break;
        }
        check!(!is_over, "a list that was put is seen");
        tokio::task::yield_now().await;
    }
    check_eq!(removals(&*accounts).await?, BTreeSet::from([removal(3, 11)]), "the removal of a list that is seen");
    check_eq!(putting.await??, vec![device(11)], "what the list leaves out");
    Ok(())
}

async fn removals_are_read_in_pages(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    let mut expected = BTreeSet::new();
    for number in 1..=6 {
        accounts.create(new(number, &format!("alice{number}"))?).await?;
        put(&*accounts, number, list(2, &[number, 10 + number, 20 + number])).await?;
        put(&*accounts, number, list(3, &[number])).await?;
        for left_out in [10 + number, 20 + number] {
            expected.insert(Removal { account: account(number), version: 3, device: device(left_out) });
        }
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = accounts.removals(after, 5).await?;
        found.extend(page.iter().copied());
        after = page.last().copied();
        check!(found.len() <= 12, "more removals than there are: {found:?}");
        if page.len() < 5 {
            break;
        }
    }
    check_eq!(found.len(), 12, "removals, each once");
    check_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected, "the removals");
    Ok(())
}

async fn removals_survive(h: &mut dyn Harness<Store>, how: Restart) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    put(&*accounts, 1, list(2, &[1, 11, 12])).await?;
    put(&*accounts, 1, list(3, &[1])).await?;
    accounts.finish_removal(removal(3, 11)).await?;
    drop(accounts);
    let accounts = restarted(h, how).await?;
    check_eq!(removals(&*accounts).await?, BTreeSet::from([removal(3, 12)]), "the removals after {how:?}");
    Ok(())
}

async fn removals_survive_a_restart(h: &mut dyn Harness<Store>) -> Outcome {
    removals_survive(h, Restart::Clean).await
}
async fn removals_survive_a_kill(h: &mut dyn Harness<Store>) -> Outcome {
    removals_survive(h, Restart::Kill).await
}
async fn removals_survive_a_power_cut(h: &mut dyn Harness<Store>) -> Outcome {
    removals_survive(h, Restart::PowerCut).await
}

async fn accounts_survive(h: &mut dyn Harness<Store>, how: Restart) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    put(&*accounts, 1, list(2, &[1, 11])).await?;
    accounts.put_key_packages(device(1), (0..3).map(package).collect(), Some(package(9))).await?;
    let claimed = accounts.claim_key_package(device(1)).await?.map(|found| found.key_package);
    drop(accounts);
    let accounts = restarted(h, how).await?;
    let expected = AccountRecord { devices: list(2, &[1, 11]), ..record(&new(1, "alice")?) };
    check_eq!(accounts.account(account(1)).await?, Some(expected.clone()), "the account after {how:?}");
    check_eq!(accounts.by_handle(&handle("alice")?).await?, Some(expected), "the handle after {how:?}");
    let stock = KeyPackageStock { left: 2, last_resort: true };
    check_eq!(accounts.key_package_stock(device(1)).await?, stock, "stock after {how:?}");
    for _ in 0..2 {
        let next = accounts.claim_key_package(device(1)).await?.map(|found| found.key_package);
        check!(next != claimed, "{claimed:?} was handed out again after {how:?}");
    }
    let taken = accounts.create(new(2, "alice")?).await;
    check!(matches!(taken, Err(CreateAccountError::HandleTaken)), "a taken handle after {how:?}: {taken:?}");
    Ok(())
}

async fn accounts_survive_a_restart(h: &mut dyn Harness<Store>) -> Outcome {
    accounts_survive(h, Restart::Clean).await
}
async fn accounts_survive_a_kill(h: &mut dyn Harness<Store>) -> Outcome {
    accounts_survive(h, Restart::Kill).await
}
async fn accounts_survive_a_power_cut(h: &mut dyn Harness<Store>) -> Outcome {
    accounts_survive(h, Restart::PowerCut).await
}
