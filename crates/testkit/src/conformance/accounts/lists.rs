// SPDX-License-Identifier: MIT OR Apache-2.0
//! Device lists and their chains.

use pli_domain::limits::DEVICE_LISTS_KEPT;

use super::*;

pub(super) async fn a_device_list_follows_the_one_before(h: &mut dyn Harness<Store>) -> Outcome {
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

pub(super) async fn a_device_list_that_does_not_follow_is_refused(h: &mut dyn Harness<Store>) -> Outcome {
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

pub(super) async fn a_device_list_made_from_another_is_refused(h: &mut dyn Harness<Store>) -> Outcome {
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

pub(super) async fn a_device_list_with_another_accounts_device_is_refused(h: &mut dyn Harness<Store>) -> Outcome {
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

pub(super) async fn a_device_that_was_removed_never_comes_back(h: &mut dyn Harness<Store>) -> Outcome {
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

pub(super) async fn a_device_of_a_list_that_lost_its_version_may_be_named_again(h: &mut dyn Harness<Store>) -> Outcome {
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

pub(super) async fn a_refused_device_list_leaves_no_claim(h: &mut dyn Harness<Store>) -> Outcome {
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

pub(super) async fn racing_device_lists_are_taken_once(h: &mut dyn Harness<Store>) -> Outcome {
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

pub(super) async fn a_chain_is_read_in_order_from_any_version(h: &mut dyn Harness<Store>) -> Outcome {
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

pub(super) async fn the_newest_lists_of_a_chain_are_kept(h: &mut dyn Harness<Store>) -> Outcome {
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

pub(super) async fn a_device_is_known_to_be_an_accounts_for_ever(h: &mut dyn Harness<Store>) -> Outcome {
    let accounts = h.fresh().await;
    accounts.create(new(1, "alice")?).await?;
    put(&*accounts, 1, list(2, &[1, 11])).await?;
    put(&*accounts, 1, list(3, &[1])).await?;
    for (number, owner) in [(1, Some(account(1))), (11, Some(account(1))), (12, None)] {
        check_eq!(accounts.device_account(device(number)).await?, owner, "the account of device {number}");
    }
    Ok(())
}
