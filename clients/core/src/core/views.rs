// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a driver may look at between steps.

use pli_domain::{ConversationId, DeviceAddress, Handle};

use super::conversation::Phase;
use super::{ConnectionState, Core, Member};
use crate::content::Kind;
use crate::identity::safety_number;

/// A conversation, for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationView {
    /// Its id; of a chat that several conversations carry the one that takes what is new.
    pub id: ConversationId,
    /// The conversations that are this chat; most often one.
    pub parts: Vec<ConversationId>,
    /// Two people or a group.
    pub kind: Kind,
    /// Of a group, where it is known.
    pub name: Option<String>,
    /// Everybody, oneself included; empty until it is ready.
    pub members: Vec<Member>,
    /// Messages can be sent now.
    pub ready: bool,
    /// The user left it or was removed, or it could not be made.
    pub left: bool,
    /// Others' devices have this device's messages up to this lane number: the lowest of all that said so.
    pub delivered: u64,
    /// Likewise read.
    pub read: u64,
}

impl Core {
    /// This device.
    pub fn address(&self) -> DeviceAddress {
        self.identity.address()
    }
    /// This account's handle.
    pub fn handle(&self) -> &Handle {
        self.identity.handle()
    }
    /// Whether the directory has the account.
    pub fn is_registered(&self) -> bool {
        self.identity.registered
    }
    /// How the connection stands.
    pub fn connection(&self) -> ConnectionState {
        self.session.state
    }
    /// Messages that are not `stored` yet, ticks and names included, and of these the ones that no log has yet.
    pub fn waiting(&self) -> (usize, usize) {
        (self.outbox.len(), self.outbox.unsent())
    }
    /// Nothing that was asked of the server waits for its answer; a driver that is told to end waits for this a while,
    /// so that a first start leaves key packages behind.
    pub fn is_idle(&self) -> bool {
        self.packages.is_none() && self.calls.is_empty()
    }
    /// Every conversation; those that are one chat once.
    pub fn conversations(&self) -> Vec<ConversationView> {
        self.chats().into_iter().filter_map(|parts| self.view(parts)).collect()
    }
    /// One conversation, or the chat that it is part of.
    pub fn conversation(&self, id: ConversationId) -> Option<ConversationView> {
        self.view(self.chat(id))
    }
    /// The handles that are known, for completion.
    pub fn known_handles(&self) -> Vec<Handle> {
        self.contacts.values().filter_map(|c| c.handle.clone()).collect()
    }
    /// 60 digits to compare with the person of this handle; none before the first contact.
    pub fn safety_number(&self, handle: &Handle) -> Option<String> {
        let account = self.account_of(handle)?;
        let contact = self.contacts.get(&account)?;
        let own = (self.identity.address().account, self.identity.identity_key());
        Some(safety_number(own, (account, contact.devices.identity_key)))
    }

    fn view(&self, parts: Vec<ConversationId>) -> Option<ConversationView> {
        let id = *parts.first()?;
        let c = self.conversations.get(&id)?;
        let own = self.identity.address().device;
        let members = self.mls.members(id);
        let mark = |device| c.theirs.get(device).copied().unwrap_or_default();
        let others = || members.iter().map(|(d, _)| &d.device).filter(|d| **d != own).map(mark);
        Some(ConversationView {
            id,
            kind: c.kind(),
            name: c.name.clone(),
            members: if c.phase == Phase::Active { self.members(id) } else { Vec::new() },
            ready: c.phase == Phase::Active && c.vouched && !c.rejoining,
            left: parts.iter().all(|part| self.is_over(*part)),
            parts,
            delivered: others().map(|m| m.delivered).min().unwrap_or(0),
            read: others().map(|m| m.read).min().unwrap_or(0),
        })
    }

    pub(super) fn is_over(&self, id: ConversationId) -> bool {
        self.conversations.get(&id).is_none_or(|c| matches!(c.phase, Phase::Left | Phase::Failed))
    }
}
