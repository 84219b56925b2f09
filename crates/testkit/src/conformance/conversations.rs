// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every [`Conversations`] does.

use bytes::Bytes;
use pli_domain::{AccountId, ConversationId, DeviceAddress, DeviceId, MlsEpoch, UnixMillis};
use pli_ports::{
    CommitIntent, CommitOutcome, ConversationHead, Conversations, CreateOutcome, EpochRoster, NewConversation,
};
use tokio::task::JoinSet;

use super::{Harness, Outcome, Restart, Stop, id_bytes, restarted, rivals};

type Store = dyn Conversations;

cases! { Store:
    a_created_conversation_is_open,
    an_unknown_conversation_is_absent,
    creating_the_same_conversation_again_is_accepted,
    another_conversation_under_a_taken_id_is_refused,
    racing_creators_make_one_conversation,
    a_roster_is_sorted,
    a_roster_comes_with_the_newest_epoch,
    a_commit_makes_a_closed_epoch,
    a_commit_is_idempotent,
    a_second_commit_of_an_epoch_loses,
    a_commit_in_the_past_or_future_loses,
    nothing_is_decided_while_an_epoch_is_closed,
    a_thousand_racing_commits_have_one_winner,
    a_finished_epoch_is_open_for_ever,
    finishing_what_is_not_there_changes_nothing,
    an_intent_is_kept_whole,
    rosters_of_older_epochs_never_change,
    unfinished_lists_old_closed_epochs,
    conversations_of_an_account_are_those_of_its_newest_roster,
    conversations_of_an_account_come_in_pages,
    conversations_survive_a_restart,
    conversations_survive_a_kill,
    conversations_survive_a_power_cut,
}

const NOW: UnixMillis = UnixMillis(1_767_225_600_000);

fn conversation(number: u64) -> ConversationId {
    ConversationId::from_bytes(id_bytes(8, number))
}

fn member(number: u64) -> DeviceAddress {
    DeviceAddress {
        account: AccountId::from_bytes(id_bytes(6, number)),
        device: DeviceId::from_bytes(id_bytes(7, 1_000 - number)),
    }
}

fn roster(members: &[u64]) -> Vec<DeviceAddress> {
    members.iter().copied().map(member).collect()
}

fn state(text: &str) -> Bytes {
    Bytes::from(format!("public group state: {text}"))
}

/// A conversation of member 1 at epoch 0.
fn new(number: u64) -> NewConversation {
    NewConversation {
        conversation: conversation(number),
        epoch: MlsEpoch(0),
        roster: roster(&[1]),
        state: state("created"),
        created_at: NOW,
    }
}

/// Member `committer` ends epoch `from` of conversation 1; the next one holds `members`.
fn commit(from: u64, committer: u64, members: &[u64]) -> CommitIntent {
    CommitIntent {
        conversation: conversation(1),
        from: MlsEpoch(from),
        roster: roster(members),
        state: state(&format!("after {from}, by {committer}")),
        committer: member(committer),
        payload: Bytes::from(format!("commit of {from} by {committer}")),
        decided_at: UnixMillis(NOW.0 + from),
    }
}

async fn head(store: &Store, number: u64) -> Result<ConversationHead, Stop> {
    let found = store.head(conversation(number)).await?;
    found.ok_or_else(|| Stop::failed(format!("conversation {number} is not there")))
}

async fn expect_head(store: &Store, epoch: u64, open: bool, state: Bytes) -> Outcome {
    let expected = ConversationHead { epoch: MlsEpoch(epoch), open, state };
    check_eq!(head(store, 1).await?, expected, "the newest epoch");
    Ok(())
}

async fn win(store: &Store, intent: CommitIntent) -> Outcome {
    check_eq!(store.commit(intent.clone()).await?, CommitOutcome::Won, "commit of epoch {}", intent.from.0);
    Ok(())
}

/// Decides and finishes a commit of conversation 1.
async fn advance(store: &Store, intent: CommitIntent) -> Outcome {
    let from = intent.from;
    win(store, intent).await?;
    Ok(store.finish(conversation(1), from).await?)
}

