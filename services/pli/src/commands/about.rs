// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an event is about, beyond what it says: what its group and its devices are called, and whether they are one's own.

use std::collections::{BTreeMap, BTreeSet};

use pli_client::Client;
use pli_client::core::{Core, Event, NewKey};
use pli_domain::{AccountId, DeviceId};

use super::to_copy::Invocation;
use crate::terminal::one_line;

/// Digits of a device's id where its name is not known any more.
const SHORT_ID_DIGITS: usize = 8;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// What the event's group is called; none in a chat of two.
    pub group: Option<String>,
    /// To whom a message went that another device of one's own wrote in a chat of two.
    pub to: Option<String>,
    /// What the devices are called that it is about.
    pub devices: Vec<String>,
    /// They are of this account.
    pub own: bool,
    /// The one that it is about is this account's first device.
    pub first: bool,
    /// For lines to copy.
    pub invocation: Invocation,
}

impl About {
    /// The devices as part of a sentence: `laptop`, `laptop and tablet`, `laptop, tablet and phone`.
    pub fn devices(&self) -> String {
        let names: Vec<String> = self.devices.iter().map(|name| one_line(name)).collect();
        match names.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, before)) => format!("{} and {last}", before.join(", ")),
            None => "a device".into(),
        }
    }
}

/// New devices of one person that came to be known while nobody looked, with no message in between: one line tells of
/// them, at the place of the first.
///
/// At the first, and never across a message: whoever is killed, or has enough after some messages, has told of every device
/// that the mark of what was printed has passed.
#[derive(Debug, Default)]
pub struct Merged {
    /// What the first one of some tells, by its place.
    at_first: BTreeMap<u64, Vec<DeviceId>>,
    /// The places of the others.
    told: BTreeSet<u64>,
    /// Devices of which was told that they are awaited; each is of every conversation of its account.
    awaited: BTreeSet<DeviceId>,
    /// What devices were called that are being removed: the list of afterwards does not say it.
    removed: BTreeMap<DeviceId, String>,
    invocation: Invocation,
}

impl Merged {
    /// What is told together of these events, which are in order.
    pub fn of(events: &[Event], invocation: Invocation) -> Self {
        let mut merged = Self { invocation, ..Self::default() };
        let mut firsts: BTreeMap<AccountId, u64> = BTreeMap::new();
        for event in events {
            if matches!(event, Event::Message(_) | Event::OwnMessage(_)) {
                firsts.clear();
            }
            let Some((account, device, order)) = new_device(event) else { continue };
            let first = *firsts.entry(account).or_insert(order);
            merged.at_first.entry(first).or_default().push(device);
            if first != order {
                merged.told.insert(order);
            }
        }
        merged
    }

    /// Whether an earlier event has told of it too.
    pub fn has_told(&self, event: &Event) -> bool {
        new_device(event).is_some_and(|(.., order)| self.told.contains(&order))
    }

    /// Whether it was told before, of another conversation, that this newcomer is awaited.
    pub fn has_told_awaited(&mut self, event: &Event) -> bool {
        matches!(event, Event::DeviceAwaited { device, .. } if !self.awaited.insert(*device))
    }

    /// Keeps what a device is called that is about to be removed.
    pub fn removes(&mut self, device: DeviceId, name: String) {
        self.removed.insert(device, name);
    }

    /// Whose devices an event is about, oneself where that is not said, and which.
    fn devices(&self, event: &Event) -> (Option<AccountId>, Vec<DeviceId>) {
        match event {
            Event::NewKey { member, what: NewKey::Device(device), order } => {
                (Some(member.account), self.at_first.get(order).cloned().unwrap_or_else(|| vec![*device]))
            }
            Event::DeviceAwaited { member, device, .. } => (Some(member.account), vec![*device]),
            Event::Lost { by, device, .. } => (Some(by.account), vec![*device]),
            Event::DeviceAdded { device }
            | Event::DeviceRenamed { device }
            | Event::DeviceRemoved { device }
            | Event::DeviceChangeFailed { device, .. } => (None, vec![*device]),
            _ => (None, Vec::new()),
        }
    }

    /// What is known of an event's devices. A client that has ended knows no names.
    pub async fn about(&self, client: &Client, event: &Event) -> About {
        let (account, devices) = self.devices(event);
        if devices.is_empty() {
            return About::default();
        }
        let removed: BTreeMap<_, _> = devices
            .iter()
            .filter_map(|device| self.removed.get_key_value(device))
            .map(|(d, n)| (*d, n.clone()))
            .collect();
        let short = move |device: &DeviceId| {
            removed.get(device).cloned().unwrap_or_else(|| device.to_string()[..SHORT_ID_DIGITS].to_owned())
        };
        let invocation = self.invocation.clone();
        let without_names =
            About { devices: devices.iter().map(&short).collect(), invocation: invocation.clone(), ..About::default() };
        let look = move |core: &Core| {
            let own = core.address().account;
            let account = account.unwrap_or(own);
            let named = |device: &DeviceId| core.device_name(account, *device).unwrap_or_else(|| short(device));
            let first = core.devices().first().map(|first| first.device);
            About {
                group: None,
                to: None,
                devices: devices.iter().map(named).collect(),
                own: account == own,
                first: account == own && devices.first().copied() == first,
                invocation,
            }
        };
        client.query(look).await.unwrap_or(without_names)
    }
}

