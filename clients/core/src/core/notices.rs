// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is told once and cannot be found out by looking: new keys, invitations of strangers, lost messages. A command that
//! prints nothing may be the one that meets it, so each is kept with a place in the history, and whatever shows things
//! shows first what was not shown yet. The last ones are kept: nobody looks at more.

use std::collections::BTreeMap;

use bytes::Bytes;
use pli_domain::{AccountId, ConversationId, DeviceId, SendId};
use prost::Message as _;

use super::tables::Table;
use super::{Core, Event, LoadError, NewKey, RefusedList, Row};

/// Notices that are kept. Of more the oldest loss is forgotten, then the oldest first contact: others can cause those
/// at will, and they must not push out that a key was swapped.
const NOTICES_MAX: usize = 256;

/// Something that is told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// [`Event::NewKey`].
    NewKey { account: AccountId, what: NewKey },
    /// [`Event::AddedByStranger`].
    AddedByStranger { conversation: ConversationId, name: Option<String>, by: AccountId },
    /// [`Event::ListRefused`].
    ListRefused { account: AccountId, why: RefusedList },
    /// [`Event::Lost`].
    Lost { conversation: ConversationId, by: AccountId, device: DeviceId, lane_nos: (u64, u64), messages: Vec<SendId> },
}

/// What a stored notice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum What {
    Unknown = 0,
    FirstContact = 1,
    Device = 2,
    Identity = 3,
    AddedByStranger = 4,
    Lost = 5,
    ListOlder = 6,
    ListForked = 7,
    ListUnlinked = 8,
    ListInvalid = 9,
}

/// Numbers are never reused.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(enumeration = "What", tag = "1")]
    what: i32,
    /// 16 bytes: whose key, or who did it.
    #[prost(bytes = "bytes", tag = "2")]
    account: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    device: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    conversation: Bytes,
    #[prost(string, optional, tag = "5")]
    name: Option<String>,
    #[prost(uint64, tag = "6")]
    first: u64,
    #[prost(uint64, tag = "7")]
    last: u64,
    #[prost(bytes = "bytes", repeated, tag = "8")]
    messages: Vec<Bytes>,
}

fn bytes(id: &[u8; 16]) -> Bytes {
    Bytes::copy_from_slice(id)
}

impl Record {
    fn of(notice: &Notice) -> Self {
        match notice {
            Notice::NewKey { account, what } => {
                let (what, device) = match what {
                    NewKey::FirstContact => (What::FirstContact, Bytes::new()),
                    NewKey::Device(device) => (What::Device, bytes(device.as_bytes())),
                    NewKey::Identity => (What::Identity, Bytes::new()),
                };
                Self { what: what.into(), account: bytes(account.as_bytes()), device, ..Self::default() }
            }
            Notice::AddedByStranger { conversation, name, by } => Self {
                what: What::AddedByStranger.into(),
                account: bytes(by.as_bytes()),
                conversation: bytes(conversation.as_bytes()),
                name: name.clone(),
                ..Self::default()
            },
            Notice::ListRefused { account, why } => {
                let what = match why {
                    RefusedList::Older => What::ListOlder,
                    RefusedList::Forked => What::ListForked,
                    RefusedList::Unlinked => What::ListUnlinked,
                    RefusedList::Invalid => What::ListInvalid,
                };
                Self { what: what.into(), account: bytes(account.as_bytes()), ..Self::default() }
            }
            Notice::Lost { conversation, by, device, lane_nos: (first, last), messages } => Self {
                what: What::Lost.into(),
                account: bytes(by.as_bytes()),
                device: bytes(device.as_bytes()),
                conversation: bytes(conversation.as_bytes()),
                name: None,
                first: *first,
                last: *last,
                messages: messages.iter().map(|id| bytes(id.as_bytes())).collect(),
            },
        }
    }

