// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far messages have come: watermarks, and the ranges below them that were never shown.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pli_domain::{Class, ConversationId, DeviceAddress, DeviceId};

use super::conversation::Conversation;
use super::gone::STAYS_MAX;
use super::notices::Notice;
use super::views::Reached;
use super::{Core, Event, Row};
use crate::content::{Content, Frame, LIVES_TOLD_MAX, LOST_RANGES_MAX, LifeSpan, Tick, Ticks};
use crate::inbox::InLane;
use crate::outbox::OutLane;

/// Ranges of one's own lost messages that are kept for each device; the lowest are forgotten.
const LOST_RANGES_KEPT: usize = 256;
/// Lives of another device that are remembered.
const SEEN_MAX: usize = LIVES_TOLD_MAX;

/// Watermarks over one device's messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Mark {
    pub(super) delivered: u64,
    pub(super) read: u64,
    /// Lane numbers at or below `delivered` that were never shown: ranges, rising and apart, at most [`LOST_RANGES_MAX`].
    pub(super) lost: Vec<(u64, u64)>,
    /// The life of the other device's profile ([`LifeSpan::id`]) in which the number `delivered` was
    /// given; 0 where it does not tell.
    pub(super) life: u64,
    /// The lives of which something was shown, the last one last; at most [`SEEN_MAX`].
    pub(super) seen: Vec<u64>,
    /// The highest [`Frame::place`] of each life that was shown, the newest last; at most [`super::places::PLACES_MAX`].
    pub(super) places: Vec<(u64, u64)>,
    /// Of another device: the number from which on it is addressed; 0 where that is not known.
    pub(super) base: u64,
    /// Of another device: it came in again by itself since.
    pub(super) returned: bool,
    /// How far this device had come each time that it, or the other one, was put out, as long as that is not told as read:
    /// at most [`STAYS_MAX`], the last one last.
    pub(super) stays: Vec<u64>,
}

impl Mark {
    /// Whether anything was ever told.
    pub(super) fn is_told(&self) -> bool {
        self.delivered > 0 || self.life != 0
    }

    /// Whether this number was never shown.
    pub(super) fn is_lost(&self, lane_no: u64) -> bool {
        self.lost.iter().any(|(first, last)| (*first..=*last).contains(&lane_no))
    }

    /// How far the message with this number has come there; none where nothing was told of it.
    pub(super) fn reached(&self, lane_no: u64) -> Option<Reached> {
        match lane_no {
            n if self.is_lost(n) => Some(Reached::Lost),
            n if n <= self.read => Some(Reached::Read),
            n if n <= self.delivered => Some(Reached::Delivered),
            _ => None,
        }
    }

    /// Of a number above `delivered` whose frame tells these lives: the first one below it that nothing of what was shown
    /// stands for.
    fn first_unshown(&self, lives: &[LifeSpan]) -> Option<u64> {
        // What was shown before the sender, or this device, told lives is believed.
        let is_untold = self.life == 0 && self.delivered > 0;
        let own = lives.last().filter(|own| !is_untold && own.id != self.life)?;
        let unshown = match lives.iter().rposition(|life| self.seen.contains(&life.id)) {
            Some(shown) => lives.get(shown + 1)?,
            None => lives.first().unwrap_or(own),
        };
        Some(unshown.first.max(1))
    }

    /// The highest number that was shown, also when this device was in before.
    pub(super) fn shown(&self) -> u64 {
        self.delivered.max(self.stays.last().copied().unwrap_or(0))
    }

    /// What was shown up to here is told by itself from now on: this device, or the other one, was put out.
    pub(super) fn note_stay(&mut self) {
        if self.delivered > self.stays.last().copied().unwrap_or(0) {
            self.stays.push(self.delivered);
            self.stays.drain(..self.stays.len().saturating_sub(STAYS_MAX));
        }
    }

    /// What is kept of it when this device was put out, which has told that it has read up to `read`.
    pub(super) fn put_out(mut self, read: u64) -> Self {
        self.note_stay();
        self.stays.retain(|stay| read < *stay);
        let Self { read, lost, places, stays, .. } = self;
        if stays.is_empty() {
            return Self { places, ..Self::default() };
        }
        Self { read, lost, places, stays, ..Self::default() }
    }

    fn see(&mut self, life: u64) {
        if life != 0 && self.seen.last() != Some(&life) {
            self.seen.retain(|seen| *seen != life);
            self.seen.push(life);
            self.seen.drain(..self.seen.len().saturating_sub(SEEN_MAX));
        }
    }

