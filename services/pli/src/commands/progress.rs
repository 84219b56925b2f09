// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far messages of one's own have come.

use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum;
use pli_client::core::{Event, Member, Outcome, OutgoingMessage};
use pli_domain::{AccountId, ConversationId, DeviceId, SendId};

use super::json::name;
use super::session::refused;
use crate::exit::{Exit, Failure};

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Wait {
    /// A durable log has it: it will arrive.
    Accepted,
    /// The servers have settled it: it left the outbox.
    Stored,
    /// Everybody else has it, on one of their devices at least.
    Delivered,
}

/// Follows the messages of one chat, whichever of its conversations carries them. Holds one entry per message that is
/// still waited for.
#[derive(Debug)]
pub struct Progress {
    conversations: BTreeSet<ConversationId>,
    wait: Wait,
    open: BTreeMap<SendId, (ConversationId, u64)>,
    /// From which lane number of a conversation on, and up to which, each device of another member has delivered.
    delivered: BTreeMap<(ConversationId, AccountId), BTreeMap<DeviceId, (u64, u64)>>,
    others: Vec<AccountId>,
    /// Who is in each conversation that became ready, for a message that moves into it.
    ready: BTreeMap<ConversationId, Vec<AccountId>>,
    given: u64,
    /// Those of `open` that a log has.
    accepted: BTreeSet<SendId>,
}

impl Progress {
    /// Nothing sent yet.
    pub fn new(conversation: ConversationId, wait: Wait) -> Self {
        let conversations = BTreeSet::from([conversation]);
        let (delivered, ready) = (BTreeMap::new(), BTreeMap::new());
        let (open, others, accepted) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
        Self { conversations, wait, open, delivered, others, ready, given: 0, accepted }
    }

    /// A message was given to the outbox.
    pub fn sent(&mut self, outcome: Outcome) {
        if let (Some(conversation), Some(message)) = (outcome.conversation, outcome.message) {
            self.put(conversation, message);
            self.given += 1;
        }
    }

    /// Messages that were given to the outbox, and of these the ones that no log has yet.
    pub fn counts(&self) -> (u64, usize) {
        (self.given, self.open.len() - self.accepted.len())
    }

    fn put(&mut self, conversation: ConversationId, message: OutgoingMessage) {
        self.conversations.insert(conversation);
        self.open.insert(message.send_id, (conversation, message.lane_no));
    }

    /// Messages still waited for.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Looks at an event; a final refusal is an error.
    pub fn see(&mut self, event: &Event, me: AccountId) -> Result<(), Failure> {
        match event {
            Event::Accepted { message, .. } if self.wait > Wait::Accepted && self.open.contains_key(message) => {
                self.accepted.insert(*message);
            }
            Event::Resending { message, .. } => {
                self.accepted.remove(message);
            }
            Event::ConversationReady { conversation, members, .. } => {
                let others = members.iter().map(|member| member.account).filter(|account| *account != me).collect();
                if self.conversations.contains(conversation) {
                    self.others.clone_from(&others);
                }
                self.ready.insert(*conversation, others);
            }
            Event::Accepted { message, .. } if self.wait == Wait::Accepted => self.done(message),
            Event::Stored { message, .. } if self.wait <= Wait::Stored => self.done(message),
            Event::Moved { into, message, .. } if self.open.contains_key(&message.send_id) => {
                self.put(*into, *message);
                if let Some(others) = self.ready.get(into) {
                    self.others.clone_from(others);
                }
            }
            Event::Lost { conversation, by, lane_nos, .. } if self.wait == Wait::Delivered => {
                self.lost(*conversation, by, *lane_nos)?;
            }
            Event::Delivered { conversation, by, device, from, up_to } if self.conversations.contains(conversation) => {
                let devices = self.delivered.entry((*conversation, by.account)).or_default();
                let known = devices.entry(*device).or_default();
                *known = (*from, known.1.max(*up_to));
                self.settle_delivered();
            }
            Event::MemberRemoved { conversation, member, .. } if self.conversations.contains(conversation) => {
                self.others.retain(|other| *other != member.account);
                if self.others.is_empty() && self.wait == Wait::Delivered {
                    self.open.retain(|message, _| !self.accepted.contains(message));
                }
                self.settle_delivered();
            }
            Event::Left { conversation, .. }
                if self.conversations.contains(conversation) && self.waits_for_others() =>
            {
                return Err(Failure::say(
                    Exit::Refused,
                    "you are no longer in this conversation, and what the others have of it is not heard any more",
                ));
            }
            Event::ConversationFailed { conversation, why } if self.conversations.contains(conversation) => {
                return Err(refused("the conversation cannot be started", why));
            }
            Event::Refused { message, why, .. } if self.open.contains_key(message) => {
                return Err(refused("the message will not be sent", why));
            }
            _ => {}
        }
        Ok(())
    }