async fn created(h: &mut dyn Harness<Store>) -> Result<std::sync::Arc<Store>, Stop> {
    let store = h.fresh().await;
    check_eq!(store.create(new(1)).await?, CreateOutcome::Created, "creation");
    Ok(store)
}

async fn a_created_conversation_is_open(h: &mut dyn Harness<Store>) -> Outcome {
    let store = created(h).await?;
    expect_head(&*store, 0, true, state("created")).await?;
    let found = store.roster(conversation(1), MlsEpoch(0)).await?;
    check_eq!(found.map(|r| (r.devices, r.open)), Some((roster(&[1]), true)), "the first roster");
    check_eq!(store.intent(conversation(1), MlsEpoch(0)).await?, None, "a commit that nobody made");
    // A group may be created at a later epoch.
    let later = NewConversation { epoch: MlsEpoch(5), ..new(2) };
    check_eq!(store.create(later).await?, CreateOutcome::Created, "creation at epoch 5");
    check_eq!(head(&*store, 2).await?.epoch, MlsEpoch(5), "the newest epoch");
    Ok(())
}

async fn an_unknown_conversation_is_absent(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    check_eq!(store.head(conversation(1)).await?, None, "head");
    check_eq!(store.roster(conversation(1), MlsEpoch(0)).await?, None, "roster");
    check_eq!(store.intent(conversation(1), MlsEpoch(0)).await?, None, "intent");
    check_eq!(store.commit(commit(0, 1, &[1])).await?, CommitOutcome::Unknown, "a commit");
    check_eq!(store.head(conversation(1)).await?, None, "head after a refused commit");
    Ok(())
}

async fn a_roster_comes_with_the_newest_epoch(h: &mut dyn Harness<Store>) -> Outcome {
    let store = created(h).await?;
    check_eq!(store.roster_at(conversation(7), MlsEpoch(0)).await?, None, "an unknown conversation");
    advance(&*store, commit(0, 1, &[1, 2])).await?;
    win(&*store, commit(1, 2, &[2, 3])).await?;
    for epoch in 0..4 {
        let found = store.roster_at(conversation(1), MlsEpoch(epoch)).await?;
        let roster = store.roster(conversation(1), MlsEpoch(epoch)).await?;
        check_eq!(roster.is_some(), epoch <= 2, "a roster at epoch {epoch}");
        check_eq!(found, Some(EpochRoster { current: MlsEpoch(2), roster }), "epoch {epoch} of 2");
    }
    Ok(())
}

async fn creating_the_same_conversation_again_is_accepted(h: &mut dyn Harness<Store>) -> Outcome {
    let store = created(h).await?;
    let later = NewConversation { created_at: UnixMillis(NOW.0 + 5), ..new(1) };
    check_eq!(store.create(later).await?, CreateOutcome::Created, "a retry of the creation");
    advance(&*store, commit(0, 1, &[1, 2])).await?;
    check_eq!(store.create(new(1)).await?, CreateOutcome::Created, "a late retry of the creation");
    expect_head(&*store, 1, true, state("after 0, by 1")).await
}

async fn another_conversation_under_a_taken_id_is_refused(h: &mut dyn Harness<Store>) -> Outcome {
    let store = created(h).await?;
    let other_roster = NewConversation { roster: roster(&[2]), ..new(1) };
    let other_state = NewConversation { state: state("another"), ..new(1) };
    for other in [other_roster, other_state] {
        check_eq!(store.create(other).await?, CreateOutcome::Taken, "another conversation under the same id");
    }
    expect_head(&*store, 0, true, state("created")).await
}

async fn racing_creators_make_one_conversation(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    let mut race = JoinSet::new();
    for creator in 0..32 {
        let (store, made) = (store.clone(), NewConversation { roster: roster(&[creator]), ..new(1) });
        race.spawn(async move { (creator, store.create(made).await) });
    }
    let mut creators = Vec::new();
    while let Some(done) = race.join_next().await {
        let (creator, outcome) = done?;
        if outcome? == CreateOutcome::Created {
            creators.push(creator);
        }
    }
    check_eq!(creators.len(), 1, "creators of one conversation: {creators:?}");
    let found = store.roster(conversation(1), MlsEpoch(0)).await?.map(|r| r.devices);
    check_eq!(found, Some(roster(&creators)), "the winner's roster");
    Ok(())
}