    /// A hole was given up.
    pub(super) fn lose(&mut self, from: u64, to: u64) {
        join(&mut self.lost, (from, to));
        self.lost.drain(..self.lost.len().saturating_sub(LOST_RANGES_MAX));
        self.delivered = self.delivered.max(to);
    }

    /// A number was shown after all.
    pub(super) fn find(&mut self, lane_no: u64) {
        self.lost = cut(&self.lost, (lane_no, lane_no));
        self.lost.drain(..self.lost.len().saturating_sub(LOST_RANGES_MAX));
    }
}

impl Core {
    /// Notes that this device has shown a message of a lane, whose frame tells these lives.
    pub(super) fn mark_delivered(&mut self, lane: InLane, lane_no: u64, lives: &[LifeSpan]) {
        let life = lives.last().map_or(0, |life| life.id);
        if lane.class != Class::Message {
            return;
        }
        let Some(conversation) = self.conversations.get_mut(&lane.conversation) else { return };
        let mark: &mut Mark = conversation.ours.entry(lane.sender).or_default();
        if lane_no > mark.shown() {
            // Another life gave the numbers below it: whatever was shown under them, this one's were not.
            if let Some(first) = mark.first_unshown(lives).filter(|first| *first < lane_no) {
                mark.lose(first, lane_no - 1);
            }
            (mark.delivered, mark.life) = (lane_no, life);
            mark.see(life);
        } else if mark.is_lost(lane_no) {
            mark.find(lane_no);
            mark.see(life);
        } else {
            // Used twice: its sender went back in time, and hears anew how far it has come.
            conversation.told.remove(&lane.sender);
        }
        self.dirty.insert(Row::Conversation(lane.conversation));
    }

    /// Notes that messages of a lane are given up: they are told as lost, never as delivered.
    pub(super) fn mark_lost(&mut self, lane: InLane, from: u64, to: u64) {
        if lane.class != Class::Message {
            return;
        }
        let Some(conversation) = self.conversations.get_mut(&lane.conversation) else { return };
        let mark = conversation.ours.entry(lane.sender).or_default();
        mark.lose(from, to);
        self.dirty.insert(Row::Conversation(lane.conversation));
    }

    /// Takes what a member says of this device's messages.
    pub(super) fn ticks_from(&mut self, id: ConversationId, from: DeviceAddress, frame: &Frame) {
        let Ok(content) = Content::decode(&frame.content) else { return };
        let Some(Ok(ticks)) = Ticks::of(&content) else { return };
        let own = self.identity.address().device;
        let about_this_one: Vec<&Tick> = ticks.0.iter().filter(|tick| tick.sender == own).take(1 + STAYS_MAX).collect();
        let Some(first) = about_this_one.first() else { return };
        // What is of earlier times stands behind.
        for tick in about_this_one.iter().rev() {
            // What was lost stands with the first alone.
            let tick = Tick { lost: first.lost.clone(), ..(*tick).clone() };
            if self.is_of_this_life(id, &tick) {
                self.told(id, from, &tick);
            } else {
                self.tell_older(id, from.device, &tick);
            }
        }
    }

    fn told(&mut self, id: ConversationId, from: DeviceAddress, tick: &Tick) {
        let lane = OutLane { conversation: id, class: Class::Message };
        let sent = self.outbox.next_lane_no(&lane).saturating_sub(1);
        let (by, device, conversation) = (self.member(from.account), from.device, id);
        let Some(known) = self.conversations.get_mut(&id) else { return };
        let Conversation { theirs, gone, void, unsent, lives, .. } = known;
        let Some(mark) = mark_of(theirs, gone.get_mut(&from), device, tick.delivered) else { return };
        let lost = news_of_loss(mark, tick, sent);
        let lost = void.iter().chain(&*unsent).fold(lost, |lost, void| cut(&lost, *void));
        let place = |id| lives.iter().position(|life| life.id == id);
        if place(tick.life) >= place(mark.life) {
            mark.life = tick.life;
        }
        let (delivered, read) = (tick.delivered.min(sent), tick.read.min(tick.delivered).min(sent));
        // What it says of numbers that were not for it is news to nobody.
        let first = mark.base.max(1);
        let news = delivered > mark.delivered && delivered >= first;
        let read_news = read > mark.read && read >= first;
        mark.delivered = mark.delivered.max(delivered);
        mark.read = mark.read.max(read);
        self.dirty.insert(Row::Conversation(id));
        // What is sent again is not lost; what is lost is told before the watermark that passes it.
        let (again, kept) = self.send_lost_again(id, device, &lost);
        for lane_nos in without(&lost, &again) {
            let messages = self.messages_numbered(id, lane_nos, &kept);
            self.notify(Notice::Lost { conversation, by: from.account, device, lane_nos, messages });
        }
        if from.account == self.identity.address().account {
            // One's own other device: nobody else has anything by it.
            return self.forget_kept(id);
        }
        if news {
            self.out.events.push(Event::Delivered {
                conversation,
                by: by.clone(),
                device,
                from: first,
                up_to: delivered,
            });
        }
        if read_news {
            self.out.events.push(Event::Read { conversation, by, device, from: first, up_to: read });
        }
        self.forget_kept(id);
    }
}