    fn waits_for_others(&self) -> bool {
        self.wait == Wait::Delivered && !self.open.is_empty()
    }

    /// What is waited for will not come.
    fn lost(&self, here: ConversationId, by: &Member, (first, last): (u64, u64)) -> Result<(), Failure> {
        let is = |at: &(ConversationId, u64)| at.0 == here && (first..=last).contains(&at.1);
        let lost = self.open.values().filter(|at| is(at)).count();
        if lost == 0 || !self.others.contains(&by.account) {
            return Ok(());
        }
        let what = if lost == 1 { "a message was".to_string() } else { format!("{lost} messages were") };
        let who = name(by);
        Err(Failure::say(
            Exit::Lost,
            format_args!("{what} lost on the way to @{who} and will not be shown there; send it again"),
        ))
    }

    /// Who must have it, where the conversation was known before.
    pub fn expect(&mut self, others: Vec<AccountId>) {
        self.others = others;
        self.settle_delivered();
    }

    fn done(&mut self, message: &SendId) {
        self.open.remove(message);
        self.accepted.remove(message);
    }

    fn settle_delivered(&mut self) {
        if self.wait != Wait::Delivered || self.others.is_empty() {
            return;
        }
        let (delivered, others) = (&self.delivered, &self.others);
        self.open.retain(|_, (conversation, lane_no)| {
            let is_settled =
                |account| delivered.get(&(*conversation, account)).is_some_and(|has| settles(has, *lane_no));
            !others.iter().all(|account| is_settled(*account))
        });
        self.accepted.retain(|message| self.open.contains_key(message));
    }
}

/// Whether a message is not waited for any more, given what each device of its reader has: one of them has it, or it was
/// for none, as it was sent while they were out.
fn settles(devices: &BTreeMap<DeviceId, (u64, u64)>, lane_no: u64) -> bool {
    let has = |(from, up_to): &(u64, u64)| (*from..=*up_to).contains(&lane_no);
    devices.values().any(has) || devices.values().all(|(from, _)| lane_no < *from)
}

#[cfg(test)]
mod tests {
    use pli_domain::UnixMillis;

    use super::*;

    const HERE: ConversationId = ConversationId::from_bytes([1; 16]);
    const ME: AccountId = AccountId::from_bytes([0; 16]);

    fn message(n: u8) -> OutgoingMessage {
        OutgoingMessage { send_id: SendId::from_bytes([n; 16]), lane_no: n.into(), order: n.into() }
    }

    fn sent(conversation: ConversationId, n: u8) -> Outcome {
        Outcome { conversation: Some(conversation), message: Some(message(n)) }
    }

    fn delivered(by: u8, up_to: u64) -> Event {
        delivered_in(HERE, by, up_to)
    }

    fn delivered_in(conversation: ConversationId, by: u8, up_to: u64) -> Event {
        let by = Member { account: AccountId::from_bytes([by; 16]), handle: None, former: None };
        Event::Delivered { conversation, by, device: DeviceId::from_bytes([9; 16]), from: 1, up_to }
    }

    #[test]
    fn delivered_means_by_everybody_else() {
        let mut progress = Progress::new(HERE, Wait::Delivered);
        progress.expect(vec![AccountId::from_bytes([1; 16]), AccountId::from_bytes([2; 16])]);
        progress.sent(sent(HERE, 1));
        progress.sent(sent(HERE, 2));
        progress.see(&delivered(1, 2), ME).expect("fine");
        assert_eq!(progress.open(), 2);
        progress.see(&delivered(2, 1), ME).expect("fine");
        assert_eq!(progress.open(), 1);
    }

    #[test]
    fn a_message_is_waited_for_on_the_devices_that_it_is_for() {
        let by = Member { account: AccountId::from_bytes([1; 16]), handle: None, former: None };
        let told = |device: u8, from, up_to| {
            let (by, device) = (by.clone(), DeviceId::from_bytes([device; 16]));
            Event::Delivered { conversation: HERE, by, device, from, up_to }
        };
        let waits = || {
            let mut progress = Progress::new(HERE, Wait::Delivered);
            progress.expect(vec![by.account]);
            (1..=5).for_each(|n| progress.sent(sent(HERE, n)));
            progress
        };
        let mut progress = waits();
        let steps = [
            (told(8, 1, 1), 4),
            // A newer device, for which the second and the third were not: the older one still has to tell of them.
            (told(9, 4, 5), 2),
            (told(8, 1, 2), 1),
            (told(8, 1, 3), 0),
        ];
        for (event, open) in steps {
            progress.see(&event, ME).expect("fine");
            assert_eq!(progress.open(), open, "{event:?}");
        }
        let mut progress = waits();
        // Whoever was out for the second and the third, and is in again, is not waited for over these.
        for (event, open) in [(told(8, 1, 1), 4), (told(8, 4, 4), 1), (told(8, 4, 5), 0)] {
            progress.see(&event, ME).expect("fine");
            assert_eq!(progress.open(), open, "{event:?}");
        }
    }