async fn a_roster_is_sorted(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    let second_device = DeviceAddress { device: DeviceId::from_bytes([0; 16]), ..member(2) };
    let unsorted = vec![member(3), member(2), member(1), second_device];
    let sorted = vec![member(1), second_device, member(2), member(3)];
    store.create(NewConversation { roster: unsorted.clone(), ..new(1) }).await?;
    win(&*store, CommitIntent { roster: unsorted, ..commit(0, 1, &[]) }).await?;
    for epoch in [0, 1] {
        let found = store.roster(conversation(1), MlsEpoch(epoch)).await?.map(|r| r.devices);
        check_eq!(found, Some(sorted.clone()), "roster of epoch {epoch}");
    }
    Ok(())
}

async fn a_commit_makes_a_closed_epoch(h: &mut dyn Harness<Store>) -> Outcome {
    let store = created(h).await?;
    win(&*store, commit(0, 1, &[1, 2])).await?;
    expect_head(&*store, 1, false, state("after 0, by 1")).await?;
    let found = store.roster(conversation(1), MlsEpoch(1)).await?;
    check_eq!(found.map(|r| (r.devices, r.open)), Some((roster(&[1, 2]), false)), "the new roster");
    let found = store.roster(conversation(1), MlsEpoch(0)).await?;
    check_eq!(found.map(|r| (r.devices, r.open)), Some((roster(&[1]), true)), "the old roster");
    check_eq!(store.roster(conversation(1), MlsEpoch(2)).await?, None, "a roster that never was");
    Ok(())
}

async fn a_commit_is_idempotent(h: &mut dyn Harness<Store>) -> Outcome {
    let store = created(h).await?;
    win(&*store, commit(0, 1, &[1, 2])).await?;
    win(&*store, commit(0, 1, &[1, 2])).await?;
    let decided_later = CommitIntent { decided_at: UnixMillis(NOW.0 + 99), ..commit(0, 1, &[1, 2]) };
    win(&*store, decided_later).await?;
    expect_head(&*store, 1, false, state("after 0, by 1")).await?;
    store.finish(conversation(1), MlsEpoch(0)).await?;
    advance(&*store, commit(1, 2, &[1, 2, 3])).await?;
    win(&*store, commit(0, 1, &[1, 2])).await?;
    expect_head(&*store, 2, true, state("after 1, by 2")).await
}

async fn a_second_commit_of_an_epoch_loses(h: &mut dyn Harness<Store>) -> Outcome {
    let store = created(h).await?;
    advance(&*store, commit(0, 1, &[1, 2])).await?;
    let lost = CommitOutcome::Lost { current: MlsEpoch(1) };
    check_eq!(store.commit(commit(0, 2, &[2])).await?, lost, "another committer");
    let other_payload = CommitIntent { payload: Bytes::from_static(b"another"), ..commit(0, 1, &[1, 2]) };
    check_eq!(store.commit(other_payload).await?, lost, "another payload");
    let found = store.intent(conversation(1), MlsEpoch(0)).await?;
    check_eq!(found, Some(commit(0, 1, &[1, 2]).into()), "the commit that won");
    expect_head(&*store, 1, true, state("after 0, by 1")).await
}

async fn a_commit_in_the_past_or_future_loses(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    store.create(NewConversation { epoch: MlsEpoch(3), ..new(1) }).await?;
    for from in [0, 2, 4, 1 << 40] {
        let outcome = store.commit(commit(from, 1, &[1])).await?;
        check_eq!(outcome, CommitOutcome::Lost { current: MlsEpoch(3) }, "a commit of epoch {from}");
        check_eq!(store.intent(conversation(1), MlsEpoch(from)).await?, None, "its intent");
    }
    expect_head(&*store, 3, true, state("created")).await
}

async fn nothing_is_decided_while_an_epoch_is_closed(h: &mut dyn Harness<Store>) -> Outcome {
    let store = created(h).await?;
    win(&*store, commit(0, 1, &[1, 2])).await?;
    let lost = CommitOutcome::Lost { current: MlsEpoch(1) };
    check_eq!(store.commit(commit(1, 2, &[1, 2])).await?, lost, "a commit of a closed epoch");
    check_eq!(store.intent(conversation(1), MlsEpoch(1)).await?, None, "its intent");
    store.finish(conversation(1), MlsEpoch(0)).await?;
    win(&*store, commit(1, 2, &[1, 2])).await
}

