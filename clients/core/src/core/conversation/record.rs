// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is kept of a conversation: its row, as it is stored.

use bytes::Bytes;
use pli_domain::{AccountId, ConversationId, DeviceAddress, SendId, UnixMillis};
use prost::Message as _;

use super::{Conversation, Phase, Proposal, Refresh, Work};
use crate::content::{Kind, LifeSpan, group_name};
use crate::core::LoadError;
use crate::core::gone::GoneRecord;
use crate::core::lives::KeptRecord;
use crate::core::mark::{MarkRecord, marks, unmarks};
use crate::core::tables::Table;
use crate::mls::Commit;

impl Conversation {
    pub(in crate::core) fn encode(&self) -> Vec<u8> {
        Record {
            kind: self.kind().into(),
            name: self.name.clone(),
            phase: self.phase.into(),
            created: self.created,
            announced: self.announced,
            lane_base: self.lane_base,
            rejoining: self.rejoining,
            work: self.work.iter().map(WorkRecord::of).collect(),
            packages: self
                .packages
                .iter()
                .map(|(d, p)| PackageRecord { device: pair(d), package: p.clone() })
                .collect(),
            commit: self.commit.as_ref().map(CommitRecord::of),
            proposal: self.proposal.as_ref().map(|p| ProposalRecord {
                epoch: p.epoch,
                bytes: p.bytes.clone(),
                send_id: Bytes::copy_from_slice(p.send_id.as_bytes()),
                taken: p.taken,
            }),
            ours: marks(&self.ours),
            told: marks(&self.told),
            theirs: marks(&self.theirs),
            peer: self.peer.map(|a| Bytes::copy_from_slice(a.as_bytes())),
            known: self.known,
            heir: self.heir.map(|id| Bytes::copy_from_slice(id.as_bytes())),
            root: self.root.map(|id| Bytes::copy_from_slice(id.as_bytes())),
            awaits_welcome: self.awaits_welcome,
            lives: self.lives.clone(),
            added_by: self.added_by.map(|a| Bytes::copy_from_slice(a.as_bytes())),
            disowned: self.disowned,
            kept: self.kept.iter().map(KeptRecord::of).collect(),
            said: self.said,
            abandoned: self.abandoned,
            gone: GoneRecord::all(&self.gone),
            awaits: self.awaits,
            awaits_in_vain: self.awaits_in_vain,
            refresh: self.refresh.map(RefreshRecord::of),
            ticks_at_ms: self.ticks_at.map(|at| at.0),
            crowded: self.crowded,
            room_at_ms: self.room_at.map(|at| at.0),
            renewal_asked_ms: self.renewal_asked.map(|at| at.0),
            outcasts: bytes_of(&self.outcasts),
            said_out: self.said_out.iter().map(said_pair).collect(),
            asked_elsewhere: self.asked_elsewhere,
            looked_for: self.looked_for,
            rootless: self.rootless,
            unsent: self.unsent.iter().flat_map(|(first, last)| [*first, *last]).collect(),
        }
        .encode_to_vec()
    }

