// SPDX-License-Identifier: MIT OR Apache-2.0
//! State to rows and back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use pli_domain::{AccountId, Class, ConversationId, DeviceId, Handle, Position, SendId, UnixMillis};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::calls::Calls;
use super::conversation::Conversation;
use super::notices::Notices;
use super::own_list::OwnList;
use super::parting::Parting;
use super::people::Contact;
use super::session::Session;
use super::tables::{ChangeSet, Table};
use super::{Core, Effects, LoadError};
use crate::archive::ORDERS_END;
use crate::identity::Identity;
use crate::inbox::{InLane, Inbox, InboxChange, InboxConfig};
use crate::mls::{Mls, Suite};
use crate::outbox::{OutLane, Outbox, OutboxChange, OutboxConfig};

/// Keys and values of one table.
type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// A row whose value changed in this step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Row {
    Identity,
    Order,
    Packages,
    Published,
    Resync,
    History,
    Earlier,
    Compare,
    CaughtUp,
    ListChanges,
    Conversation(ConversationId),
    Contact(AccountId),
    Notice(u64),
}

const POSITION: &[u8] = b"position";
const ORDER: &[u8] = b"order";
const PACKAGES: &[u8] = b"packages";
const PUBLISHED: &[u8] = b"published";
const RESYNC: &[u8] = b"resync";
const HISTORY: &[u8] = b"history";
const EARLIER: &[u8] = b"earlier-histories";
const COMPARE: &[u8] = b"compare";
const CAUGHT_UP: &[u8] = b"caught-up";
const LIST_CHANGES: &[u8] = b"list-changes";

/// Length of the name of a history.
pub(super) const HISTORY_BYTES: usize = 16;

impl Core {
    /// A new account with its first device; it registers on its first connection. `seed` must come from the system's
    /// random source and be used once.
    pub fn create(handle: Handle, seed: [u8; 32], now: UnixMillis) -> (Self, ChangeSet) {
        Self::create_with(handle, Suite::default(), seed, now)
    }

    /// The same with the suite of its key packages and conversations, which it keeps once it is registered.
    pub fn create_with(handle: Handle, suite: Suite, seed: [u8; 32], now: UnixMillis) -> (Self, ChangeSet) {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let identity = Identity::create(handle, &mut rng).of_suite(suite);
        let mut core = Self::with(identity, rng);
        core.dirty.insert(Row::Identity);
        core.stepped_at = now;
        core.collect_changes();
        let changes = std::mem::take(&mut core.out.changes);
        (core, changes)
    }

    /// Takes another suite where none was used yet: an account that was never registered has published nothing and is in
    /// no group, whatever waits in its outbox. Answers what makes it durable; nothing where it keeps its suite.
    pub fn choose_suite(&mut self, suite: Suite) -> ChangeSet {
        let used = self.identity.registered || self.packages.is_some() || self.published.is_some();
        if used || self.identity.suite() == suite {
            return ChangeSet::default();
        }
        self.identity.set_suite(suite);
        self.mls.set_suite(suite);
        self.dirty.insert(Row::Identity);
        self.collect_changes();
        std::mem::take(&mut self.out.changes)
    }

    /// Another device of an account: `of` is the account with its handle and public identity key, as the first device
    /// says. It may connect once that one has it in the list ([`super::Command::AddDevice`]). Errors where the key is none.
    pub fn companion(
        of: (AccountId, Handle, [u8; 32], Suite),
        seed: [u8; 32],
        now: UnixMillis,
    ) -> Result<(Self, ChangeSet), LoadError> {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let identity = Identity::companion(of.0, of.1, of.2, &mut rng)?.of_suite(of.3);
        let mut core = Self::with(identity, rng);
        // What was shown before it came may still be handed over, and comes before what it shows itself.
        core.order = ORDERS_END;
        core.dirty.extend([Row::Identity, Row::Order]);
        core.make_packages(0);
        core.stepped_at = now;
        core.collect_changes();
        let changes = std::mem::take(&mut core.out.changes);
        Ok((core, changes))
    }

