// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of one's own messages came how far.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pli_client::core::{Event, Member, OutgoingMessage};
use pli_domain::{ConversationId, SendId};

use crate::commands::about::About;
use crate::commands::json::name;
use crate::commands::output::lost;
use crate::commands::session::sentence;
use crate::terminal::one_line;

/// Messages whose text is remembered for ticks; older ones are called by their number.
const REMEMBERED_MAX: usize = 256;
/// Conversations whose numbers are known at a time.
const NUMBERED_MAX: usize = 64;
/// Characters of a message in its tick.
const EXCERPT_CHARS: usize = 32;

#[derive(Debug)]
struct Sent {
    conversation: ConversationId,
    message: OutgoingMessage,
    excerpt: String,
}

/// Remembers what was sent and says what became of it.
#[derive(Debug, Default)]
pub struct Ticks {
    sent: VecDeque<Sent>,
    /// How far each (conversation, person) had delivered and read when it was last said.
    said: BTreeMap<(ConversationId, pli_domain::AccountId), (u64, u64)>,
}

impl Ticks {
    /// A message went into the outbox.
    pub fn sent(&mut self, conversation: ConversationId, message: OutgoingMessage, text: &str) {
        let mut excerpt: String = one_line(text).chars().take(EXCERPT_CHARS).collect();
        if excerpt.len() < text.len() {
            excerpt.push('…');
        }
        self.sent.push_back(Sent { conversation, message, excerpt });
        if self.sent.len() > REMEMBERED_MAX {
            self.sent.pop_front();
        }
    }

    /// The line that an event deserves. `place` says where, as the end of "earlier messages": ` in #team`, ` to @bob`.
    pub fn see(&mut self, event: &Event, place: &str, about: &About) -> Option<String> {
        match event {
            Event::Moved { into, message, .. } => {
                let known = self.sent.iter_mut().find(|sent| sent.message.send_id == message.send_id);
                if let Some(sent) = known {
                    (sent.conversation, sent.message) = (*into, *message);
                }
                None
            }
            Event::Accepted { message, .. } => Some(format!("✓ accepted   {}", self.called(message, place))),
            Event::Resending { message, .. } => Some(format!("↻ sent again {}", self.called(message, place))),
            Event::Refused { message, why, .. } => {
                Some(format!("✗ not sent   {}: {}", self.called(message, place), sentence(why)))
            }
            Event::Delivered { conversation, by, up_to, .. } => {
                let said = self.said.entry((*conversation, by.account)).or_default();
                let before = said.0.max(said.1);
                said.0 = said.0.max(*up_to);
                let line =
                    || format!("✓✓ delivered to @{} {}", name(by), self.up_to(*conversation, (before, *up_to), place));
                (*up_to > before).then(line)
            }
            Event::Lost { conversation, by, lane_nos, .. } => {
                Some(self.lost((*conversation, *lane_nos), place, |which| lost(by, which, about)))
            }
            Event::Read { conversation, by, up_to, .. } => {
                let said = self.said.entry((*conversation, by.account)).or_default();
                let before = said.1;
                said.1 = said.1.max(*up_to);
                let line =
                    || format!("✓✓ read by @{} {}", name(by), self.up_to(*conversation, (before, *up_to), place));
                (*up_to > before).then(line)
            }
            _ => None,
        }
    }

    fn lost(
        &self,
        (conversation, (first, last)): (ConversationId, (u64, u64)),
        place: &str,
        told: impl FnOnce(&str) -> String,
    ) -> String {
        let is = |sent: &&Sent| sent.conversation == conversation && (first..=last).contains(&sent.message.lane_no);
        let known: Vec<_> = self.sent.iter().filter(is).map(|sent| format!("“{}”", sent.excerpt)).collect();
        let which = if known.is_empty() { format!("(earlier messages{place})") } else { known.join(" ") };
        format!("✗ {}", told(&which))
    }

    fn called(&self, message: &SendId, place: &str) -> String {
        let sent = self.sent.iter().rev().find(|sent| sent.message.send_id == *message);
        sent.map_or_else(|| format!("an earlier message{place}"), |sent| format!("“{}”", sent.excerpt))
    }

