// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an event is about, beyond what it says: what its group and its devices are called, and whether they are one's own.

use std::collections::BTreeMap;

use pli_client::Client;
use pli_client::core::{Core, Event, NewKey};
use pli_domain::{AccountId, DeviceId};

use crate::terminal::one_line;

/// Digits of a device's id where its name is not known any more.
const SHORT_ID_DIGITS: usize = 8;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// What the event's group is called; none in a chat of two.
    pub group: Option<String>,
    /// What the devices are called that it is about.
    pub devices: Vec<String>,
    /// They are of this account.
    pub own: bool,
    /// The one that it is about is this account's first device.
    pub first: bool,
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

/// New devices of one person that came to be known while nobody looked: one line tells of them, at the place of the last.
#[derive(Debug, Default)]
pub struct Merged(BTreeMap<u64, Vec<DeviceId>>);

impl Merged {
    /// Leaves out what the last event of its kind tells too.
    pub fn of(events: Vec<Event>) -> (Self, Vec<Event>) {
        let mut of_account: BTreeMap<AccountId, (u64, Vec<DeviceId>)> = BTreeMap::new();
        for (account, device, order) in events.iter().filter_map(new_device) {
            let (last, devices) = of_account.entry(account).or_default();
            *last = order;
            devices.push(device);
        }
        let merged: BTreeMap<u64, Vec<DeviceId>> = of_account.into_values().collect();
        let stays = |event: &Event| new_device(event).is_none_or(|(.., order)| merged.contains_key(&order));
        let events = events.into_iter().filter(stays).collect();
        (Self(merged), events)
    }

    /// Whose devices an event is about, oneself where that is not said, and which.
    fn devices(&self, event: &Event) -> (Option<AccountId>, Vec<DeviceId>) {
        match event {
            Event::NewKey { member, what: NewKey::Device(device), order } => {
                (Some(member.account), self.0.get(order).cloned().unwrap_or_else(|| vec![*device]))
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
        let short = |device: &DeviceId| device.to_string()[..SHORT_ID_DIGITS].to_owned();
        let without_names = About { devices: devices.iter().map(short).collect(), ..About::default() };
        let look = move |core: &Core| {
            let own = core.address().account;
            let account = account.unwrap_or(own);
            let named = |device: &DeviceId| core.device_name(account, *device).unwrap_or_else(|| short(device));
            let first = core.devices().first().map(|first| first.device);
            About {
                group: None,
                devices: devices.iter().map(named).collect(),
                own: account == own,
                first: account == own && devices.first().copied() == first,
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
    use pli_client::core::Member;

    use super::*;

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
        let all = vec![told(1, 1, 1), told(2, 9, 2), swapped(3), told(1, 2, 4), told(1, 3, 6), Event::Gap];
        let (merged, left) = Merged::of(all);
        assert_eq!(left, [told(2, 9, 2), swapped(3), told(1, 3, 6), Event::Gap]);
        assert_eq!(merged.devices(&left[2]).1, [1, 2, 3].map(|n| DeviceId::from_bytes([n; 16])));
        assert_eq!(merged.devices(&left[0]).1, [DeviceId::from_bytes([9; 16])]);
        assert_eq!(
            merged.devices(&told(1, 4, 7)).1,
            [DeviceId::from_bytes([4; 16])],
            "what comes later is its own line"
        );
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