    fn with(identity: Identity, mut rng: ChaCha20Rng) -> Self {
        let mut mls_seed = [0; 32];
        rng.fill_bytes(&mut mls_seed);
        let life = rng.next_u64().max(1);
        let mls = Mls::of(&identity, mls_seed);
        Self {
            identity,
            rng,
            mls,
            outbox: Outbox::new(OutboxConfig::default()),
            inbox: Inbox::new(InboxConfig::default()),
            conversations: BTreeMap::new(),
            contacts: BTreeMap::new(),
            notices: Notices::default(),
            session: Session::default(),
            calls: Calls::default(),
            inbound: VecDeque::new(),
            parting: Parting::default(),
            fetches: Vec::new(),
            puts: Vec::new(),
            lists_wanted: BTreeSet::new(),
            lists_open: Vec::new(),
            lists_doubted: BTreeSet::new(),
            own_list: OwnList::default(),
            asked_lists: BTreeSet::new(),
            answered_lists: BTreeSet::new(),
            lists_at_once: super::LISTS_AT_ONCE,
            packages: None,
            published: None,
            remade: None,
            resync: false,
            history: Bytes::new(),
            earlier: Vec::new(),
            compare: false,
            all_comes: false,
            comparing: None,
            resync_after: Bytes::new(),
            caught_up_for: None,
            life,
            order: 0,
            stepped_at: UnixMillis(0),
            dirty: BTreeSet::new(),
            out: Effects::default(),
        }
    }

    /// The core that the committed rows describe; [`Table::Messages`] may be left out. `seed` must be fresh.
    pub fn load(
        seed: [u8; 32],
        rows: impl IntoIterator<Item = (Table, Vec<u8>, Vec<u8>)>,
        now: UnixMillis,
    ) -> Result<Self, LoadError> {
        let mut by_table: BTreeMap<Table, Rows> = BTreeMap::new();
        for (table, key, value) in rows {
            if table != Table::Messages {
                by_table.entry(table).or_default().push((key, value));
            }
        }
        let identity = take(&mut by_table, Table::Identity).pop().ok_or(LoadError::NoIdentity)?;
        let mut core = Self::with(Identity::decode(&identity.1)?, ChaCha20Rng::from_seed(seed));
        core.stepped_at = now;
        core.mls.load(take(&mut by_table, Table::Mls)).map_err(|_| LoadError::Row(Table::Mls))?;
        core.load_outbox(take(&mut by_table, Table::Outbox), take(&mut by_table, Table::OutLanes))?;
        core.load_inbox(&mut by_table)?;
        core.load_conversations(&mut by_table)?;
        core.renew_conversations();
        for (key, value) in take(&mut by_table, Table::Flows) {
            match key.as_slice() {
                PACKAGES => core.packages = Some(value),
                PUBLISHED => core.published = Some(UnixMillis(number(Table::Flows, &value)?)),
                RESYNC => core.resync = true,
                HISTORY => core.history = value.into(),
                EARLIER => core.earlier = value.chunks_exact(HISTORY_BYTES).map(Bytes::copy_from_slice).collect(),
                COMPARE => core.compare = true,
                CAUGHT_UP => core.parting.load_caught_up_at(UnixMillis(number(Table::Flows, &value)?)),
                LIST_CHANGES => core.load_list_changes(&value)?,
                _ => return Err(LoadError::Row(Table::Flows)),
            }
        }
        Ok(core)
    }

    fn load_inbox(&mut self, by_table: &mut BTreeMap<Table, Rows>) -> Result<(), LoadError> {
        let mut inbox = Vec::new();
        for table in [Table::Position, Table::Seen, Table::InLanes, Table::Held] {
            for (key, value) in take(by_table, table) {
                if table == Table::Position && key == ORDER {
                    self.order = number(table, &value)?;
                } else {
                    inbox.push(inbox_change(table, &key, value).ok_or(LoadError::Row(table))?);
                }
            }
        }
        self.inbox = Inbox::load(InboxConfig::default(), inbox)?;
        Ok(())
    }

    fn load_conversations(&mut self, by_table: &mut BTreeMap<Table, Rows>) -> Result<(), LoadError> {
        for (key, value) in take(by_table, Table::Conversations) {
            let id = key.as_slice().try_into().map_err(|_| LoadError::Row(Table::Conversations))?;
            self.conversations.insert(id, Conversation::decode(&value)?);
        }
        for (key, value) in take(by_table, Table::Contacts) {
            let account = key.as_slice().try_into().map_err(|_| LoadError::Row(Table::Contacts))?;
            let mut contact = Contact::decode(account, &value)?;
            // Nobody else is called as this account is.
            contact.handle = contact.handle.filter(|handle| handle != self.identity.handle());
            self.contacts.insert(account, contact);
        }
        for (key, value) in take(by_table, Table::Notices) {
            let order = number(Table::Notices, &key)?;
            if !self.notices.load(order, &value)? {
                // What a later version knows is nothing that this one can tell, and must not stay for ever.
                self.dirty.insert(Row::Notice(order));
            }
        }
        Ok(())
    }