    /// The last one that a watermark covers, and how many it is news of besides. It may name a number behind the last that
    /// stands for no message.
    fn up_to(&self, conversation: ConversationId, (before, lane_no): (u64, u64), place: &str) -> String {
        let is = |sent: &&Sent| sent.conversation == conversation && sent.message.lane_no <= lane_no;
        let Some(last) = self.sent.iter().filter(is).max_by_key(|sent| sent.message.lane_no) else {
            return format!("(earlier messages{place})");
        };
        match self.sent.iter().filter(is).filter(|sent| sent.message.lane_no > before).count() {
            0 | 1 => format!("“{}”", last.excerpt),
            news => format!("“{}” and {} before it", last.excerpt, news - 1),
        }
    }

    /// The numbers that a tick is news of, where no message under them is remembered here: messages of before, or none at
    /// all, as a group's name has a number too.
    pub fn unknown(&self, event: &Event) -> Option<(ConversationId, (u64, u64))> {
        let said = |by: &Member, id| self.said.get(&(id, by.account)).copied().unwrap_or_default();
        let (conversation, (first, last)) = match event {
            Event::Delivered { conversation, by, up_to, .. } => {
                let (delivered, read) = said(by, *conversation);
                (*conversation, (delivered.max(read) + 1, *up_to))
            }
            Event::Read { conversation, by, up_to, .. } => (*conversation, (said(by, *conversation).1 + 1, *up_to)),
            Event::Lost { conversation, lane_nos, .. } => (*conversation, *lane_nos),
            _ => return None,
        };
        let is = |sent: &Sent| sent.conversation == conversation && (first..=last).contains(&sent.message.lane_no);
        (!self.sent.iter().any(is)).then_some((conversation, (first, last)))
    }
}

/// Numbers of one's own messages, as the history has them: read once for each conversation, and again only after
/// something was sent.
#[derive(Debug, Default)]
pub struct OwnNumbers(BTreeMap<ConversationId, Option<BTreeSet<u64>>>);

impl OwnNumbers {
    /// Whether a message has one of these numbers; none where the history has to be looked at.
    pub fn has(&self, conversation: ConversationId, (first, last): (u64, u64)) -> Option<bool> {
        let known = self.0.get(&conversation)?.as_ref();
        Some(known.is_none_or(|numbers| numbers.range(first..=last.max(first)).next().is_some()))
    }

    /// The history has these; none where it has more than were looked at, and most likely any.
    pub fn learn(&mut self, conversation: ConversationId, numbers: Option<BTreeSet<u64>>) {
        if self.0.len() >= NUMBERED_MAX {
            self.0.clear();
        }
        self.0.insert(conversation, numbers);
    }

    /// There are more.
    pub fn forget(&mut self, conversation: ConversationId) {
        self.0.remove(&conversation);
    }
}

#[cfg(test)]
mod tests {
    use pli_domain::{AccountId, DeviceId, UnixMillis};

    use super::*;

    #[test]
    fn a_watermark_is_said_once_and_never_after_it_was_read() {
        let (here, id) = (ConversationId::from_bytes([1; 16]), SendId::from_bytes([2; 16]));
        let by = Member {
            account: AccountId::from_bytes([3; 16]),
            handle: Some("bob".parse().expect("a handle")),
            former: None,
        };
        let device = DeviceId::from_bytes([4; 16]);
        let mut ticks = Ticks::default();
        ticks.sent(here, OutgoingMessage { send_id: id, lane_no: 1, order: 1 }, "hello");
        let accepted = Event::Accepted { conversation: here, message: id, at: UnixMillis(0) };
        assert_eq!(ticks.see(&accepted, "", &About::default()).as_deref(), Some("✓ accepted   “hello”"));
        let delivered = Event::Delivered { conversation: here, by: by.clone(), device, up_to: 1 };
        let read = Event::Read { conversation: here, by, device, up_to: 1 };
        assert_eq!(ticks.see(&delivered, "", &About::default()).as_deref(), Some("✓✓ delivered to @bob “hello”"));
        assert_eq!(ticks.see(&delivered, "", &About::default()), None);
        assert_eq!(ticks.see(&read, "", &About::default()).as_deref(), Some("✓✓ read by @bob “hello”"));
        assert_eq!(ticks.see(&read, "", &About::default()), None);
    }