    #[test]
    fn nobody_is_waited_for_who_is_put_out() {
        let member = |n: u8| Member { account: AccountId::from_bytes([n; 16]), handle: None, former: None };
        let removed = |n: u8| Event::MemberRemoved { conversation: HERE, member: member(n), by: None };
        let waits = || {
            let mut progress = Progress::new(HERE, Wait::Delivered);
            progress.expect(vec![member(1).account, member(2).account]);
            progress.sent(sent(HERE, 1));
            let accepted = Event::Accepted { conversation: HERE, message: message(1).send_id, at: UnixMillis(1) };
            progress.see(&accepted, ME).expect("fine");
            progress
        };
        let mut progress = waits();
        progress.see(&delivered(1, 1), ME).expect("fine");
        progress.see(&removed(2), ME).expect("fine");
        assert_eq!(progress.open(), 0);
        let mut progress = waits();
        progress.see(&removed(1), ME).expect("fine");
        assert_eq!(progress.open(), 1);
        progress.see(&removed(2), ME).expect("fine");
        assert_eq!(progress.open(), 0, "there is nobody left to have it");
        let mut progress = waits();
        assert!(progress.see(&Event::Left { conversation: HERE, by: None }, ME).is_err());
        progress.see(&delivered(1, 1), ME).expect("fine");
        progress.see(&delivered(2, 1), ME).expect("fine");
        progress.see(&Event::Left { conversation: HERE, by: None }, ME).expect("nothing is waited for");
    }

    #[test]
    fn a_lost_message_is_never_delivered() {
        let mut progress = Progress::new(HERE, Wait::Delivered);
        progress.expect(vec![AccountId::from_bytes([1; 16])]);
        progress.sent(sent(HERE, 2));
        let device = DeviceId::from_bytes([9; 16]);
        let lost = |by: u8, lane_nos| {
            let by = Member { account: AccountId::from_bytes([by; 16]), handle: None, former: None };
            Event::Lost { conversation: HERE, by, device, lane_nos, messages: Vec::new(), order: 1 }
        };
        progress.see(&lost(7, (2, 2)), ME).expect("somebody who is not waited for");
        progress.see(&lost(1, (1, 1)), ME).expect("another message");
        let failure = progress.see(&lost(1, (1, 3)), ME).expect_err("lost");
        assert_eq!(failure.exit, Exit::Lost);
    }

    #[test]
    fn each_conversation_of_a_chat_counts_for_itself_and_a_message_may_move() {
        let other = ConversationId::from_bytes([2; 16]);
        let mut progress = Progress::new(HERE, Wait::Delivered);
        progress.expect(vec![AccountId::from_bytes([1; 16])]);
        progress.sent(sent(HERE, 3));
        progress.sent(sent(other, 2));
        progress.see(&delivered_in(other, 1, 9), ME).expect("fine");
        assert_eq!(progress.open(), 1);
        let message = OutgoingMessage { lane_no: 10, ..message(3) };
        progress.see(&Event::Moved { conversation: HERE, into: other, message }, ME).expect("fine");
        progress.see(&delivered(1, 9), ME).expect("fine");
        assert_eq!(progress.open(), 1);
        progress.see(&delivered_in(other, 1, 10), ME).expect("fine");
        assert_eq!(progress.open(), 0);
    }

    #[test]
    fn what_is_accepted_is_counted_however_far_is_waited() {
        for wait in [Wait::Accepted, Wait::Stored, Wait::Delivered] {
            let mut progress = Progress::new(HERE, wait);
            (1..=3).for_each(|n| progress.sent(sent(HERE, n)));
            let accepted =
                Event::Accepted { conversation: HERE, message: message(2).send_id, at: pli_domain::UnixMillis(0) };
            progress.see(&accepted, ME).expect("fine");
            assert_eq!(progress.counts(), (3, 2), "{wait:?}");
        }
    }

    #[test]
    fn stored_is_more_than_accepted() {
        let mut progress = Progress::new(HERE, Wait::Accepted);
        progress.sent(sent(HERE, 1));
        progress.see(&Event::Stored { conversation: HERE, message: message(1).send_id }, ME).expect("fine");
        assert_eq!(progress.open(), 0);
    }
}