    /// What rows of earlier versions do not say.
    fn renew_conversations(&mut self) {
        let ids: Vec<ConversationId> = self.conversations.keys().copied().collect();
        for id in ids {
            self.number(id);
            self.note_members(id);
        }
    }

    fn load_outbox(&mut self, messages: Rows, lanes: Rows) -> Result<(), LoadError> {
        let messages = messages.into_iter().map(|(key, value)| Ok((number(Table::Outbox, &key)?, value)));
        let messages = messages.collect::<Result<Vec<_>, LoadError>>()?;
        let lanes = lanes.into_iter().map(|(key, value)| {
            let lane = out_lane(&key).ok_or(LoadError::Row(Table::OutLanes))?;
            Ok((lane, number(Table::OutLanes, &value)?))
        });
        let lanes = lanes.collect::<Result<Vec<_>, LoadError>>()?;
        self.outbox = Outbox::load(OutboxConfig::default(), messages, lanes)?;
        Ok(())
    }

    /// Everything that changed in this step, as rows.
    pub(super) fn collect_changes(&mut self) {
        for row in std::mem::take(&mut self.dirty) {
            self.collect_row(row);
        }
        let out = &mut self.out.changes;
        for change in self.outbox.take_changes() {
            match change {
                OutboxChange::Message(at, value) => out.set(Table::Outbox, at.to_be_bytes().to_vec(), value),
                OutboxChange::Lane(lane, next) => {
                    let key = [lane.conversation.as_bytes().as_slice(), &[class_number(lane.class)]].concat();
                    out.put(Table::OutLanes, key, next.to_be_bytes().to_vec());
                }
            }
        }
        for change in self.inbox.take_changes() {
            let (table, key, value) = inbox_row(change);
            out.set(table, key, value);
        }
        for (key, value) in self.mls.take_changes() {
            out.set(Table::Mls, key, value);
        }
    }

    fn collect_row(&mut self, row: Row) {
        let out = &mut self.out.changes;
        match row {
            Row::Identity => out.put(Table::Identity, Vec::new(), self.identity.encode()),
            Row::Order => out.put(Table::Position, ORDER.to_vec(), self.order.to_be_bytes().to_vec()),
            Row::Packages => out.set(Table::Flows, PACKAGES.to_vec(), self.packages.clone()),
            Row::Published => {
                let at = self.published.map(|at| at.0.to_be_bytes().to_vec());
                out.set(Table::Flows, PUBLISHED.to_vec(), at);
            }
            Row::Resync => out.set(Table::Flows, RESYNC.to_vec(), self.resync.then(Vec::new)),
            Row::History => out.put(Table::Flows, HISTORY.to_vec(), self.history.to_vec()),
            Row::Earlier => out.put(Table::Flows, EARLIER.to_vec(), self.earlier.concat()),
            Row::Compare => out.set(Table::Flows, COMPARE.to_vec(), self.compare.then(Vec::new)),
            Row::CaughtUp => {
                let at = self.parting.caught_up_at().map(|at| at.0.to_be_bytes().to_vec());
                out.set(Table::Flows, CAUGHT_UP.to_vec(), at);
            }
            Row::ListChanges => {
                let value = self.encode_list_changes();
                self.out.changes.set(Table::Flows, LIST_CHANGES.to_vec(), value);
            }
            Row::Conversation(id) => {
                let value = self.conversations.get(&id).map(Conversation::encode);
                out.set(Table::Conversations, id.as_bytes().to_vec(), value);
            }
            Row::Contact(account) => {
                let value = self.contacts.get(&account).map(Contact::encode);
                out.set(Table::Contacts, account.as_bytes().to_vec(), value);
            }
            Row::Notice(order) => {
                out.set(Table::Notices, order.to_be_bytes().to_vec(), self.notices.encode(order));
            }
        }
    }
}

fn take(by_table: &mut BTreeMap<Table, Rows>, table: Table) -> Rows {
    by_table.remove(&table).unwrap_or_default()
}

fn number(table: Table, bytes: &[u8]) -> Result<u64, LoadError> {
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| LoadError::Row(table))
}

fn class_number(class: Class) -> u8 {
    match class {
        Class::Live => 1,
        Class::Urgent => 2,
        Class::Message => 3,
        Class::Tick => 4,
    }
}

fn class_of(number: u8) -> Option<Class> {
    [Class::Live, Class::Urgent, Class::Message, Class::Tick].into_iter().find(|c| class_number(*c) == number)
}

