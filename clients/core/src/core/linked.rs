// SPDX-License-Identifier: MIT OR Apache-2.0
//! What linking asks of a core ([`crate::linking`]).

use pli_api::directory::{LookupResponse, PublishKeyPackagesRequest, SignedDeviceList};
use pli_domain::{AccountId, Class, ConversationId, DeviceAddress, DeviceId, Handle};
use prost::Message as _;

use super::conversation::Phase;
use super::{ChangeSet, Core};
use crate::identity::{DeviceListError, verify_devices};
use crate::linking::LinkError;
use crate::mls::Suite;
use crate::outbox::OutLane;

/// What a new device is told of the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkAccount {
    pub account: AccountId,
    pub handle: Handle,
    pub identity_key: [u8; 32],
    pub suite: Suite,
    pub list: SignedDeviceList,
    /// No device can be added to the list.
    pub is_full: bool,
}

impl Core {
    /// The newest list of this account that is known here, as it was signed.
    pub fn own_signed_list(&self) -> Option<SignedDeviceList> {
        self.list_of(self.identity.address().account).cloned()
    }

    /// The same where it names this device.
    pub fn list_with(&self, device: DeviceId) -> Option<SignedDeviceList> {
        let named = self.devices().iter().any(|own| own.device == device);
        self.own_signed_list().filter(|_| named)
    }

    /// Whether a change of the account's list that is about this device waits for the directory.
    pub fn list_change_waits(&self, device: DeviceId) -> bool {
        self.own_list.has_waiting(device)
    }

    /// Whether the directory has the key packages that this device made last.
    pub fn has_published(&self) -> bool {
        self.packages.is_none()
    }

    /// In how many conversations another device of this account is, and in how many it is not although this one is.
    pub fn conversations_of(&self, device: DeviceId) -> (usize, usize) {
        let device = DeviceAddress { account: self.identity.address().account, device };
        let active = self.conversations.iter().filter(|(_, c)| c.phase == Phase::Active).map(|(id, _)| *id);
        let (inside, outside): (Vec<_>, Vec<_>) = active.partition(|id| self.has_device(*id, device));
        (inside.len(), outside.len())
    }

    /// Whether nothing that tells that device what it came into is still to be sent.
    pub fn has_greeted(&self, device: DeviceId) -> bool {
        let device = DeviceAddress { account: self.identity.address().account, device };
        let busy = |conversation, class| self.outbox.lane_busy(&OutLane { conversation, class });
        let mut inside = self.conversations.iter().filter(|(id, _)| self.has_device(**id, device));
        inside.all(|(id, c)| c.packages.is_empty() && !busy(*id, Class::Message) && !busy(*id, Class::Tick))
    }

    /// Whether what this device sends to a conversation now reaches that device.
    pub fn has_device(&self, conversation: ConversationId, device: DeviceAddress) -> bool {
        self.mls.members(conversation).iter().any(|(member, _)| *member == device)
    }

    /// What this device tells a new one. Errors where it signs no lists, and before the list is known.
    pub(crate) fn link_account(&self) -> Result<LinkAccount, LinkError> {
        if !self.identity.signs_lists() {
            return Err(LinkError::NotTheFirst);
        }
        Ok(LinkAccount {
            account: self.identity.address().account,
            handle: self.identity.handle().clone(),
            identity_key: self.identity.identity_key(),
            suite: self.identity.suite(),
            list: self.own_signed_list().ok_or(LinkError::NoListYet)?,
            is_full: self.own_list_is_full(),
        })
    }

    /// Keeps a list of this account that the first device gave, so that the server cannot show an older one. Answers what
    /// makes it durable.
    pub fn linked(&mut self, list: &SignedDeviceList) -> Result<ChangeSet, DeviceListError> {
        let own = self.identity.address().account;
        let handle = Some(self.identity.handle().clone());
        match self.meet(own, handle, std::slice::from_ref(list)) {
            // Changes in between were not told; the directory tells them.
            Ok(()) | Err(DeviceListError::Unlinked) => {}
            Err(error) => return Err(error),
        }
        self.collect_changes();
        Ok(std::mem::take(&mut self.out.changes))
    }

    /// Whether the account that the server has under this device's handle is the one that it was linked to: the handle is
    /// told by whoever read the code, and no list names it.
    pub fn owns_handle(&self, found: &LookupResponse) -> Result<(), LinkError> {
        let own = self.identity.address().account;
        let devices = found.devices.as_ref().and_then(|signed| verify_devices(signed, own, None).ok());
        let is_own = devices.is_some_and(|devices| devices.identity_key == self.identity.identity_key());
        match found.account.as_ref() == own.as_bytes() && is_own {
            true => Ok(()),
            false => Err(LinkError::OtherOwner(self.identity.handle().clone())),
        }
    }

    /// Another name in what this device says of itself, as a forger gives it.
    #[cfg(test)]
    pub(crate) fn call_itself(&mut self, handle: Handle) {
        self.identity.call_itself(handle);
    }

    /// The key package of last resort that this device is about to publish; none once it is published.
    pub(crate) fn last_resort(&self) -> Option<Vec<u8>> {
        let request = PublishKeyPackagesRequest::decode(self.packages.as_deref()?).ok()?;
        (!request.last_resort.is_empty()).then(|| request.last_resort.to_vec())
    }

    /// Signs the consent to a link.
    pub(crate) fn sign_link(&self, consent: &[u8]) -> [u8; 64] {
        self.identity.sign(consent)
    }

    /// Whether this device's groups could take in that one by this key package.
    pub(crate) fn takes_package(&self, device: DeviceAddress, key: &[u8; 32], package: &[u8]) -> bool {
        self.mls.takes(device, key, package)
    }

    /// Signs the list after the one that is known, the first one where none is, and keeps it.
    #[cfg(test)]
    pub(crate) fn sign_next(&mut self, change: Option<&crate::identity::ListChange>) -> SignedDeviceList {
        let next = match (self.own_signed_list(), change) {
            (Some(newest), Some(change)) => self.identity.next_list(&newest, change),
            (newest, _) => newest.or_else(|| self.identity.device_list()),
        };
        let next = next.expect("a change that this device signs");
        let _changes = self.linked(&next).expect("its own list");
        next
    }
}
