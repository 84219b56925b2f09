// SPDX-License-Identifier: MIT OR Apache-2.0
//! Broken stores of accounts, conversations and payloads.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::{AccountId, ConversationId, DeviceId, Handle, MlsEpoch, PayloadId, UnixMillis};
use pli_ports::{
    AccountRecord, Accounts, ClaimedKeyPackage, CommitIntent, CommitOutcome, ConversationHead, Conversations,
    CreateAccountError, CreateOutcome, DecidedCommit, DeviceListRecord, EpochRoster, KeyPackageStock, ListHash,
    NewAccount, NewConversation, PayloadPage, Payloads, PutDeviceListError, Removal, RosterRecord, StoreError,
};
use pli_testkit::conformance;
use pli_testkit::memory::{MemoryAccounts, MemoryConversations, MemoryPayloads, MemoryWorld};

use super::caught;

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    PackageHandedOutTwice,
    LookTakesAPackage,
    FirstLastResortShown,
    HandleTakenTwice,
    OldDeviceListAccepted,
    ForeignDeviceListed,
    ListOfAnotherAccepted,
    RemovedDeviceListed,
    ChainBackwards,
    RemovedDeviceForgotten,
    RemovalForgotten,
    RemovalNeverOver,
    RemovalsNotPaged,
    EverybodyWins,
    OpenTooEarly,
    LateFinishOpens,
    RosterAtForgetsTheEpoch,
    NoPagePastTheEnd,
    ExpiredPayloadShown,
}

struct BrokenAccounts {
    accounts: MemoryAccounts,
    fault: Fault,
    claimed: Mutex<Option<ClaimedKeyPackage>>,
    last_resort: Mutex<Option<Bytes>>,
}

#[async_trait]
impl Accounts for BrokenAccounts {
    async fn create(&self, account: NewAccount) -> Result<(), CreateAccountError> {
        match self.accounts.create(account).await {
            Err(CreateAccountError::HandleTaken) if self.fault == Fault::HandleTakenTwice => Ok(()),
            answer => answer,
        }
    }
    async fn account(&self, account: AccountId) -> Result<Option<AccountRecord>, StoreError> {
        self.accounts.account(account).await
    }
    async fn by_handle(&self, handle: &Handle) -> Result<Option<AccountRecord>, StoreError> {
        self.accounts.by_handle(handle).await
    }
    async fn put_device_list(
        &self,
        account: AccountId,
        previous: ListHash,
        list: DeviceListRecord,
    ) -> Result<Vec<DeviceId>, PutDeviceListError> {
        match self.accounts.put_device_list(account, previous, list).await {
            Err(PutDeviceListError::Version { .. }) if self.fault == Fault::OldDeviceListAccepted => Ok(Vec::new()),
            Err(PutDeviceListError::IdTaken) if self.fault == Fault::ForeignDeviceListed => Ok(Vec::new()),
            Err(PutDeviceListError::Previous { .. }) if self.fault == Fault::ListOfAnotherAccepted => Ok(Vec::new()),
            Err(PutDeviceListError::Removed) if self.fault == Fault::RemovedDeviceListed => Ok(Vec::new()),
            answer => answer,
        }
    }
    async fn device_lists(
        &self,
        account: AccountId,
        after: u64,
        max: usize,
    ) -> Result<Vec<DeviceListRecord>, StoreError> {
        let mut lists = self.accounts.device_lists(account, after, max).await?;
        if self.fault == Fault::ChainBackwards {
            lists.reverse();
        }
        Ok(lists)
    }
    async fn removals(&self, after: Option<Removal>, max: usize) -> Result<Vec<Removal>, StoreError> {
        match self.fault {
            Fault::RemovalForgotten => Ok(Vec::new()),
            Fault::RemovalsNotPaged => self.accounts.removals(None, max).await,
            _ => self.accounts.removals(after, max).await,
        }
    }
    async fn finish_removal(&self, removal: Removal) -> Result<(), StoreError> {
        if self.fault == Fault::RemovalNeverOver { Ok(()) } else { self.accounts.finish_removal(removal).await }
    }
    async fn device_account(&self, device: DeviceId) -> Result<Option<AccountId>, StoreError> {
        let Some(owner) = self.accounts.device_account(device).await? else { return Ok(None) };
        let newest = self.accounts.account(owner).await?.map(|account| account.devices.devices).unwrap_or_default();
        let forgotten = self.fault == Fault::RemovedDeviceForgotten && !newest.contains(&device);
        Ok((!forgotten).then_some(owner))
    }
    async fn put_key_packages(
        &self,
        device: DeviceId,
        single_use: Vec<Bytes>,
        last_resort: Option<Bytes>,
    ) -> Result<KeyPackageStock, StoreError> {
        self.accounts.put_key_packages(device, single_use, last_resort).await
    }
    async fn claim_key_package(&self, device: DeviceId) -> Result<Option<ClaimedKeyPackage>, StoreError> {
        let again = self.claimed.lock().expect("no panic").take();
        if again.is_some() && self.fault == Fault::PackageHandedOutTwice {
            return Ok(again);
        }
        let claimed = self.accounts.claim_key_package(device).await?;
        *self.claimed.lock().expect("no panic") = claimed.clone();
        Ok(claimed)
    }
    async fn key_package_stock(&self, device: DeviceId) -> Result<KeyPackageStock, StoreError> {
        let mut stock = self.accounts.key_package_stock(device).await?;
        match self.fault {
            Fault::LookTakesAPackage => drop(self.accounts.claim_key_package(device).await?),
            Fault::FirstLastResortShown if stock.last_resort.is_some() => {
                let mut first = self.last_resort.lock().expect("no panic");
                stock.last_resort = first.get_or_insert_with(|| stock.last_resort.unwrap_or_default()).clone().into();
            }
            _ => {}
        }
        Ok(stock)
    }
}

