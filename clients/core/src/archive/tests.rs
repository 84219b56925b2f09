// SPDX-License-Identifier: MIT OR Apache-2.0

use bytes::Bytes;
use pli_domain::{AccountId, ConversationId, DeviceId};

use super::*;
use crate::core::{MessageRow, RowKind, RowStatus};

fn secret(byte: u8) -> HistorySecret {
    HistorySecret::from_bytes([byte; 32])
}

fn name() -> ArchiveName {
    ArchiveName { account: AccountId::from_bytes([1; 16]), device: DeviceId::from_bytes([2; 16]), number: 3 }
}

/// Three parts.
fn plain() -> Vec<u8> {
    (0..3 * PART_BYTES - 100).map(|at| (at * 31) as u8).collect()
}

fn sealed() -> Vec<u8> {
    seal(&secret(9), &name(), [8; SALT_BYTES], &plain()).expect("not too long")
}

fn parts(sealed: &[u8]) -> Vec<Vec<u8>> {
    sealed.chunks(PART_BYTES).map(<[u8]>::to_vec).collect()
}

pub(super) fn row(order: u64, text: &str) -> ArchiveRow {
    let id = |byte| Bytes::from(vec![byte; 16]);
    ArchiveRow {
        conversation: id(4),
        order,
        account: id(5),
        device: id(6),
        send_id: id(order as u8),
        lane_no: order,
        text: text.into(),
        sent_at_ms: 7,
        accepted_at_ms: 8,
        handle: "bob".into(),
    }
}

#[test]
fn what_was_sealed_opens_whole_parts_at_a_time() {
    for bytes in [0, 1, PART_BYTES - 48, PART_BYTES - 47, 2 * PART_BYTES - 64, 2 * PART_BYTES - 63] {
        let plain = vec![7; bytes];
        let sealed = seal(&secret(9), &name(), [8; SALT_BYTES], &plain).expect("not too long");
        assert_eq!(sealed.len(), parts_of(bytes).expect("so many") as usize * PART_BYTES, "{bytes} bytes");
        let opened = open(&secret(9), &name(), &sealed).expect("opens");
        assert!(opened.starts_with(&plain) && opened[bytes..].iter().all(|byte| *byte == 0), "{bytes} bytes");
    }
    assert_eq!(parts_of(PART_BYTES - 48), Some(1));
    assert_eq!(parts_of(PART_BYTES - 47), Some(2));
    let most = PARTS_MAX as usize * (PART_BYTES - 16) - SALT_BYTES;
    assert_eq!((parts_of(most), parts_of(most + 1)), (Some(PARTS_MAX), None));
}

#[test]
fn an_archive_that_is_cut_lengthened_or_re_ordered_does_not_open() {
    let whole = parts(&sealed());
    let [one, two, three] = whole.as_slice() else { panic!("three parts") };
    let joined = |parts: &[&Vec<u8>]| parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>();
    for (what, parts, first) in [
        ("without the last", joined(&[one, two]), 1),
        ("without the first", joined(&[two, three]), 1),
        ("re-ordered", joined(&[one, three, two]), 2),
        ("one twice", joined(&[one, two, two]), 3),
        ("the first twice", joined(&[one, one, three]), 2),
        ("one more", joined(&[one, two, three, three]), 1),
    ] {
        assert_eq!(open(&secret(9), &name(), &parts).err(), Some(ArchiveError::Part(first)), "{what}");
    }
    for bytes in [0, 1, PART_BYTES - 1, 3 * PART_BYTES - 1, 3 * PART_BYTES + 1] {
        let cut: Vec<u8> = sealed().into_iter().chain([0]).take(bytes).collect();
        assert_eq!(open(&secret(9), &name(), &cut).err(), Some(ArchiveError::Length(bytes)));
    }
    let said = ArchiveError::Length(1).to_string();
    assert!(said.contains("it was cut; hand the history over again"), "{said}");
}

#[test]
fn an_archive_of_somebody_else_or_with_a_changed_bit_does_not_open() {
    let sealed = sealed();
    let refused = |secret: &HistorySecret, name: &ArchiveName| open(secret, name, &sealed).err();
    let first = Some(ArchiveError::Part(1));
    assert_eq!(refused(&secret(10), &name()), first, "of another link");
    assert_eq!(refused(&secret(9), &ArchiveName { account: AccountId::from_bytes([9; 16]), ..name() }), first);
    assert_eq!(refused(&secret(9), &ArchiveName { device: DeviceId::from_bytes([9; 16]), ..name() }), first);
    assert_eq!(refused(&secret(9), &ArchiveName { number: 4, ..name() }), first);
    for (at, part) in [(0, 1), (31, 1), (32, 1), (PART_BYTES, 2), (3 * PART_BYTES - 1, 3)] {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert_eq!(open(&secret(9), &name(), &changed).err(), Some(ArchiveError::Part(part)), "byte {at}");
    }
    let said = ArchiveError::Part(1).to_string();
    assert!(said.contains("another account") && said.contains("hand the history over again"), "{said}");
}