fn out_lane(key: &[u8]) -> Option<OutLane> {
    let (conversation, class) = key.split_at_checked(16)?;
    Some(OutLane { conversation: conversation.try_into().ok()?, class: class_of(*class.first()?)? })
}

fn in_lane_key(lane: InLane) -> Vec<u8> {
    [lane.conversation.as_bytes().as_slice(), lane.sender.as_bytes(), &[class_number(lane.class)]].concat()
}

fn in_lane(key: &[u8]) -> Option<InLane> {
    let (conversation, rest) = key.split_at_checked(16)?;
    let (sender, class) = rest.split_at_checked(16)?;
    Some(InLane {
        conversation: conversation.try_into().ok()?,
        sender: sender.try_into().ok()?,
        class: class_of(*class.first()?)?,
    })
}

fn inbox_row(change: InboxChange) -> (Table, Vec<u8>, Option<Vec<u8>>) {
    match change {
        InboxChange::Committed(position) => {
            (Table::Position, POSITION.to_vec(), Some(position.get().to_be_bytes().to_vec()))
        }
        InboxChange::Seen(device, send_id, at) => {
            let key = [device.as_bytes().as_slice(), send_id.as_bytes()].concat();
            (Table::Seen, key, at.map(|t| t.0.to_be_bytes().to_vec()))
        }
        InboxChange::Expected(lane, next) => {
            (Table::InLanes, in_lane_key(lane), next.map(|next| next.to_be_bytes().to_vec()))
        }
        InboxChange::Held(lane, lane_no, value) => {
            let key = [in_lane_key(lane), lane_no.to_be_bytes().to_vec()].concat();
            (Table::Held, key, value)
        }
    }
}

fn inbox_change(table: Table, key: &[u8], value: Vec<u8>) -> Option<InboxChange> {
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).ok();
    match table {
        Table::Position => Some(InboxChange::Committed(Position::from_u64(number(&value)?).ok()?)),
        Table::Seen => {
            let (device, send_id) = key.split_at_checked(16)?;
            let (device, send_id): (DeviceId, SendId) = (device.try_into().ok()?, send_id.try_into().ok()?);
            Some(InboxChange::Seen(device, send_id, Some(UnixMillis(number(&value)?))))
        }
        Table::InLanes => Some(InboxChange::Expected(in_lane(key)?, Some(number(&value)?))),
        Table::Held => {
            let (lane, lane_no) = key.split_at_checked(33)?;
            Some(InboxChange::Held(in_lane(lane)?, number(lane_no)?, Some(value)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table, key and value of every record of the inbox.
    fn rows() -> [(InboxChange, Table, String, Option<String>); 4] {
        let (sender, conversation) = (DeviceId::from_bytes([1; 16]), ConversationId::from_bytes([2; 16]));
        let lane = InLane { sender, conversation, class: Class::Message };
        let lane_key = format!("{}{}03", "02".repeat(16), "01".repeat(16));
        let position = Position::from_u64(0x0102).expect("small");
        let send_id = SendId::from_bytes([3; 16]);
        let number = |n: u64| Some(format!("{n:016x}"));
        let seen = format!("{}{}", "01".repeat(16), "03".repeat(16));
        [
            (InboxChange::Committed(position), Table::Position, hex::encode(b"position"), number(0x0102)),
            (InboxChange::Seen(sender, send_id, Some(UnixMillis(5))), Table::Seen, seen, number(5)),
            (InboxChange::Expected(lane, Some(6)), Table::InLanes, lane_key.clone(), number(6)),
            (
                InboxChange::Held(lane, 7, Some(vec![8])),
                Table::Held,
                format!("{lane_key}{:016x}", 7),
                Some("08".to_owned()),
            ),
        ]
    }

    #[test]
    fn rows_of_the_inbox_keep_their_keys_and_values() {
        for (change, table, key, value) in rows() {
            let row = inbox_row(change.clone());
            assert_eq!((row.0, hex::encode(&row.1), row.2.as_ref().map(hex::encode)), (table, key, value));
            let read = inbox_change(row.0, &row.1, row.2.expect("a value"));
            assert_eq!(read, Some(change));
            assert_eq!(inbox_change(row.0, &[1], vec![1]), None, "what is too short is no row");
        }
    }

    #[test]
    fn classes_keep_their_numbers() {
        let numbers = [Class::Live, Class::Urgent, Class::Message, Class::Tick].map(class_number);
        assert_eq!(numbers, [1, 2, 3, 4]);
        assert_eq!((class_of(3), class_of(0), class_of(5)), (Some(Class::Message), None, None));
    }
}