    #[test]
    fn a_watermark_names_the_last_message_that_it_covers_and_unknown_numbers_are_told_apart() {
        let (here, device) = (ConversationId::from_bytes([1; 16]), DeviceId::from_bytes([4; 16]));
        let by = Member {
            account: AccountId::from_bytes([3; 16]),
            handle: Some("bob".parse().expect("a handle")),
            former: None,
        };
        let mut ticks = Ticks::default();
        let delivered = |up_to| Event::Delivered { conversation: here, by: by.clone(), device, up_to };
        // The group's name has the first number, and nothing was said before it.
        assert_eq!(ticks.unknown(&delivered(1)), Some((here, (1, 1))));
        ticks.see(&delivered(1), "", &About::default());
        ticks.sent(here, OutgoingMessage { send_id: SendId::from_bytes([2; 16]), lane_no: 2, order: 1 }, "hello");
        // The name is said again to somebody new, under the third.
        assert_eq!(ticks.unknown(&delivered(3)), None);
        assert_eq!(
            ticks.see(&delivered(3), " in #one", &About::default()).as_deref(),
            Some("✓✓ delivered to @bob “hello”")
        );
        assert_eq!(ticks.unknown(&delivered(4)), Some((here, (4, 4))));
        for lane_no in 4..=6 {
            let send_id = SendId::from_bytes([lane_no as u8; 16]);
            ticks.sent(here, OutgoingMessage { send_id, lane_no, order: lane_no }, "more");
        }
        assert_eq!(
            ticks.see(&delivered(6), "", &About::default()).as_deref(),
            Some("✓✓ delivered to @bob “more” and 2 before it")
        );
    }

    #[test]
    fn the_history_is_looked_at_once_for_the_numbers_of_a_conversation() {
        let id = |n: usize| ConversationId::from_bytes([u8::try_from(n).expect("small"); 16]);
        let mut own = OwnNumbers::default();
        assert_eq!(own.has(id(1), (1, 9)), None);
        own.learn(id(1), Some([2, 5].into()));
        for (range, has) in [((1, 1), false), ((1, 2), true), ((3, 4), false), ((5, 9), true), ((9, 3), false)] {
            assert_eq!(own.has(id(1), range), Some(has), "{range:?}");
        }
        own.learn(id(2), None);
        assert_eq!(own.has(id(2), (7, 7)), Some(true), "more than were looked at");
        own.forget(id(1));
        assert_eq!(own.has(id(1), (2, 2)), None, "something was sent");
        (0..2 * NUMBERED_MAX).for_each(|n| own.learn(id(n), None));
        assert!(own.0.len() <= NUMBERED_MAX);
    }

    #[test]
    fn what_is_lost_is_named() {
        let here = ConversationId::from_bytes([1; 16]);
        let by = Member {
            account: AccountId::from_bytes([3; 16]),
            handle: Some("bob".parse().expect("a handle")),
            former: None,
        };
        let mut ticks = Ticks::default();
        for (n, text) in [(1, "one"), (2, "two"), (3, "three")] {
            let message = OutgoingMessage { send_id: SendId::from_bytes([n; 16]), lane_no: n.into(), order: n.into() };
            ticks.sent(here, message, text);
        }
        let device = DeviceId::from_bytes([4; 16]);
        let lost = Event::Lost { conversation: here, by, device, lane_nos: (2, 2), messages: Vec::new(), order: 1 };
        let said = ticks.see(&lost, "", &About::default()).expect("a line");
        assert!(said.contains("@bob: “two”") && !said.contains("three"), "{said}");
    }

    #[test]
    fn what_is_not_remembered_any_more_is_told_with_its_conversation() {
        let here = ConversationId::from_bytes([1; 16]);
        let by = Member {
            account: AccountId::from_bytes([3; 16]),
            handle: Some("bob".parse().expect("a handle")),
            former: None,
        };
        let device = DeviceId::from_bytes([4; 16]);
        let mut ticks = Ticks::default();
        let delivered = Event::Delivered { conversation: here, by: by.clone(), device, up_to: 1 };
        let said = ticks.see(&delivered, " in #team", &About::default());
        assert_eq!(said.as_deref(), Some("✓✓ delivered to @bob (earlier messages in #team)"));
        let lost = Event::Lost { conversation: here, by, device, lane_nos: (2, 2), messages: Vec::new(), order: 1 };
        let said = ticks.see(&lost, " to @bob", &About::default()).expect("a line");
        assert!(said.contains("(earlier messages to @bob)"), "{said}");
        let accepted = Event::Accepted { conversation: here, message: SendId::from_bytes([9; 16]), at: UnixMillis(0) };
        assert_eq!(
            ticks.see(&accepted, " in #team", &About::default()).as_deref(),
            Some("✓ accepted   an earlier message in #team")
        );
    }
}