#[test]
fn names_differ_by_number_and_secret() {
    let upload = |byte, number| ArchiveName { number, ..name() }.upload(&secret(byte));
    assert_eq!(upload(9, 1), upload(9, 1));
    assert_ne!(upload(9, 1), upload(9, 2));
    assert_ne!(upload(9, 1), upload(8, 1));
}

#[test]
fn contents_come_back_in_order_and_nothing_else_is_read() {
    let archive = Archive::of(vec![row(9, "two"), row(3, "one")], 77);
    assert_eq!(archive.rows.iter().map(|row| row.text.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    let mut plain = archive.encode().to_vec();
    plain.extend([0; 40]);
    assert_eq!(Archive::decode(&plain), Ok(archive.clone()));
    assert_eq!(Archive::decode(&Archive::default().encode()), Ok(Archive::default()));
    let broken = |rows: Vec<ArchiveRow>| Archive { rows, ..archive.clone() }.encode().to_vec();
    for (what, plain) in [
        ("nothing", Vec::new()),
        ("more behind it", [plain.as_slice(), &[1]].concat()),
        ("cut", archive.encode()[..archive.encode().len() - 1].to_vec()),
        ("not rising", broken(vec![row(3, "one"), row(3, "two")])),
        ("an order of the device's own", broken(vec![row(ORDERS_END, "one")])),
        ("no message", broken(vec![ArchiveRow { send_id: Bytes::new(), ..row(1, "") }])),
        ("no conversation", broken(vec![ArchiveRow { conversation: Bytes::new(), ..row(1, "") }])),
        ("zeros for rows", [2, 8, 9].into_iter().chain([0; 30]).collect()),
    ] {
        assert_eq!(Archive::decode(&plain), Err(ArchiveError::Contents), "{what}");
    }
}

#[test]
fn the_oldest_rows_are_left_out_where_all_do_not_fit() {
    let text = "x".repeat(32 * 1024);
    let rows: Vec<ArchiveRow> = (1..=2_100).map(|order| row(order, &text)).collect();
    let archive = Archive::of(rows, 0);
    assert!(archive.cut);
    assert_eq!(archive.rows.last().map(|row| row.order), Some(2_100));
    let parts = parts_of(archive.encode().len()).expect("it fits");
    assert!(parts > PARTS_MAX - 2, "{parts} parts are not nearly full");
}

#[test]
fn what_was_never_sent_and_what_is_missing_is_not_archived() {
    let (conversation, id) = (ConversationId::from_bytes([4; 16]), Bytes::from_static(&[5; 16]));
    let of = |kind: RowKind, status: RowStatus, order| {
        let (account, device, send_id) = (id.clone(), id.clone(), id.clone());
        let row =
            MessageRow { kind: kind.into(), status: status.into(), account, device, send_id, ..Default::default() };
        ArchiveRow::of(conversation, order, &row)
    };
    use {RowKind as K, RowStatus as S};
    for (kind, status, order, archived) in [
        (K::Incoming, S::Waiting, 1, true),
        (K::Elsewhere, S::Waiting, 1, true),
        (K::Outgoing, S::Accepted, 1, true),
        (K::Outgoing, S::Stored, 1, true),
        (K::Outgoing, S::Waiting, 1, false),
        (K::Outgoing, S::Refused, 1, false),
        (K::Hole, S::Waiting, 1, false),
        (K::Unknown, S::Waiting, 1, false),
        (K::Incoming, S::Waiting, ORDERS_END, false),
    ] {
        assert_eq!(of(kind, status, order).is_some(), archived, "{kind:?} {status:?} {order}");
    }
    let mine = of(K::Outgoing, S::Stored, 1).expect("archived");
    let shown = |own| mine.shown(AccountId::from_bytes([own; 16])).expect("shown").1.kind();
    assert_eq!((shown(5), shown(6)), (K::Elsewhere, K::Incoming), "one's own, or somebody else's");
}