const LOOK: &str = "a_look_at_the_stock_takes_nothing_and_shows_the_newest_last_resort_package";

#[tokio::test(start_paused = true)]
async fn broken_accounts_are_caught() {
    for (fault, expected) in [
        (Fault::PackageHandedOutTwice, "racing_claimers_get_different_key_packages"),
        (Fault::PackageHandedOutTwice, "key_packages_are_claimed_once_each"),
        (Fault::LookTakesAPackage, LOOK),
        (Fault::FirstLastResortShown, LOOK),
        (Fault::HandleTakenTwice, "racing_accounts_claim_a_handle_once"),
        (Fault::OldDeviceListAccepted, "a_device_list_that_does_not_follow_is_refused"),
        (Fault::ForeignDeviceListed, "a_device_list_with_another_accounts_device_is_refused"),
        (Fault::ListOfAnotherAccepted, "a_device_list_made_from_another_is_refused"),
        (Fault::RemovedDeviceListed, "a_device_that_was_removed_never_comes_back"),
        (Fault::ChainBackwards, "a_chain_is_read_in_order_from_any_version"),
        (Fault::RemovedDeviceForgotten, "a_device_is_known_to_be_an_accounts_for_ever"),
        (Fault::RemovalForgotten, "a_removal_is_there_until_it_is_finished"),
        (Fault::RemovalNeverOver, "a_removal_is_there_until_it_is_finished"),
        (Fault::RemovalForgotten, "a_removal_is_there_in_time_for_whoever_sees_the_list"),
        (Fault::RemovalsNotPaged, "removals_are_read_in_pages"),
    ] {
        let open = move |world: &MemoryWorld| {
            let (claimed, last_resort) = (Mutex::default(), Mutex::default());
            Arc::new(BrokenAccounts { accounts: world.accounts(), fault, claimed, last_resort }) as Arc<dyn Accounts>
        };
        caught(conformance::accounts::CASES, expected, open).await;
    }
}

struct BrokenConversations {
    conversations: MemoryConversations,
    fault: Fault,
}