fn new_device(event: &Event) -> Option<(AccountId, DeviceId, u64)> {
    match event {
        Event::NewKey { member, what: NewKey::Device(device), order } => Some((member.account, *device, *order)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use pli_client::core::{IncomingMessage, Member};
    use pli_domain::{ConversationId, SendId, UnixMillis};

    use super::*;

    fn said(order: u64) -> Event {
        Event::OwnMessage(IncomingMessage {
            conversation: ConversationId::from_bytes([1; 16]),
            from: Member { account: AccountId::from_bytes([1; 16]), handle: None, former: None },
            device: DeviceId::from_bytes([1; 16]),
            send_id: SendId::from_bytes([1; 16]),
            lane_no: 1,
            text: "hello".into(),
            sent_at: UnixMillis(0),
            accepted_at: UnixMillis(0),
            late: false,
            order,
        })
    }

    fn told(account: u8, device: u8, order: u64) -> Event {
        let member = Member { account: AccountId::from_bytes([account; 16]), handle: None, former: None };
        Event::NewKey { member, what: NewKey::Device(DeviceId::from_bytes([device; 16])), order }
    }

    #[test]
    fn many_new_devices_of_one_person_are_one_line_and_others_stay() {
        let swapped = |order| match told(1, 0, order) {
            Event::NewKey { member, order, .. } => Event::NewKey { member, what: NewKey::Identity, order },
            other => other,
        };
        let all = [told(1, 1, 1), told(2, 9, 2), swapped(3), told(1, 2, 4), told(1, 3, 6), Event::Gap];
        let merged = Merged::of(&all, Invocation::default());
        let left: Vec<&Event> = all.iter().filter(|event| !merged.has_told(event)).collect();
        assert_eq!(left, [&told(1, 1, 1), &told(2, 9, 2), &swapped(3), &Event::Gap]);
        assert_eq!(merged.devices(left[0]).1, [1, 2, 3].map(|n| DeviceId::from_bytes([n; 16])));
        assert_eq!(merged.devices(left[1]).1, [DeviceId::from_bytes([9; 16])]);
        assert_eq!(
            merged.devices(&told(1, 4, 7)).1,
            [DeviceId::from_bytes([4; 16])],
            "what comes later is its own line"
        );
    }

    #[test]
    fn wherever_it_is_cut_off_every_device_is_told_and_after_a_message_none_again() {
        let all = [told(1, 1, 1), told(2, 9, 2), told(1, 2, 3), said(4), told(1, 3, 5), told(1, 4, 6)];
        let tells = |events: &[Event]| -> Vec<DeviceId> {
            let merged = Merged::of(events, Invocation::default());
            events.iter().filter(|event| !merged.has_told(event)).flat_map(|event| merged.devices(event).1).collect()
        };
        let each = [1, 9, 2, 3, 4].map(|n| DeviceId::from_bytes([n; 16]));
        for printed in 0..=all.len() {
            // What the first run told before it ended there, and what the next one tells.
            let merged = Merged::of(&all, Invocation::default());
            let before = all[..printed].iter().filter(|event| !merged.has_told(event));
            let mut both: Vec<DeviceId> = before.flat_map(|event| merged.devices(event).1).collect();
            both.extend(tells(&all[printed..]));
            assert!(each.iter().all(|device| both.contains(device)), "cut off behind {printed}: {both:?}");
            assert!(printed != 4 || both.len() == each.len(), "told twice: {both:?}");
        }
    }

    #[test]
    fn a_newcomer_is_awaited_once_however_many_conversations_await_it() {
        let awaited = |conversation: u8, device: u8| Event::DeviceAwaited {
            conversation: ConversationId::from_bytes([conversation; 16]),
            member: Member { account: AccountId::from_bytes([1; 16]), handle: None, former: None },
            device: DeviceId::from_bytes([device; 16]),
        };
        let mut merged = Merged::default();
        let told = [(1, 1), (2, 1), (2, 2), (3, 1)].map(|(c, d)| !merged.has_told_awaited(&awaited(c, d)));
        assert_eq!(told, [true, false, true, false]);
        assert!(!merged.has_told_awaited(&Event::Gap) && !merged.has_told_awaited(&Event::Gap));
    }

    #[test]
    fn devices_are_listed_as_people_write() {
        let about =
            |names: &[&str]| About { devices: names.iter().map(ToString::to_string).collect(), ..About::default() };
        assert_eq!(about(&["a"]).devices(), "a");
        assert_eq!(about(&["a", "b"]).devices(), "a and b");
        assert_eq!(about(&["a", "b\n", "c"]).devices(), "a, b ⏎  and c");
    }
}