    fn read(self) -> Option<Notice> {
        let account = AccountId::try_from(self.account.as_ref()).ok()?;
        let device = || DeviceId::try_from(self.device.as_ref()).ok();
        let conversation = || ConversationId::try_from(self.conversation.as_ref()).ok();
        Some(match self.what() {
            What::Unknown => return None,
            What::FirstContact => Notice::NewKey { account, what: NewKey::FirstContact },
            What::Device => Notice::NewKey { account, what: NewKey::Device(device()?) },
            What::Identity => Notice::NewKey { account, what: NewKey::Identity },
            What::AddedByStranger => {
                Notice::AddedByStranger { conversation: conversation()?, name: self.name.clone(), by: account }
            }
            What::ListOlder => Notice::ListRefused { account, why: RefusedList::Older },
            What::ListForked => Notice::ListRefused { account, why: RefusedList::Forked },
            What::ListUnlinked => Notice::ListRefused { account, why: RefusedList::Unlinked },
            What::ListInvalid => Notice::ListRefused { account, why: RefusedList::Invalid },
            What::Lost => Notice::Lost {
                conversation: conversation()?,
                by: account,
                device: device()?,
                lane_nos: (self.first, self.last),
                messages: self.messages.iter().map(|id| id.as_ref().try_into().ok()).collect::<Option<_>>()?,
            },
        })
    }
}

/// The notices that are kept, by their places in the history.
#[derive(Debug, Default)]
pub(super) struct Notices(BTreeMap<u64, Notice>);

impl Notices {
    /// Answers whether the row is of a kind that this version knows.
    pub(super) fn load(&mut self, order: u64, value: &[u8]) -> Result<bool, LoadError> {
        let record = Record::decode(value).map_err(|_| LoadError::Row(Table::Notices))?;
        let notice = record.read();
        let known = notice.is_some();
        self.0.extend(notice.map(|notice| (order, notice)));
        Ok(known)
    }

    /// The place of the one that is worth least.
    fn least(&self) -> Option<u64> {
        let worth = |notice: &Notice| match notice {
            Notice::Lost { .. } => 0,
            Notice::NewKey { what: NewKey::FirstContact, .. } => 1,
            Notice::AddedByStranger { .. } => 2,
            Notice::NewKey { .. } | Notice::ListRefused { .. } => 3,
        };
        self.0.iter().min_by_key(|(order, notice)| (worth(notice), **order)).map(|(order, _)| *order)
    }

    /// The row at this place; none where there is none any more.
    pub(super) fn encode(&self, order: u64) -> Option<Vec<u8>> {
        self.0.get(&order).map(|notice| Record::of(notice).encode_to_vec())
    }
}

impl Core {
    /// Tells something once, and keeps it for whoever shows things later.
    pub(super) fn notify(&mut self, notice: Notice) {
        let order = self.next_order();
        let event = self.event_of(order, &notice);
        self.notices.0.insert(order, notice);
        self.dirty.insert(Row::Notice(order));
        if self.notices.0.len() > NOTICES_MAX
            && let Some(least) = self.notices.least()
        {
            self.notices.0.remove(&least);
            self.dirty.insert(Row::Notice(least));
        }
        self.out.events.push(event);
    }

    /// The same, unless it was told and is still kept.
    pub(super) fn notify_once(&mut self, notice: Notice) {
        if !self.notices.0.values().any(|told| *told == notice) {
            self.notify(notice);
        }
    }

    /// What was told once after this place in the history, of the last 256 such events: [`Event::NewKey`],
    /// [`Event::AddedByStranger`], [`Event::ListRefused`] and [`Event::Lost`], in order.
    pub fn notices(&self, after: u64) -> Vec<Event> {
        let later = self.notices.0.range(after.saturating_add(1)..);
        later.map(|(order, notice)| self.event_of(*order, notice)).collect()
    }

