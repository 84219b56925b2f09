// SPDX-License-Identifier: MIT OR Apache-2.0
//! Removals: what a list left out, until it is finished.

use std::collections::BTreeSet;

use pli_ports::Removal;

use super::*;

pub(super) fn removal(version: u64, number: u64) -> Removal {
    Removal { account: account(1), version, device: device(number) }
}

async fn removals(accounts: &Store) -> Result<BTreeSet<Removal>, Stop> {
    Ok(accounts.removals(None, 100).await?.into_iter().collect())
}

pub(super) async fn a_removal_is_there_until_it_is_finished(h: &mut dyn Harness<Store>) -> Outcome {
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

pub(super) async fn a_list_that_is_refused_removes_nothing(h: &mut dyn Harness<Store>) -> Outcome {
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
pub(super) async fn a_removal_is_there_in_time_for_whoever_sees_the_list(h: &mut dyn Harness<Store>) -> Outcome {
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

pub(super) async fn removals_are_read_in_pages(h: &mut dyn Harness<Store>) -> Outcome {
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

pub(super) async fn removals_survive_a_restart(h: &mut dyn Harness<Store>) -> Outcome {
    removals_survive(h, Restart::Clean).await
}
pub(super) async fn removals_survive_a_kill(h: &mut dyn Harness<Store>) -> Outcome {
    removals_survive(h, Restart::Kill).await
}
pub(super) async fn removals_survive_a_power_cut(h: &mut dyn Harness<Store>) -> Outcome {
    removals_survive(h, Restart::PowerCut).await
}
