// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of one's own messages came how far.

mod ranges;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pli_client::core::{Event, Member, OutgoingMessage, Reached};
use pli_domain::{AccountId, ConversationId, SendId};

pub(super) use self::ranges::Range;
use self::ranges::Ranges;

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
    /// How far it was said to have come with everybody.
    with_all: Option<Reached>,
}

/// What was said of somebody in a conversation, whichever of their devices it was of: each tells of the numbers that were
/// for it, which need not begin where those of another do.
#[derive(Debug, Default)]
struct Said {
    delivered: Ranges,
    read: Ranges,
}

impl Said {
    /// The numbers of these that a watermark is news of. What is read is delivered.
    fn news(&self, is_read: bool, range: Range) -> Vec<Range> {
        let unread = self.read.missing_of(vec![range]);
        if is_read { unread } else { self.delivered.missing_of(unread) }
    }
}

/// Remembers what was sent and says what became of it.
#[derive(Debug, Default)]
pub struct Ticks {
    sent: VecDeque<Sent>,
    said: BTreeMap<(ConversationId, AccountId), Said>,
    /// Where a message was refused last.
    refused: Option<ConversationId>,
}

impl Ticks {
    /// A message went into the outbox.
    pub fn sent(&mut self, conversation: ConversationId, message: OutgoingMessage, text: &str) {
        let mut excerpt: String = one_line(text).chars().take(EXCERPT_CHARS).collect();
        if excerpt.len() < text.len() {
            excerpt.push('…');
        }
        self.sent.push_back(Sent { conversation, message, excerpt, with_all: None });
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
            Event::Refused { conversation, message, why } => {
                self.refused = Some(*conversation);
                Some(format!("✗ not sent   {}: {}", self.called(message, place), sentence(why)))
            }
            Event::Delivered { conversation, by, from, up_to, .. } => {
                let which = self.news(false, (*conversation, by), (*from, *up_to), place)?;
                Some(format!("✓✓ delivered to @{} {which}", name(by)))
            }
            Event::Lost { conversation, by, lane_nos, .. } => {
                Some(self.lost((*conversation, *lane_nos), place, |which| lost(by, which, about)))
            }
            Event::Read { conversation, by, from, up_to, .. } => {
                let which = self.news(true, (*conversation, by), (*from, *up_to), place)?;
                Some(format!("✓✓ read by @{} {which}", name(by)))
            }
            _ => None,
        }
    }

    /// The numbers of the messages that this watermark is of and that somebody may not have read yet; none where it is of
    /// nothing that is remembered here.
    pub fn open(&self, event: &Event) -> Option<Vec<u64>> {
        let (Event::Delivered { conversation, from, up_to, .. } | Event::Read { conversation, from, up_to, .. }) =
            event
        else {
            return None;
        };
        let range = [(*from, *up_to)];
        let mut covered = self.covered(*conversation, &range).peekable();
        covered.peek()?;
        let open = covered.filter(|sent| sent.with_all != Some(Reached::Read));
        Some(open.map(|sent| sent.message.lane_no).collect())
    }

    /// The lines for messages that have come so far with everybody: one for all that became delivered, one for all that
    /// became read.
    pub fn with_all(&mut self, conversation: ConversationId, reached: &BTreeMap<u64, Reached>) -> Vec<String> {
        let mut lines = Vec::new();
        for (level, word) in [(Reached::Delivered, "delivered to"), (Reached::Read, "read by")] {
            let is_new = |sent: &&mut Sent| {
                let here = sent.conversation == conversation && reached.get(&sent.message.lane_no) == Some(&level);
                here && sent.with_all < Some(level)
            };
            let news: Vec<&mut Sent> = self.sent.iter_mut().filter(is_new).collect();
            let before = news.len().saturating_sub(1);
            let mut last = None;
            for sent in news {
                sent.with_all = Some(level);
                last = last.max(Some((sent.message.lane_no, &sent.excerpt)));
            }
            if let Some((_, excerpt)) = last {
                lines.push(format!("✓✓ {word} everybody {}", and_before(excerpt, before)));
            }
        }
        lines
    }

    /// Whether why this conversation failed was said with the message that it was to begin with.
    pub fn has_told(&self, failed: ConversationId) -> bool {
        self.refused == Some(failed)
    }

    fn lost(
        &self,
        (conversation, lane_nos): (ConversationId, Range),
        place: &str,
        told: impl FnOnce(&str) -> String,
    ) -> String {
        let known: Vec<_> = self.covered(conversation, &[lane_nos]).map(|sent| format!("“{}”", sent.excerpt)).collect();
        let which = if known.is_empty() { format!("(earlier messages{place})") } else { known.join(" ") };
        format!("✗ {}", told(&which))
    }

    fn called(&self, message: &SendId, place: &str) -> String {
        let sent = self.sent.iter().rev().find(|sent| sent.message.send_id == *message);
        sent.map_or_else(|| format!("an earlier message{place}"), |sent| format!("“{}”", sent.excerpt))
    }

    /// What a watermark is news of, which is said by that: the last message, and how many before it. It may name numbers
    /// that stand for no message.
    fn news(
        &mut self,
        is_read: bool,
        (conversation, by): (ConversationId, &Member),
        range: Range,
        place: &str,
    ) -> Option<String> {
        let said = self.said.entry((conversation, by.account)).or_default();
        let news = said.news(is_read, range);
        let ranges = if is_read { &mut said.read } else { &mut said.delivered };
        ranges.add(range);
        if news.is_empty() {
            return None;
        }
        let covered = || self.covered(conversation, &news);
        let Some(last) = covered().max_by_key(|sent| sent.message.lane_no) else {
            return Some(format!("(earlier messages{place})"));
        };
        Some(and_before(&last.excerpt, covered().count().saturating_sub(1)))
    }

    fn covered<'a>(&'a self, conversation: ConversationId, ranges: &'a [Range]) -> impl Iterator<Item = &'a Sent> {
        self.sent.iter().filter(move |sent| sent.conversation == conversation && is_in(sent.message.lane_no, ranges))
    }

    /// The numbers that a tick is news of, where no message under them is remembered here: messages of before, or none at
    /// all, as a group's name has a number too.
    pub fn unknown(&self, event: &Event) -> Option<(ConversationId, Vec<Range>)> {
        let news = |is_read, by: &Member, id, range| match self.said.get(&(id, by.account)) {
            Some(said) => said.news(is_read, range),
            None => vec![range],
        };
        let (conversation, ranges) = match event {
            Event::Delivered { conversation, by, from, up_to, .. } => {
                (*conversation, news(false, by, *conversation, (*from, *up_to)))
            }
            Event::Read { conversation, by, from, up_to, .. } => {
                (*conversation, news(true, by, *conversation, (*from, *up_to)))
            }
            Event::Lost { conversation, lane_nos, .. } => (*conversation, vec![*lane_nos]),
            _ => return None,
        };
        let is_known = self.covered(conversation, &ranges).next().is_some();
        (!is_known).then_some((conversation, ranges))
    }
}