    fn event_of(&self, order: u64, notice: &Notice) -> Event {
        match notice.clone() {
            Notice::NewKey { account, what } => Event::NewKey { member: self.member(account), what, order },
            Notice::AddedByStranger { conversation, name, by } => {
                Event::AddedByStranger { conversation, name, by: self.member(by), order }
            }
            Notice::ListRefused { account, why } => Event::ListRefused { member: self.member(account), why, order },
            Notice::Lost { conversation, by, device, lane_nos, messages } => {
                Event::Lost { conversation, by: self.member(by), device, lane_nos, messages, order }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pli_domain::UnixMillis;

    use super::super::ChangeSet;
    use super::*;

    const STORED: [&str; 9] = [
        "08021210010101010101010101010101010101011a1002020202020202020202020202020202",
        "08041210010101010101010101010101010101012210030303030303030303030303030303032a047465616d",
        concat!(
            "08051210010101010101010101010101010101011a100202020202020202020202020202020222100303030303030303",
            "030303030303030330043805421006060606060606060606060606060606",
        ),
        "0801121001010101010101010101010101010101",
        "0803121001010101010101010101010101010101",
        "0806121001010101010101010101010101010101",
        "0807121001010101010101010101010101010101",
        "0808121001010101010101010101010101010101",
        "0809121001010101010101010101010101010101",
    ];

    #[test]
    fn notices_keep_their_bytes() {
        let (account, device) = (AccountId::from_bytes([1; 16]), DeviceId::from_bytes([2; 16]));
        let conversation = ConversationId::from_bytes([3; 16]);
        let all = [
            Notice::NewKey { account, what: NewKey::Device(device) },
            Notice::AddedByStranger { conversation, name: Some("team".into()), by: account },
            Notice::Lost {
                conversation,
                by: account,
                device,
                lane_nos: (4, 5),
                messages: vec![SendId::from_bytes([6; 16])],
            },
            Notice::NewKey { account, what: NewKey::FirstContact },
            Notice::NewKey { account, what: NewKey::Identity },
            Notice::ListRefused { account, why: RefusedList::Older },
            Notice::ListRefused { account, why: RefusedList::Forked },
            Notice::ListRefused { account, why: RefusedList::Unlinked },
            Notice::ListRefused { account, why: RefusedList::Invalid },
        ];
        for (notice, stored) in all.into_iter().zip(STORED) {
            assert_eq!(hex::encode(Record::of(&notice).encode_to_vec()), stored);
            assert_eq!(Record::of(&notice).read(), Some(notice));
        }
        assert_eq!(Record { account: bytes(&[1; 16]), ..Record::default() }.read(), None);
    }

    #[test]
    fn the_last_are_kept_and_what_is_forgotten_leaves_no_row() {
        let handle = "alice".parse().expect("a handle");
        let (mut core, changes) = Core::create(handle, [1; 32], UnixMillis(1));
        let mut rows: BTreeMap<(Table, Vec<u8>), Vec<u8>> = BTreeMap::new();
        let mut commit = |changes: ChangeSet| {
            for change in changes.0 {
                match change.value {
                    Some(value) => rows.insert((change.table, change.key), value),
                    None => rows.remove(&(change.table, change.key)),
                };
            }
        };
        commit(changes);
        let account = AccountId::from_bytes([2; 16]);
        for _ in 0..NOTICES_MAX + 9 {
            core.notify(Notice::NewKey { account, what: NewKey::FirstContact });
            commit(core.tick(UnixMillis(2)).changes);
        }
        let kept = core.notices(0);
        assert_eq!(kept.first().and_then(Event::order), Some(10));
        core.notify(Notice::NewKey { account, what: NewKey::Identity });
        let lost = |n| Notice::Lost {
            conversation: ConversationId::from_bytes([3; 16]),
            by: account,
            device: DeviceId::from_bytes([4; 16]),
            lane_nos: (n, n),
            messages: Vec::new(),
        };
        for n in 1..=2 * NOTICES_MAX as u64 {
            core.notify(lost(n));
            commit(core.tick(UnixMillis(2)).changes);
        }
        let kept = core.notices(0);
        let swapped = |event: &Event| matches!(event, Event::NewKey { what: NewKey::Identity, .. });
        assert!(kept.iter().any(swapped), "whoever makes losses hides no swapped key");
        assert_eq!(kept.len(), NOTICES_MAX);
        assert_eq!(core.notices(kept[NOTICES_MAX - 2].order().expect("a place")), kept[NOTICES_MAX - 1..]);
        assert_eq!(rows.keys().filter(|(table, _)| *table == Table::Notices).count(), NOTICES_MAX);
        let rows = rows.into_iter().map(|((table, key), value)| (table, key, value));
        assert_eq!(Core::load([2; 32], rows, UnixMillis(3)).expect("loaded").notices(0), kept);
    }
}