#[async_trait]
impl Conversations for BrokenConversations {
    async fn create(&self, conversation: NewConversation) -> Result<CreateOutcome, StoreError> {
        self.conversations.create(conversation).await
    }
    async fn head(&self, conversation: ConversationId) -> Result<Option<ConversationHead>, StoreError> {
        self.conversations.head(conversation).await
    }
    async fn roster(&self, conversation: ConversationId, epoch: MlsEpoch) -> Result<Option<RosterRecord>, StoreError> {
        self.conversations.roster(conversation, epoch).await
    }
    async fn roster_at(
        &self,
        conversation: ConversationId,
        epoch: MlsEpoch,
    ) -> Result<Option<EpochRoster>, StoreError> {
        let mut found = self.conversations.roster_at(conversation, epoch).await?;
        if self.fault == Fault::RosterAtForgetsTheEpoch
            && let Some(found) = &mut found
        {
            found.current = epoch;
        }
        Ok(found)
    }
    async fn commit(&self, intent: CommitIntent) -> Result<CommitOutcome, StoreError> {
        let (conversation, from) = (intent.conversation, intent.from);
        let outcome = self.conversations.commit(intent).await?;
        match (self.fault, &outcome) {
            (Fault::EverybodyWins, CommitOutcome::Lost { .. }) => return Ok(CommitOutcome::Won),
            (Fault::OpenTooEarly, CommitOutcome::Won) => self.conversations.finish(conversation, from).await?,
            _ => {}
        }
        Ok(outcome)
    }
    async fn intent(&self, conversation: ConversationId, from: MlsEpoch) -> Result<Option<DecidedCommit>, StoreError> {
        self.conversations.intent(conversation, from).await
    }
    async fn finish(&self, conversation: ConversationId, from: MlsEpoch) -> Result<(), StoreError> {
        if self.fault == Fault::LateFinishOpens {
            for later in 0..3 {
                self.conversations.finish(conversation, MlsEpoch(from.0 + later)).await?;
            }
        }
        self.conversations.finish(conversation, from).await
    }
    async fn unfinished(&self, before: UnixMillis, limit: u32) -> Result<Vec<(ConversationId, MlsEpoch)>, StoreError> {
        self.conversations.unfinished(before, limit).await
    }
    async fn of_account(
        &self,
        account: AccountId,
        after: Option<ConversationId>,
        limit: u32,
    ) -> Result<Vec<(ConversationId, MlsEpoch)>, StoreError> {
        self.conversations.of_account(account, after, limit).await
    }
}

#[tokio::test(start_paused = true)]
async fn broken_conversations_are_caught() {
    for (fault, expected) in [
        (Fault::EverybodyWins, "a_thousand_racing_commits_have_one_winner"),
        (Fault::EverybodyWins, "a_second_commit_of_an_epoch_loses"),
        (Fault::OpenTooEarly, "a_commit_makes_a_closed_epoch"),
        (Fault::OpenTooEarly, "nothing_is_decided_while_an_epoch_is_closed"),
        (Fault::LateFinishOpens, "a_finished_epoch_is_open_for_ever"),
        (Fault::RosterAtForgetsTheEpoch, "a_roster_comes_with_the_newest_epoch"),
    ] {
        let open = move |world: &MemoryWorld| {
            Arc::new(BrokenConversations { conversations: world.conversations(), fault }) as Arc<dyn Conversations>
        };
        caught(conformance::conversations::CASES, expected, open).await;
    }
}

struct BrokenPayloads {
    payloads: MemoryPayloads,
    fault: Fault,
}

#[async_trait]
impl Payloads for BrokenPayloads {
    async fn put(&self, id: PayloadId, bytes: Bytes, expires_at: UnixMillis) -> Result<(), StoreError> {
        self.payloads.put(id, bytes, expires_at).await
    }
    async fn page(&self, id: PayloadId, offset: u64, now: UnixMillis) -> Result<Option<PayloadPage>, StoreError> {
        let now = if self.fault == Fault::ExpiredPayloadShown { UnixMillis(0) } else { now };
        let page = self.payloads.page(id, offset, now).await?;
        // A page past the end is an error to many stores.
        let absent = self.fault == Fault::NoPagePastTheEnd && page.as_ref().is_some_and(|page| page.bytes.is_empty());
        Ok(page.filter(|_| !absent))
    }
    async fn expire(&self, now: UnixMillis, limit: u32) -> Result<u32, StoreError> {
        self.payloads.expire(now, limit).await
    }
}

#[tokio::test(start_paused = true)]
async fn broken_payloads_are_caught() {
    for (fault, expected) in [
        (Fault::NoPagePastTheEnd, "a_page_from_past_the_end_is_empty"),
        (Fault::ExpiredPayloadShown, "an_expired_payload_is_absent"),
    ] {
        let open = move |world: &MemoryWorld| {
            Arc::new(BrokenPayloads { payloads: world.payloads(), fault }) as Arc<dyn Payloads>
        };
        caught(conformance::payloads::CASES, expected, open).await;
    }
}