    pub(in crate::core) fn decode(bytes: &[u8]) -> Result<Self, LoadError> {
        let bad = || LoadError::Row(Table::Conversations);
        let r = Record::decode(bytes).map_err(|_| bad())?;
        let packages = r.packages.iter().map(|p| Some((unpair(&p.device)?, p.package.clone())));
        let proposal = r.proposal.clone().map(|p| {
            let send_id = SendId::try_from(p.send_id.as_ref()).map_err(|_| bad())?;
            Ok::<_, LoadError>(Proposal { epoch: p.epoch, bytes: p.bytes, send_id, taken: p.taken })
        });
        Ok(Self {
            kind: Some(r.kind()).filter(|k| *k != Kind::Unknown),
            phase: r.phase(),
            packages: packages.collect::<Option<_>>().ok_or_else(bad)?,
            proposal: proposal.transpose()?,
            work: r.work.iter().map(WorkRecord::read).collect::<Option<_>>().ok_or_else(bad)?,
            ours: unmarks(&r.ours).ok_or_else(bad)?,
            told: unmarks(&r.told).ok_or_else(bad)?,
            theirs: unmarks(&r.theirs).ok_or_else(bad)?,
            peer: r.peer.as_deref().map(AccountId::try_from).transpose().map_err(|_| bad())?,
            known: r.known,
            heir: r.heir.as_deref().map(ConversationId::try_from).transpose().map_err(|_| bad())?,
            root: r.root.as_deref().map(ConversationId::try_from).transpose().map_err(|_| bad())?,
            awaits_welcome: r.awaits_welcome,
            lives: r.lives.clone(),
            added_by: r.added_by.as_deref().map(AccountId::try_from).transpose().map_err(|_| bad())?,
            disowned: r.disowned,
            kept: r.kept.iter().map(KeptRecord::read).collect::<Option<_>>().ok_or_else(bad)?,
            said: r.said,
            abandoned: r.abandoned,
            awaits: r.awaits,
            awaits_in_vain: r.awaits_in_vain,
            refresh: r.refresh.map(RefreshRecord::read),
            ticks_at: r.ticks_at_ms.map(UnixMillis),
            outcasts: accounts(&r.outcasts).ok_or_else(bad)?,
            said_out: r.said_out.iter().map(|pair| unsaid(pair)).collect::<Option<_>>().ok_or_else(bad)?,
            asked_elsewhere: r.asked_elsewhere,
            looked_for: r.looked_for,
            rootless: r.rootless,
            unsent: r.unsent.chunks_exact(2).map(|range| (range[0], range[1])).collect(),
            crowded: r.crowded,
            room_at: r.room_at_ms.map(UnixMillis),
            renewal_asked: r.renewal_asked_ms.map(UnixMillis),
            gone: GoneRecord::read_all(&r.gone).ok_or_else(bad)?,
            // One that an earlier version took may not be shown.
            name: r.name.as_deref().and_then(|name| group_name(name).ok()).map(str::to_owned),
            created: r.created,
            announced: r.announced,
            lane_base: r.lane_base,
            rejoining: r.rejoining,
            commit: r.commit.map(CommitRecord::read),
            ..Self::default()
        })
    }
}