async fn a_thousand_racing_commits_have_one_winner(h: &mut dyn Harness<Store>) -> Outcome {
    let store = created(h).await?;
    for from in 0..2 {
        let mut race = JoinSet::new();
        for committer in 0..rivals(h) as u64 {
            let store = store.clone();
            race.spawn(async move { (committer, store.commit(commit(from, committer, &[committer])).await) });
        }
        let mut winners = Vec::new();
        while let Some(done) = race.join_next().await {
            match done? {
                (committer, Ok(CommitOutcome::Won)) => winners.push(committer),
                (_, Ok(CommitOutcome::Lost { current })) => check_eq!(current, MlsEpoch(from + 1), "told to a loser"),
                (_, other) => return Err(Stop::failed(format!("commit of epoch {from}: {other:?}"))),
            }
        }
        check_eq!(winners.len(), 1, "winners of epoch {from}: {winners:?}");
        let found = store.intent(conversation(1), MlsEpoch(from)).await?;
        check_eq!(found, Some(commit(from, winners[0], &winners).into()), "the winner's intent");
        store.finish(conversation(1), MlsEpoch(from)).await?;
    }
    Ok(())
}

async fn a_finished_epoch_is_open_for_ever(h: &mut dyn Harness<Store>) -> Outcome {
    let store = created(h).await?;
    win(&*store, commit(0, 1, &[1, 2])).await?;
    for _ in 0..2 {
        store.finish(conversation(1), MlsEpoch(0)).await?;
        expect_head(&*store, 1, true, state("after 0, by 1")).await?;
    }
    win(&*store, commit(1, 1, &[1])).await?;
    // A late finish of the older commit must not open the newer epoch.
    store.finish(conversation(1), MlsEpoch(0)).await?;
    expect_head(&*store, 2, false, state("after 1, by 1")).await?;
    let open = store.roster(conversation(1), MlsEpoch(1)).await?.map(|r| r.open);
    check_eq!(open, Some(true), "the epoch before");
    Ok(())
}

async fn finishing_what_is_not_there_changes_nothing(h: &mut dyn Harness<Store>) -> Outcome {
    let store = created(h).await?;
    win(&*store, commit(0, 1, &[1, 2])).await?;
    // Whether it is an error to finish a commit that never was is the engine's affair.
    for from in [1, 7] {
        drop(store.finish(conversation(1), MlsEpoch(from)).await);
    }
    drop(store.finish(conversation(9), MlsEpoch(0)).await);
    expect_head(&*store, 1, false, state("after 0, by 1")).await?;
    check_eq!(store.head(conversation(9)).await?, None, "a conversation that was only finished");
    Ok(())
}

async fn an_intent_is_kept_whole(h: &mut dyn Harness<Store>) -> Outcome {
    let store = created(h).await?;
    let large: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
    let intent = CommitIntent { payload: Bytes::from(large), ..commit(0, 1, &[1, 2]) };
    win(&*store, intent.clone()).await?;
    for _ in 0..2 {
        check!(
            store.intent(conversation(1), MlsEpoch(0)).await? == Some(intent.clone().into()),
            "an intent came back changed"
        );
        store.finish(conversation(1), MlsEpoch(0)).await?;
    }
    Ok(())
}

async fn rosters_of_older_epochs_never_change(h: &mut dyn Harness<Store>) -> Outcome {
    let store = created(h).await?;
    let rosters: [&[u64]; 5] = [&[1], &[1, 2], &[1, 2, 3], &[2, 3], &[2]];
    for (from, members) in (0..).zip(&rosters[1..]) {
        advance(&*store, commit(from, 1, members)).await?;
    }
    for (epoch, members) in (0..).zip(rosters) {
        let found = store.roster(conversation(1), MlsEpoch(epoch)).await?;
        check_eq!(found.map(|r| (r.devices, r.open)), Some((roster(members), true)), "roster of epoch {epoch}");
    }
    Ok(())
}