/// What is known of a member whose watermark this is: of now, or of the earlier time that it is in; none where it was never
/// addressed by such a number.
fn mark_of<'a>(
    theirs: &'a mut BTreeMap<DeviceId, Mark>,
    earlier: Option<&'a mut Vec<Mark>>,
    device: DeviceId,
    delivered: u64,
) -> Option<&'a mut Mark> {
    match theirs.get(&device).map(|mark| delivered >= mark.base) {
        Some(true) => theirs.get_mut(&device),
        None if earlier.is_none() => Some(theirs.entry(device).or_default()),
        Some(false) | None => earlier?.iter_mut().rfind(|stay| delivered >= stay.base),
    }
}

/// Takes what a tick says of loss; answers the ranges that were not known.
fn news_of_loss(mark: &mut Mark, tick: &Tick, sent: u64) -> Vec<(u64, u64)> {
    let end = sent.min(tick.delivered);
    let told: Vec<(u64, u64)> = tick.lost.iter().filter(|(_, last)| *last <= end).copied().collect();
    // What lies below was not for it, or is of an earlier time.
    let mut lost = cut(&told, (0, mark.base.saturating_sub(1)));
    let news = lost.iter().filter(|(first, last)| !(mark.is_lost(*first) && mark.is_lost(*last))).copied().collect();
    if let (LOST_RANGES_MAX, Some(&(lowest, _))) = (lost.len(), lost.first()) {
        // The lowest may have been left out.
        let mut known: Vec<_> = mark.lost.iter().filter(|(_, last)| *last < lowest).copied().collect();
        known.append(&mut lost);
        lost = known;
    }
    // One of an earlier time says nothing of what came behind it.
    lost.extend(mark.lost.iter().filter(|(_, last)| *last > end));
    lost.drain(..lost.len().saturating_sub(LOST_RANGES_KEPT));
    mark.lost = lost;
    news
}

/// Adds a range to ranges that rise and lie apart.
pub(super) fn join(ranges: &mut Vec<(u64, u64)>, range: (u64, u64)) {
    ranges.push(range);
    ranges.sort_unstable();
    let mut apart: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges.drain(..) {
        match apart.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => apart.push((first, last)),
        }
    }
    *ranges = apart;
}

/// The ranges, but for those numbers.
fn cut(ranges: &[(u64, u64)], (from, to): (u64, u64)) -> Vec<(u64, u64)> {
    let parts = |(first, last): (u64, u64)| {
        let below = (first < from).then(|| (first, last.min(from - 1)));
        let above = (to < last).then(|| (first.max(to + 1), last));
        [below, above].into_iter().flatten()
    };
    ranges.iter().copied().flat_map(parts).collect()
}

/// The ranges, but for some of their numbers.
fn without(ranges: &[(u64, u64)], but: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut rest = Vec::new();
    for (first, last) in ranges {
        let mut from = *first;
        for lane_no in but.range(*first..=*last) {
            if from < *lane_no {
                rest.push((from, lane_no - 1));
            }
            from = lane_no.saturating_add(1);
        }
        if from <= *last && !but.contains(last) {
            rest.push((from, *last));
        }
    }
    rest
}

/// Numbers are never reused.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MarkRecord {
    #[prost(bytes = "bytes", tag = "1")]
    device: Bytes,
    #[prost(uint64, tag = "2")]
    delivered: u64,
    #[prost(uint64, tag = "3")]
    read: u64,
    /// First and last of each range.
    #[prost(uint64, repeated, tag = "4")]
    lost: Vec<u64>,
    #[prost(fixed64, tag = "6")]
    life: u64,
    #[prost(fixed64, repeated, tag = "7")]
    seen: Vec<u64>,
    /// Life and place of each.
    #[prost(uint64, repeated, tag = "8")]
    places: Vec<u64>,
    #[prost(uint64, tag = "9")]
    base: u64,
    #[prost(bool, tag = "10")]
    returned: bool,
    #[prost(uint64, repeated, tag = "11")]
    stays: Vec<u64>,
}