/// Numbers are never reused.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(enumeration = "Kind", tag = "1")]
    kind: i32,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
    #[prost(enumeration = "Phase", tag = "3")]
    phase: i32,
    #[prost(bool, tag = "4")]
    created: bool,
    #[prost(bool, tag = "5")]
    announced: bool,
    #[prost(uint64, tag = "6")]
    lane_base: u64,
    #[prost(bool, tag = "7")]
    rejoining: bool,
    #[prost(message, repeated, tag = "8")]
    work: Vec<WorkRecord>,
    #[prost(message, repeated, tag = "9")]
    packages: Vec<PackageRecord>,
    #[prost(message, optional, tag = "10")]
    commit: Option<CommitRecord>,
    #[prost(message, optional, tag = "11")]
    proposal: Option<ProposalRecord>,
    #[prost(message, repeated, tag = "12")]
    ours: Vec<MarkRecord>,
    #[prost(message, repeated, tag = "13")]
    told: Vec<MarkRecord>,
    #[prost(message, repeated, tag = "14")]
    theirs: Vec<MarkRecord>,
    #[prost(bytes = "bytes", optional, tag = "15")]
    peer: Option<Bytes>,
    #[prost(uint64, tag = "16")]
    known: u64,
    #[prost(bytes = "bytes", optional, tag = "17")]
    heir: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "18")]
    root: Option<Bytes>,
    #[prost(bool, tag = "19")]
    awaits_welcome: bool,
    #[prost(message, repeated, tag = "20")]
    lives: Vec<LifeSpan>,
    #[prost(uint64, tag = "21")]
    disowned: u64,
    #[prost(message, repeated, tag = "22")]
    kept: Vec<KeptRecord>,
    #[prost(bytes = "bytes", optional, tag = "23")]
    added_by: Option<Bytes>,
    #[prost(uint64, tag = "24")]
    said: u64,
    #[prost(message, repeated, tag = "25")]
    gone: Vec<GoneRecord>,
    #[prost(bool, tag = "26")]
    abandoned: bool,
    #[prost(uint64, optional, tag = "27")]
    awaits: Option<u64>,
    #[prost(bool, tag = "28")]
    awaits_in_vain: bool,
    #[prost(message, optional, tag = "29")]
    refresh: Option<RefreshRecord>,
    #[prost(uint64, optional, tag = "30")]
    ticks_at_ms: Option<u64>,
    #[prost(uint32, tag = "31")]
    crowded: u32,
    #[prost(uint64, optional, tag = "32")]
    room_at_ms: Option<u64>,
    #[prost(uint64, optional, tag = "33")]
    renewal_asked_ms: Option<u64>,
    /// First and last of each range.
    #[prost(uint64, repeated, tag = "34")]
    unsent: Vec<u64>,
    #[prost(bytes = "bytes", repeated, tag = "35")]
    outcasts: Vec<Bytes>,
    #[prost(bool, tag = "36")]
    asked_elsewhere: bool,
    #[prost(bool, tag = "37")]
    looked_for: bool,
    /// Each who, then by whom.
    #[prost(bytes = "bytes", repeated, tag = "38")]
    said_out: Vec<Bytes>,
    #[prost(bool, tag = "39")]
    rootless: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct RefreshRecord {
    #[prost(uint64, tag = "1")]
    due_ms: u64,
    #[prost(uint64, tag = "2")]
    since_ms: u64,
    #[prost(uint64, tag = "3")]
    from: u64,
    #[prost(uint64, tag = "4")]
    heard: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WorkRecord {
    /// 1 add, 2 remove, 3 dismiss, 5 leave, 6 gather, 7 align, 8 keep out.
    #[prost(uint32, tag = "1")]
    what: u32,
    #[prost(string, repeated, tag = "2")]
    handles: Vec<String>,
    /// Accounts, or accounts with devices.
    #[prost(bytes = "bytes", repeated, tag = "3")]
    ids: Vec<Bytes>,
    #[prost(uint64, tag = "4")]
    not_before_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PackageRecord {
    #[prost(bytes = "bytes", tag = "1")]
    device: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    package: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CommitRecord {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(bytes = "vec", tag = "2")]
    commit: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    welcome: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    group_info: Vec<u8>,
    #[prost(bool, tag = "5")]
    changes_nothing: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProposalRecord {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(bytes = "bytes", tag = "2")]
    bytes: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    send_id: Bytes,
    #[prost(bool, tag = "4")]
    taken: bool,
}

fn pair(address: &DeviceAddress) -> Bytes {
    Bytes::from([address.account.as_bytes().as_slice(), address.device.as_bytes()].concat())
}

fn unpair(bytes: &[u8]) -> Option<DeviceAddress> {
    let (account, device) = bytes.split_at_checked(16)?;
    Some(DeviceAddress { account: account.try_into().ok()?, device: device.try_into().ok()? })
}

impl WorkRecord {
    fn of(work: &Work) -> Self {
        match work {
            Work::Add(handles) => {
                Self { what: 1, handles: handles.iter().map(ToString::to_string).collect(), ..Self::default() }
            }
            Work::Remove(accounts) => Self { what: 2, ids: bytes_of(accounts), ..Self::default() },
            Work::Dismiss(devices, at) => {
                Self { what: 3, ids: devices.iter().map(pair).collect(), not_before_ms: at.0, ..Self::default() }
            }
            Work::Leave => Self { what: 5, ..Self::default() },
            Work::Gather(accounts, at) => {
                Self { what: 6, ids: bytes_of(accounts), not_before_ms: at.0, ..Self::default() }
            }
            Work::KeepOut => Self { what: 8, ..Self::default() },
            Work::Align(at) => Self { what: 7, not_before_ms: at.0, ..Self::default() },
        }
    }

    fn read(&self) -> Option<Work> {
        match self.what {
            1 => Some(Work::Add(self.handles.iter().map(|h| h.parse().ok()).collect::<Option<_>>()?)),
            2 => Some(Work::Remove(accounts(&self.ids)?)),
            3 => {
                let devices = self.ids.iter().map(|d| unpair(d)).collect::<Option<_>>()?;
                Some(Work::Dismiss(devices, UnixMillis(self.not_before_ms)))
            }
            5 => Some(Work::Leave),
            6 => Some(Work::Gather(accounts(&self.ids)?, UnixMillis(self.not_before_ms))),
            7 => Some(Work::Align(UnixMillis(self.not_before_ms))),
            8 => Some(Work::KeepOut),
            _ => None,
        }
    }
}

impl RefreshRecord {
    fn of(refresh: Refresh) -> Self {
        let Refresh { due, since, from, heard } = refresh;
        Self { due_ms: due.0, since_ms: since.0, from, heard }
    }
    fn read(self) -> Refresh {
        let Self { due_ms, since_ms, from, heard } = self;
        Refresh { due: UnixMillis(due_ms), since: UnixMillis(since_ms), from, heard }
    }
}

impl CommitRecord {
    fn of(commit: &Commit) -> Self {
        let Commit { epoch, commit, welcome, group_info, changes_nothing } = commit.clone();
        Self { epoch, commit, welcome, group_info, changes_nothing }
    }
    fn read(self) -> Commit {
        let Self { epoch, commit, welcome, group_info, changes_nothing } = self;
        Commit { epoch, commit, welcome, group_info, changes_nothing }
    }
}

fn said_pair((account, by): &(AccountId, AccountId)) -> Bytes {
    [account.as_bytes().as_slice(), by.as_bytes()].concat().into()
}

fn unsaid(pair: &[u8]) -> Option<(AccountId, AccountId)> {
    let (account, by) = pair.split_at_checked(16)?;
    Some((account.try_into().ok()?, by.try_into().ok()?))
}

fn bytes_of(accounts: &[AccountId]) -> Vec<Bytes> {
    accounts.iter().map(|account| Bytes::copy_from_slice(account.as_bytes())).collect()
}

fn accounts(bytes: &[Bytes]) -> Option<Vec<AccountId>> {
    bytes.iter().map(|account| AccountId::try_from(account.as_ref()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pli_domain::DeviceId;

    use super::*;
    use crate::core::lives::Kept;
    use crate::core::mark::Mark;

    const STORED: &str = concat!(
        "080212047465616d18012001280130073801420d08011203626f621204622e2e63421408021a10010101010101010101",
        "01010101010101422608031a200101010101010101010101010101010102020202020202020202020202020202200942",
        "0208054a2b0a20010101010101010101010101010101010202020202020202020202020202020212077061636b616765",
        "521908051206636f6d6d69741a0777656c636f6d652204696e666f5a200805120870726f706f73616c1a100303030303",
        "0303030303030303030303200162160a1004040404040404040404040404040404100318026a160a1004040404040404",
        "0404040404040404041002180172140a100505050505050505050505050505050510017a100606060606060606060606",
        "0606060606800108",
    );

    /// The same of today.
    const STORED_3: &str = concat!(
        "62450a1004040404040404040404040404040404100618052204020204043107000000000000003a1008000000000000",
        "000700000000000000420408040709480250015a0203058a011001010101010101010101010101010101920110020202",
        "02020202020202020202020202980101a2010b0907000000000000001003a80102b2011d0a1005050505050505050505",
        "05050505050510061a07636f6e74656e74ba011006060606060606060606060606060606c0010aca01300a1006060606",
        "060606060606060606060606121007070707070707070707070707070707180520022a04010103043001d00101d80107",
        "e00101ea01080809100818072006f0010bf8010c80020d88020e92020401020404",
    );

    /// What later versions kept.
    const STORED_2: &str = concat!(
        "62430a10040404040404040404040404040404041006180522040202040428013107000000000000003a100800000000",
        "0000000700000000000000420408040709480250018a0110010101010101010101010101010101019201100202020202",
        "0202020202020202020202980101a2010b0907000000000000001003a80102b2011d0a10050505050505050505050505",
        "0505050510061a07636f6e74656e74ba011006060606060606060606060606060606c0010a",
        "ca01300a100606060606060606060606060606060612100707070707070707070707070707070718052002",
        "2a04010103043001d00101d80107e00101ea01080809100818072006f0010bf8010c80020d88020e",
    );

    #[test]
    fn what_was_added_to_a_conversation_keeps_its_bytes() {
        let mark = Mark {
            delivered: 6,
            read: 5,
            lost: vec![(2, 2), (4, 4)],
            life: 7,
            seen: vec![8, 7],
            places: vec![(8, 4), (7, 9)],
            base: 2,
            returned: true,
            ..Mark::default()
        };
        let address = DeviceAddress { account: AccountId::from_bytes([6; 16]), device: DeviceId::from_bytes([7; 16]) };
        let gone = Mark { delivered: 5, read: 2, lost: vec![(1, 1), (3, 4)], base: 1, ..Mark::default() };
        let conversation = Conversation {
            ours: BTreeMap::from([(DeviceId::from_bytes([4; 16]), mark)]),
            heir: Some(ConversationId::from_bytes([1; 16])),
            root: Some(ConversationId::from_bytes([2; 16])),
            awaits_welcome: true,
            lives: vec![LifeSpan { id: 7, first: 3 }],
            disowned: 2,
            kept: vec![Kept {
                send_id: SendId::from_bytes([5; 16]),
                lane_no: 6,
                content: Bytes::from_static(b"content"),
            }],
            added_by: Some(AccountId::from_bytes([6; 16])),
            said: 10,
            abandoned: true,
            awaits: Some(7),
            awaits_in_vain: true,
            refresh: Some(Refresh { due: UnixMillis(9), since: UnixMillis(8), from: 7, heard: 6 }),
            ticks_at: Some(UnixMillis(11)),
            crowded: 12,
            room_at: Some(UnixMillis(13)),
            renewal_asked: Some(UnixMillis(14)),
            gone: BTreeMap::from([(address, vec![gone])]),
            ..Conversation::default()
        };
        let read = Conversation::decode(&hex::decode(STORED_2).expect("hexadecimal")).expect("read");
        assert_eq!(
            (&read.ours, &read.lives, &read.kept),
            (&conversation.ours, &conversation.lives, &conversation.kept)
        );
        assert_eq!(
            (read.heir, read.root, read.added_by),
            (conversation.heir, conversation.root, conversation.added_by)
        );
        assert_eq!((read.awaits_welcome, read.disowned, read.said, read.abandoned), (true, 2, 10, true));
        assert_eq!((read.awaits, read.awaits_in_vain), (Some(7), true));
        assert_eq!((&read.gone, read.refresh), (&conversation.gone, conversation.refresh));
        assert_eq!(read.ticks_at, conversation.ticks_at);
        assert_eq!((read.crowded, read.room_at), (12, conversation.room_at));
        assert_eq!(read.renewal_asked, conversation.renewal_asked);
        let mut later = conversation;
        later.ours.values_mut().for_each(|mark| mark.stays = vec![3, 5]);
        later.unsent = vec![(1, 2), (4, 4)];
        assert_eq!(hex::encode(later.encode()), STORED_3);
        let read = Conversation::decode(&hex::decode(STORED_3).expect("hexadecimal")).expect("read");
        assert_eq!((&read.ours, &read.unsent), (&later.ours, &later.unsent));
        later.outcasts = vec![AccountId::from_bytes([9; 16]), AccountId::from_bytes([8; 16])];
        (later.asked_elsewhere, later.looked_for, later.rootless) = (true, true, true);
        later.said_out = vec![(AccountId::from_bytes([7; 16]), AccountId::from_bytes([6; 16]))];
        let [one, other, said] = ["09".repeat(16), "08".repeat(16), "07".repeat(16) + &"06".repeat(16)];
        let stored = format!("{STORED_3}9a0210{one}9a0210{other}a00201a80201b20220{said}b80201");
        assert_eq!(hex::encode(later.encode()), stored);
        let read = Conversation::decode(&later.encode()).expect("read");
        assert_eq!((read.outcasts, read.said_out), (later.outcasts, later.said_out));
        assert!(read.asked_elsewhere && read.looked_for && read.rootless);
    }

    #[test]
    fn work_that_was_added_keeps_its_bytes() {
        for (work, stored) in [(Work::Align(UnixMillis(9)), "08072009"), (Work::KeepOut, "0808")] {
            assert_eq!(hex::encode(WorkRecord::of(&work).encode_to_vec()), stored);
            let read = WorkRecord::decode(hex::decode(stored).expect("hexadecimal").as_slice()).expect("read");
            assert_eq!(read.read(), Some(work));
        }
    }

    #[test]
    fn a_conversation_keeps_its_bytes() {
        let stored = hex::decode(STORED).expect("hexadecimal");
        let read = Conversation::decode(&stored).expect("read");
        assert_eq!((read.kind(), read.name.as_deref(), read.phase), (Kind::Group, Some("team"), Phase::Active));
        assert_eq!(
            (read.lane_base, read.known, read.created, read.announced, read.rejoining),
            (7, 8, true, true, true)
        );
        let device = DeviceAddress { account: AccountId::from_bytes([1; 16]), device: DeviceId::from_bytes([2; 16]) };
        // One handle is of before the rule for new ones.
        let handles = ["bob", "b..c"].map(|handle| handle.parse().expect("a handle")).to_vec();
        let work = [
            Work::Add(handles),
            Work::Remove([device.account].into()),
            Work::Dismiss([device].into(), UnixMillis(9)),
            Work::Leave,
        ];
        assert_eq!(read.work, work);
        assert_eq!(read.packages, [(device, Bytes::from_static(b"package"))]);
        assert_eq!(read.commit.as_ref().map(|commit| commit.epoch), Some(5));
        assert_eq!(read.proposal.as_ref().map(|proposal| proposal.taken), Some(true));
        let of = |device: u8, delivered, read| {
            BTreeMap::from([(DeviceId::from_bytes([device; 16]), Mark { delivered, read, ..Mark::default() })])
        };
        assert_eq!((&read.ours, &read.told, &read.theirs), (&of(4, 3, 2), &of(4, 2, 1), &of(5, 1, 0)));
        assert_eq!(read.peer, Some(AccountId::from_bytes([6; 16])));
        assert_eq!(hex::encode(read.encode()), STORED);
        assert!(Conversation::decode(&[0xff]).is_err());
    }
}