async fn unfinished_lists_old_closed_epochs(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    for number in 1..5 {
        store.create(new(number)).await?;
        let decided_at = UnixMillis(NOW.0 + number * 1_000);
        win(&*store, CommitIntent { conversation: conversation(number), decided_at, ..commit(0, 1, &[1]) }).await?;
    }
    store.finish(conversation(2), MlsEpoch(0)).await?;
    let before = UnixMillis(NOW.0 + 4_000);
    let mut found = store.unfinished(before, 100).await?;
    found.sort();
    check_eq!(found, [1, 3].map(|number| (conversation(number), MlsEpoch(0))), "closed for long");
    check_eq!(store.unfinished(before, 1).await?.len(), 1, "at most one");
    check!(store.unfinished(UnixMillis(NOW.0 + 1_000), 100).await?.is_empty(), "decided before any was");
    check_eq!(store.unfinished(UnixMillis(before.0 + 1), 100).await?.len(), 3, "a moment later");
    Ok(())
}

async fn conversations_of_an_account_are_those_of_its_newest_roster(h: &mut dyn Harness<Store>) -> Outcome {
    let store = created(h).await?;
    store.create(NewConversation { roster: roster(&[2, 3]), ..new(2) }).await?;
    let of = async |number: u64| store.of_account(member(number).account, None, 100).await;
    check_eq!(of(1).await?, [(conversation(1), MlsEpoch(0))], "of member 1");
    check_eq!(of(9).await?, [], "of somebody else");
    win(&*store, commit(0, 1, &[2])).await?;
    check_eq!(of(1).await?, [], "of member 1 after it left");
    let expected = [(conversation(1), MlsEpoch(1)), (conversation(2), MlsEpoch(0))];
    check_eq!(of(2).await?, expected, "of member 2 after it joined");
    Ok(())
}

async fn conversations_of_an_account_come_in_pages(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    for number in 0..25 {
        store.create(new(number)).await?;
    }
    let (mut seen, mut after) = (Vec::new(), None);
    for _ in 0..4 {
        let page = store.of_account(member(1).account, after, 10).await?;
        check!(page.len() <= 10, "{} conversations where 10 were asked", page.len());
        after = page.last().map(|(id, _)| *id).or(after);
        seen.extend(page.into_iter().map(|(id, _)| id));
    }
    seen.sort();
    check_eq!(seen, (0..25).map(conversation).collect::<Vec<_>>(), "conversations over four pages");
    Ok(())
}

async fn conversations_survive(h: &mut dyn Harness<Store>, how: Restart) -> Outcome {
    let store = created(h).await?;
    advance(&*store, commit(0, 1, &[1, 2])).await?;
    win(&*store, commit(1, 2, &[1, 2, 3])).await?;
    drop(store);
    let store = restarted(h, how).await?;
    expect_head(&*store, 2, false, state("after 1, by 2")).await?;
    let found = store.intent(conversation(1), MlsEpoch(1)).await?;
    check_eq!(found, Some(commit(1, 2, &[1, 2, 3]).into()), "the intent after {how:?}");
    let open = store.roster(conversation(1), MlsEpoch(1)).await?.map(|r| (r.devices, r.open));
    check_eq!(open, Some((roster(&[1, 2]), true)), "the roster before after {how:?}");
    let unfinished = store.unfinished(UnixMillis(u64::MAX >> 1), 10).await?;
    check_eq!(unfinished, [(conversation(1), MlsEpoch(1))], "what is left to finish after {how:?}");
    let lost = CommitOutcome::Lost { current: MlsEpoch(2) };
    check_eq!(store.commit(commit(1, 3, &[3])).await?, lost, "another commit of a decided epoch after {how:?}");
    store.finish(conversation(1), MlsEpoch(1)).await?;
    expect_head(&*store, 2, true, state("after 1, by 2")).await
}

async fn conversations_survive_a_restart(h: &mut dyn Harness<Store>) -> Outcome {
    conversations_survive(h, Restart::Clean).await
}
async fn conversations_survive_a_kill(h: &mut dyn Harness<Store>) -> Outcome {
    conversations_survive(h, Restart::Kill).await
}
async fn conversations_survive_a_power_cut(h: &mut dyn Harness<Store>) -> Outcome {
    conversations_survive(h, Restart::PowerCut).await
}
