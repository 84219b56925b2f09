// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far messages of one's own have come.

use std::collections::BTreeMap;

use clap::ValueEnum;
use pli_client::core::{Event, OutgoingMessage};
use pli_domain::{AccountId, ConversationId, SendId};

use super::session::refused;
use crate::exit::Failure;

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Wait {
    /// A durable log has it: it will arrive.
    Accepted,
    /// The servers have settled it: it left the outbox.
    Stored,
    /// Every other member's device has it.
    Delivered,
}

/// Follows the messages of one conversation. Holds one entry per message that is still waited for.
#[derive(Debug)]
pub struct Progress {
    conversation: ConversationId,
    wait: Wait,
    open: BTreeMap<SendId, u64>,
    /// Up to which lane number each other member has delivered.
    delivered: BTreeMap<AccountId, u64>,
    others: Vec<AccountId>,
}

impl Progress {
    /// Nothing sent yet.
    pub const fn new(conversation: ConversationId, wait: Wait) -> Self {
        Self { conversation, wait, open: BTreeMap::new(), delivered: BTreeMap::new(), others: Vec::new() }
    }

    /// A message was given to the outbox.
    pub fn sent(&mut self, message: OutgoingMessage) {
        self.open.insert(message.send_id, message.lane_no);
    }

    /// Messages still waited for.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Looks at an event; a final refusal is an error.
    pub fn see(&mut self, event: &Event, me: AccountId) -> Result<(), Failure> {
        match event {
            Event::ConversationReady { conversation, members, .. } if *conversation == self.conversation => {
                self.others = members.iter().map(|member| member.account).filter(|account| *account != me).collect();
            }
            Event::Accepted { message, .. } if self.wait == Wait::Accepted => self.done(message),
            Event::Stored { message, .. } if self.wait <= Wait::Stored => self.done(message),
            Event::Delivered { conversation, by, up_to, .. } if *conversation == self.conversation => {
                let known = self.delivered.entry(by.account).or_default();
                *known = (*known).max(*up_to);
                self.settle_delivered();
            }
            Event::ConversationFailed { conversation, why } if *conversation == self.conversation => {
                return Err(refused("the conversation cannot be started", why));
            }
            Event::Refused { message, why, .. } if self.open.contains_key(message) => {
                return Err(refused("the message will not be sent", why));
            }
            _ => {}
        }
        Ok(())
    }

    /// Who must have it, where the conversation was known before.
    pub fn expect(&mut self, others: Vec<AccountId>) {
        self.others = others;
        self.settle_delivered();
    }

    fn done(&mut self, message: &SendId) {
        self.open.remove(message);
    }

    fn settle_delivered(&mut self) {
        let everybody = self.others.iter().map(|account| self.delivered.get(account).copied().unwrap_or(0)).min();
        if let (Wait::Delivered, Some(everybody)) = (self.wait, everybody) {
            self.open.retain(|_, lane_no| *lane_no > everybody);
        }
    }
}

#[cfg(test)]
mod tests {
    use pli_client::core::Member;
    use pli_domain::DeviceId;

    use super::*;

    const HERE: ConversationId = ConversationId::from_bytes([1; 16]);
    const ME: AccountId = AccountId::from_bytes([0; 16]);

    fn message(n: u8) -> OutgoingMessage {
        OutgoingMessage { send_id: SendId::from_bytes([n; 16]), lane_no: n.into(), order: n.into() }
    }

    fn delivered(by: u8, up_to: u64) -> Event {
        let by = Member { account: AccountId::from_bytes([by; 16]), handle: None };
        Event::Delivered { conversation: HERE, by, device: DeviceId::from_bytes([9; 16]), up_to }
    }

    #[test]
    fn delivered_means_by_everybody_else() {
        let mut progress = Progress::new(HERE, Wait::Delivered);
        progress.expect(vec![AccountId::from_bytes([1; 16]), AccountId::from_bytes([2; 16])]);
        progress.sent(message(1));
        progress.sent(message(2));
        progress.see(&delivered(1, 2), ME).expect("fine");
        assert_eq!(progress.open(), 2);
        progress.see(&delivered(2, 1), ME).expect("fine");
        assert_eq!(progress.open(), 1);
    }

    #[test]
    fn stored_is_more_than_accepted() {
        let mut progress = Progress::new(HERE, Wait::Accepted);
        progress.sent(message(1));
        progress.see(&Event::Stored { conversation: HERE, message: message(1).send_id }, ME).expect("fine");
        assert_eq!(progress.open(), 0);
    }
}
