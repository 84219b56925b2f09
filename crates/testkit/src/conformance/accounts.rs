// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every [`Accounts`] does.

mod key_packages;
mod lists;
mod removals;

use bytes::Bytes;
use pli_domain::{AccountId, DeviceId, Handle, UnixMillis};
use pli_ports::{
    AccountRecord, Accounts, CreateAccountError, DeviceListRecord, KeyPackageStock, ListHash, NewAccount,
    PutDeviceListError,
};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use super::{Harness, Outcome, Restart, Stop, id_bytes, restarted, rivals};
use key_packages::*;
use lists::*;
use removals::*;

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
    a_look_at_the_stock_takes_nothing_and_shows_the_newest_last_resort_package,
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
    let none = KeyPackageStock::default();
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
    let stock = KeyPackageStock { left: 2, last_resort: Some(package(9)) };
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