pub(super) fn marks(marks: &BTreeMap<DeviceId, Mark>) -> Vec<MarkRecord> {
    let each = marks.iter().map(|(device, mark)| MarkRecord {
        device: Bytes::copy_from_slice(device.as_bytes()),
        delivered: mark.delivered,
        read: mark.read,
        lost: mark.lost.iter().flat_map(|(first, last)| [*first, *last]).collect(),
        life: mark.life,
        seen: mark.seen.clone(),
        places: mark.places.iter().flat_map(|(life, place)| [*life, *place]).collect(),
        base: mark.base,
        returned: mark.returned,
        stays: mark.stays.clone(),
    });
    each.collect()
}

pub(super) fn unmarks(records: &[MarkRecord]) -> Option<BTreeMap<DeviceId, Mark>> {
    let mark = |r: &MarkRecord| Mark {
        delivered: r.delivered,
        read: r.read,
        lost: r.lost.chunks_exact(2).map(|range| (range[0], range[1])).collect(),
        life: r.life,
        seen: r.seen.clone(),
        places: r.places.chunks_exact(2).map(|one| (one[0], one[1])).collect(),
        base: r.base,
        returned: r.returned,
        stays: r.stays.clone(),
    };
    records.iter().map(|r| Some((DeviceId::try_from(r.device.as_ref()).ok()?, mark(r)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_ranges_rise_and_lie_apart_whatever_is_lost_twice() {
        let mut mark = Mark::default();
        for (from, to) in [(5, 6), (2, 2), (2, 2), (1, 4), (9, 9), (u64::MAX, u64::MAX)] {
            mark.lose(from, to);
        }
        assert_eq!(mark.lost, [(1, 6), (9, 9), (u64::MAX, u64::MAX)]);
        mark.find(3);
        assert_eq!(mark.lost, [(1, 2), (4, 6), (9, 9), (u64::MAX, u64::MAX)]);
    }

    #[test]
    fn what_is_lost_is_news_once_although_each_tick_tells_of_earlier_times_too() {
        let tick = |delivered, lost: &[(u64, u64)]| Tick {
            sender: DeviceId::from_bytes([1; 16]),
            delivered,
            read: 0,
            lost: lost.to_vec(),
            life: 0,
        };
        let mut mark = Mark { base: 1, ..Mark::default() };
        let mut told = |lost: &[(u64, u64)]| {
            // As `ticks_from` takes them: the earliest first.
            let each = [1, 7, 12].map(|delivered| news_of_loss(&mut mark, &tick(delivered, lost), 12));
            each.into_iter().flatten().collect::<Vec<_>>()
        };
        assert_eq!(told(&[(2, 3), (6, 11)]), [(2, 3), (6, 11)]);
        assert_eq!(told(&[(2, 3), (6, 11)]), []);
        assert_eq!(told(&[(2, 3), (6, 9), (11, 11)]), [], "10 was found");
        assert_eq!(mark.lost, [(2, 3), (6, 9), (11, 11)]);
    }

    #[test]
    fn a_member_that_tells_of_ever_earlier_losses_fills_no_memory() {
        let (mut mark, sent) = (Mark { base: 1, ..Mark::default() }, 100_000);
        for first in (0..200u64).rev().map(|tick| tick * 500 + 1) {
            let lost: Vec<_> = (0..LOST_RANGES_MAX as u64).map(|n| (first + 2 * n, first + 2 * n)).collect();
            let tick = Tick { sender: DeviceId::from_bytes([1; 16]), delivered: first + 400, read: 0, lost, life: 0 };
            news_of_loss(&mut mark, &tick, sent);
        }
        assert!(mark.lost.len() <= LOST_RANGES_KEPT, "{}", mark.lost.len());
    }

    #[test]
    fn what_is_sent_again_is_cut_out_of_what_is_lost() {
        let ranges = [(1, 6), (9, 9), (u64::MAX - 1, u64::MAX)];
        assert_eq!(cut(&ranges[..2], (2, 9)), [(1, 1)]);
        assert_eq!(cut(&ranges[..2], (3, 4)), [(1, 2), (5, 6), (9, 9)]);
        assert_eq!(cut(&ranges[..2], (7, 8)), ranges[..2]);
        assert_eq!(cut(&ranges[2..], (u64::MAX, u64::MAX)), [(u64::MAX - 1, u64::MAX - 1)]);
        let but = |numbers: &[u64]| without(&ranges, &numbers.iter().copied().collect());
        assert_eq!(but(&[]), ranges);
        assert_eq!(but(&[1, 3, 4, 6, 7, 9, u64::MAX]), [(2, 2), (5, 5), (u64::MAX - 1, u64::MAX - 1)]);
    }
}