fn and_before(excerpt: &str, before: usize) -> String {
    match before {
        0 => format!("“{excerpt}”"),
        before => format!("“{excerpt}” and {before} before it"),
    }
}

fn is_in(lane_no: u64, ranges: &[Range]) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&lane_no))
}

/// Numbers of one's own messages, as the history has them: read once for each conversation, and again only after
/// something was sent.
#[derive(Debug, Default)]
pub struct OwnNumbers(BTreeMap<ConversationId, Option<BTreeSet<u64>>>);

impl OwnNumbers {
    /// Whether a message has one of these numbers; none where the history has to be looked at.
    pub fn has(&self, conversation: ConversationId, ranges: &[Range]) -> Option<bool> {
        let known = self.0.get(&conversation)?.as_ref();
        let is_any = |numbers: &BTreeSet<u64>| {
            ranges.iter().any(|(first, last)| numbers.range(*first..=*last.max(first)).next().is_some())
        };
        Some(known.is_none_or(is_any))
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

    fn member(handle: &str) -> Member {
        let handle = Some(handle.parse().expect("a handle"));
        Member { account: AccountId::from_bytes([3; 16]), handle, former: None }
    }

    #[test]
    fn what_has_come_so_far_with_everybody_is_said_once_for_each_step() {
        let here = ConversationId::from_bytes([1; 16]);
        let mut ticks = Ticks::default();
        for n in 1..=3 {
            let message = OutgoingMessage { send_id: SendId::from_bytes([n; 16]), lane_no: n.into(), order: n.into() };
            ticks.sent(here, message, &format!("text {n}"));
        }
        let (by, device) = (member("bob"), DeviceId::from_bytes([4; 16]));
        let delivered = Event::Delivered { conversation: here, by, device, from: 1, up_to: 2 };
        assert_eq!(ticks.open(&delivered), Some(vec![1, 2]));
        assert!(ticks.with_all(here, &BTreeMap::new()).is_empty(), "somebody has not got it");
        let reached = BTreeMap::from([(1, Reached::Delivered), (2, Reached::Delivered)]);
        assert_eq!(ticks.with_all(here, &reached), ["✓✓ delivered to everybody “text 2” and 1 before it"]);
        assert!(ticks.with_all(here, &reached).is_empty(), "twice");
        let reached = BTreeMap::from([(1, Reached::Read), (2, Reached::Delivered), (3, Reached::Read)]);
        assert_eq!(ticks.with_all(here, &reached), ["✓✓ read by everybody “text 3” and 1 before it"]);
        assert!(ticks.with_all(here, &BTreeMap::from([(3, Reached::Delivered)])).is_empty(), "it was read");
        assert_eq!(ticks.open(&delivered), Some(vec![2]), "nothing is news of what everybody has read");
        ticks.with_all(here, &BTreeMap::from([(2, Reached::Read)]));
        assert_eq!(ticks.open(&delivered), Some(Vec::new()), "everybody has read them all");
        let before = Event::Delivered { conversation: here, by: member("bob"), device, from: 8, up_to: 9 };
        assert_eq!(ticks.open(&before), None, "messages of earlier times");
    }

    #[test]
    fn a_watermark_is_said_once_and_never_after_it_was_read() {
        let (here, id) = (ConversationId::from_bytes([1; 16]), SendId::from_bytes([2; 16]));
        let by = member("bob");
        let device = DeviceId::from_bytes([4; 16]);
        let mut ticks = Ticks::default();
        ticks.sent(here, OutgoingMessage { send_id: id, lane_no: 1, order: 1 }, "hello");
        let accepted = Event::Accepted { conversation: here, message: id, at: UnixMillis(0) };
        assert_eq!(ticks.see(&accepted, "", &About::default()).as_deref(), Some("✓ accepted   “hello”"));
        let delivered = Event::Delivered { conversation: here, by: by.clone(), device, from: 1, up_to: 1 };
        let read = Event::Read { conversation: here, by, device, from: 1, up_to: 1 };
        assert_eq!(ticks.see(&delivered, "", &About::default()).as_deref(), Some("✓✓ delivered to @bob “hello”"));
        assert_eq!(ticks.see(&delivered, "", &About::default()), None);
        assert_eq!(ticks.see(&read, "", &About::default()).as_deref(), Some("✓✓ read by @bob “hello”"));
        assert_eq!(ticks.see(&read, "", &About::default()), None);
    }

    #[test]
    fn why_a_conversation_failed_is_said_with_its_message_only() {
        let (here, message) = (ConversationId::from_bytes([1; 16]), SendId::from_bytes([2; 16]));
        let mut ticks = Ticks::default();
        assert!(!ticks.has_told(here));
        let why = pli_api::refusal(pli_api::ErrorCode::NotFound, "nobody has this handle");
        let line = ticks.see(&Event::Refused { conversation: here, message, why }, "", &About::default());
        assert!(line.is_some_and(|line| line.contains("nobody has this handle")));
        assert!(ticks.has_told(here) && !ticks.has_told(ConversationId::from_bytes([9; 16])));
    }

    #[test]
    fn a_watermark_names_the_last_message_that_it_covers_and_unknown_numbers_are_told_apart() {
        let (here, device) = (ConversationId::from_bytes([1; 16]), DeviceId::from_bytes([4; 16]));
        let by = member("bob");
        let mut ticks = Ticks::default();
        let delivered = |up_to| Event::Delivered { conversation: here, by: by.clone(), device, from: 1, up_to };
        // The group's name has the first number, and nothing was said before it.
        assert_eq!(ticks.unknown(&delivered(1)), Some((here, vec![(1, 1)])));
        ticks.see(&delivered(1), "", &About::default());
        ticks.sent(here, OutgoingMessage { send_id: SendId::from_bytes([2; 16]), lane_no: 2, order: 1 }, "hello");
        // The name is said again to somebody new, under the third.
        assert_eq!(ticks.unknown(&delivered(3)), None);
        assert_eq!(
            ticks.see(&delivered(3), " in #one", &About::default()).as_deref(),
            Some("✓✓ delivered to @bob “hello”")
        );
        assert_eq!(ticks.unknown(&delivered(4)), Some((here, vec![(4, 4)])));
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
    fn what_was_not_for_somebody_is_never_said_to_be_delivered() {
        let (here, device) = (ConversationId::from_bytes([1; 16]), DeviceId::from_bytes([4; 16]));
        let by = member("carol");
        let mut ticks = Ticks::default();
        for (lane_no, text) in [(1, "before"), (2, "without her"), (3, "without her either"), (5, "again")] {
            let send_id = SendId::from_bytes([lane_no as u8; 16]);
            ticks.sent(here, OutgoingMessage { send_id, lane_no, order: lane_no }, text);
        }
        let delivered = |from, up_to| Event::Delivered { conversation: here, by: by.clone(), device, from, up_to };
        let read = |from, up_to| Event::Read { conversation: here, by: by.clone(), device, from, up_to };
        ticks.see(&delivered(1, 1), "", &About::default());
        // The group's name, under the fourth number, is the first that she is told after she came in again.
        assert_eq!(ticks.unknown(&delivered(4, 4)), Some((here, vec![(4, 4)])));
        ticks.see(&delivered(4, 4), "", &About::default());
        let said = ticks.see(&delivered(4, 5), "", &About::default());
        assert_eq!(said.as_deref(), Some("✓✓ delivered to @carol “again”"));
        let said = ticks.see(&read(4, 5), "", &About::default());
        assert_eq!(said.as_deref(), Some("✓✓ read by @carol “again”"));
    }

    #[test]
    fn what_an_older_device_has_later_is_said_once_for_all_of_them() {
        let here = ConversationId::from_bytes([1; 16]);
        let by = member("bob");
        let mut ticks = Ticks::default();
        for n in 1..=6_u8 {
            let message = OutgoingMessage { send_id: SendId::from_bytes([n; 16]), lane_no: n.into(), order: n.into() };
            ticks.sent(here, message, &format!("m{n}"));
        }
        let (old, new) = (DeviceId::from_bytes([4; 16]), DeviceId::from_bytes([5; 16]));
        let delivered =
            |device, from, up_to| Event::Delivered { conversation: here, by: by.clone(), device, from, up_to };
        let read = |device, from, up_to| Event::Read { conversation: here, by: by.clone(), device, from, up_to };
        let told = [
            (delivered(old, 1, 1), Some("✓✓ delivered to @bob “m1”")),
            // A device that came after the third says first what it has.
            (delivered(new, 4, 5), Some("✓✓ delivered to @bob “m5” and 1 before it")),
            (read(new, 4, 4), Some("✓✓ read by @bob “m4”")),
            (delivered(old, 1, 3), Some("✓✓ delivered to @bob “m3” and 1 before it")),
            (delivered(old, 1, 5), None),
            (delivered(old, 1, 6), Some("✓✓ delivered to @bob “m6”")),
            (read(old, 1, 5), Some("✓✓ read by @bob “m5” and 3 before it")),
            (delivered(new, 4, 6), None),
            (read(new, 4, 6), Some("✓✓ read by @bob “m6”")),
        ];
        for (event, said) in told {
            let unknown = said.is_none().then(|| (here, Vec::new()));
            assert_eq!(ticks.unknown(&event), unknown, "{event:?}");
            assert_eq!(ticks.see(&event, "", &About::default()).as_deref(), said, "{event:?}");
        }
    }

    #[test]
    fn the_history_is_looked_at_once_for_the_numbers_of_a_conversation() {
        let id = |n: usize| ConversationId::from_bytes([u8::try_from(n).expect("small"); 16]);
        let mut own = OwnNumbers::default();
        assert_eq!(own.has(id(1), &[(1, 9)]), None);
        own.learn(id(1), Some([2, 5].into()));
        for (range, has) in [((1, 1), false), ((1, 2), true), ((3, 4), false), ((5, 9), true), ((9, 3), false)] {
            assert_eq!(own.has(id(1), &[(3, 3), range]), Some(has), "{range:?}");
        }
        own.learn(id(2), None);
        assert_eq!(own.has(id(2), &[(7, 7)]), Some(true), "more than were looked at");
        own.forget(id(1));
        assert_eq!(own.has(id(1), &[(2, 2)]), None, "something was sent");
        (0..2 * NUMBERED_MAX).for_each(|n| own.learn(id(n), None));
        assert!(own.0.len() <= NUMBERED_MAX);
    }

    #[test]
    fn what_is_lost_is_named() {
        let here = ConversationId::from_bytes([1; 16]);
        let by = member("bob");
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
        let by = member("bob");
        let device = DeviceId::from_bytes([4; 16]);
        let mut ticks = Ticks::default();
        let delivered = Event::Delivered { conversation: here, by: by.clone(), device, from: 1, up_to: 1 };
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
