// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client reads: from the server, from other clients through it, from its own store, from a screen.

use arbitrary::{Arbitrary, Unstructured};
use pli_api::directory::SignedDeviceList;
use pli_api::sealed::{ArchiveHead, ArchiveRow};

use pli_client_core::archive::{Archive, PART_BYTES, open};
use pli_client_core::content::{Content, Frame, GroupInfo, Ticks};
use pli_client_core::identity::{Identity, VerifiedDevices, follow_lists, verify_devices};
use pli_client_core::linking::{Approver, LinkCode, NewDevice};
use pli_client_core::mls::Mls;
use pli_client_core::{Core, MessageRow, Table};
use pli_domain::{Class, SendId, UnixMillis};
use pli_testkit::time::START;
use prost::Message;

use crate::mutate::{Change, mutated};
use crate::person::load;
use crate::samples::{Archived, samples};
use crate::tape::{ALICE, identity as identity_of, tape};

pub(super) fn content(input: &[u8]) {
    let Ok(content) = Content::decode(input) else { return };
    assert_eq!(content.encode(), input, "one content has one encoding");
    let _ = (content.as_text(), Ticks::of(&content), GroupInfo::of(&content));
}

pub(super) fn sealed_frame(input: &[u8]) {
    let Ok(frame) = Frame::from_bytes(input) else { return };
    let again = Frame::from_bytes(&frame.to_bytes());
    assert!(again.is_ok_and(|again| again == frame));
}

pub(super) fn identity(input: &[u8]) {
    let Ok(identity) = Identity::decode(input) else { return };
    let again = Identity::decode(&identity.encode()).expect("as it was written");
    assert_eq!((again.address(), again.identity_key()), (identity.address(), identity.identity_key()));
    let _ = identity.device_list();
}

/// A list of Alice's account, and what follows the one that is known.
pub(super) fn device_list(input: &[u8]) {
    let account = samples().account;
    let Ok(signed) = SignedDeviceList::decode(input) else { return };
    let known: Option<VerifiedDevices> = verify_devices(&samples().list, account, None).ok();
    if let Ok(list) = verify_devices(&signed, account, Some((1, [0; 32]))) {
        assert!(!list.devices.is_empty());
    }
    if let Some(known) = known {
        let _ = follow_lists(&known, &[signed.clone(), signed]);
    }
}

pub(super) fn link_code(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(code) = text.parse::<LinkCode>() else { return };
    assert_eq!(code.to_string().parse::<LinkCode>().ok().map(|again| again.to_string()), Some(code.to_string()));
    let _ = code.rendezvous();
}

/// A link of a companion device whose blobs come changed.
#[derive(Debug, Arbitrary)]
struct Link {
    blobs: [Vec<Change>; 5],
    list: Vec<Change>,
}

pub(super) fn link_blobs(input: &[u8]) {
    let Ok(link) = Link::arbitrary_take_rest(Unstructured::new(input)) else { return };
    let _ = linked(&link);
}

fn linked(link: &Link) -> Option<()> {
    let blob = |n: usize, bytes: &[u8]| mutated(bytes, &link.blobs[n]);
    let alice = load(&tape().rows[ALICE], [7; 32], START);
    let new = NewDevice::begin("localhost", "laptop", [2; 32]).ok()?;
    let approver = Approver::begin(new.code().clone(), &alice, &["localhost".into()]).ok()?;
    let approving = approver.greeted(&blob(0, new.hello()), [3; 32]).ok()?;
    let joining = new.offered(&blob(1, approving.blob())).ok()?;
    let (_, _changes, consented) = joining.accept([4; 32], START).ok()?;
    let newcomer = approving.consented(&blob(2, consented.blob()), &alice).ok()?;
    let list = mutated(&samples().list.encode_to_vec(), &link.list);
    let (verdict, told) = newcomer.listed(SignedDeviceList::decode(list.as_slice()).ok()?);
    let listed = consented.listed(&blob(3, &verdict)).ok()?;
    told.stored(&blob(4, listed.blob())).ok()
}

/// Rows of a store of which some are damaged, but for those of MLS: openmls's own storage in memory panics over a value that
/// it did not write, which is why stores seal their values.
#[derive(Debug, Arbitrary)]
struct Damage {
    life: u8,
    changed: Vec<(u16, Vec<Change>)>,
    made_up: Vec<(u8, Vec<u8>, Vec<u8>)>,
}

pub(super) fn rows(input: &[u8]) {
    let Ok(damage) = Damage::arbitrary_take_rest(Unstructured::new(input)) else { return };
    let lives = &tape().lives;
    let rows = &lives[usize::from(damage.life) % lives.len()].rows;
    let mut rows: Vec<(Table, Vec<u8>, Vec<u8>)> =
        rows.iter().map(|((table, key), value)| (*table, key.clone(), value.clone())).collect();
    for (at, changes) in damage.changed {
        let count = rows.len();
        match rows.get_mut(usize::from(at) % count.max(1)) {
            Some((table, _, value)) if *table != Table::Mls => *value = mutated(value, &changes),
            _ => {}
        }
    }
    let made_up = damage.made_up.into_iter();
    let made_up = made_up.filter_map(|(table, key, value)| Some((Table::from_number(table % 14)?, key, value)));
    rows.extend(made_up.filter(|(table, ..)| *table != Table::Mls));
    if let Ok(mut core) = Core::load([5; 32], rows, START) {
        let _ = (core.tick(START), core.next_deadline(), core.conversations(), core.notices(0));
        let _ = core.tick(UnixMillis(START.0 + 60_000));
    }
}

pub(super) fn message_row(input: &[u8]) {
    let Ok(row) = MessageRow::decode(input) else { return };
    let again = MessageRow::decode(row.encode_to_vec().as_slice());
    assert!(again.is_ok_and(|again| again == row));
}

/// The core writes its own messages of archives: they are those of the contract.
fn as_the_contract(archive: &Archive) {
    let written = archive.encode();
    let mut rest = written.as_slice();
    let head = ArchiveHead::decode_length_delimited(&mut rest).expect("the head of the contract");
    let mut again = head.encode_length_delimited_to_vec();
    assert_eq!((head.rows, head.cut), (archive.rows.len() as u64, archive.cut));
    for _ in &archive.rows {
        let row = ArchiveRow::decode_length_delimited(&mut rest).expect("a row of the contract");
        row.encode_length_delimited(&mut again).expect("a list grows");
    }
    assert!(written.starts_with(&again), "the same bytes");
}

/// What an archive says once it is open.
pub(super) fn archive(input: &[u8]) {
    let Ok(archive) = Archive::decode(input) else { return };
    let again = Archive::decode(&archive.encode());
    assert!(again.is_ok_and(|again| again == archive), "what was read is written and read again as the same");
    as_the_contract(&archive);
    assert!(archive.rows.iter().all(|row| row.shown(samples().account).is_some()), "a row that is taken is shown");
}

pub(super) fn history_record(input: &[u8]) {
    pli_client::fuzzing::history_record(input);
}

/// Most parts that an input puts together.
const PARTS_MAX: usize = 6;

/// The parts of an archive in this order, then changed.
#[derive(Debug, Arbitrary)]
struct Parts {
    order: Vec<u8>,
    changes: Vec<Change>,
}

/// What opens is what was sealed.
pub(super) fn sealed_archive(input: &[u8]) {
    let Ok(parts) = Parts::arbitrary_take_rest(Unstructured::new(input)) else { return };
    let Archived { secret, name, contents, sealed } = &samples().archived;
    let valid: Vec<&[u8]> = sealed.chunks(PART_BYTES).collect();
    let order = parts.order.iter().take(PARTS_MAX).map(|n| valid[usize::from(*n) % valid.len()]);
    let joined = mutated(&order.collect::<Vec<_>>().concat(), &parts.changes);
    if let Ok(plain) = open(secret, name, &joined) {
        assert!(joined == *sealed, "nothing else opens");
        assert_eq!(Archive::decode(&plain).as_ref(), Ok(contents));
    }
}

/// Places of lives in the recording.
const WELCOMED: usize = 1;
const LAST: usize = 3;

/// As it was when Alice's last life began, or the one in which she was welcomed.
fn mls(life: usize) -> Mls {
    let rows = tape().lives[life].rows.iter();
    let rows = rows.filter(|((table, _), _)| *table == Table::Mls);
    let identity = identity_of(&tape().rows[ALICE]);
    let mut mls = Mls::of(&identity, [6; 32]);
    mls.load(rows.map(|((_, key), value)| (key.clone(), value.clone()))).expect("as it was written");
    mls
}

/// Bytes of one of these kinds: whole, or what is changed of one that is valid.
#[derive(Debug, Arbitrary)]
struct Given {
    which: u8,
    changes: Vec<Change>,
    own: Option<Vec<u8>>,
}

fn given(input: &[u8], valid: &[bytes::Bytes]) -> Option<Vec<u8>> {
    let given = Given::arbitrary_take_rest(Unstructured::new(input)).ok()?;
    let valid = valid.get(usize::from(given.which) % valid.len().max(1)).map_or(&[][..], |bytes| bytes);
    Some(given.own.unwrap_or_else(|| mutated(valid, &given.changes)))
}

pub(super) fn mls_message(input: &[u8]) {
    let Some(bytes) = given(input, &samples().messages) else { return };
    let mut mls = mls(LAST);
    for conversation in [tape().chat.0, tape().group.0] {
        let _ = mls.open(conversation, SendId::from_bytes([1; 16]), Class::Message, &bytes);
    }
}

pub(super) fn mls_handshake(input: &[u8]) {
    let Some(bytes) = given(input, &samples().handshakes) else { return };
    let mut mls = mls(LAST);
    for conversation in [tape().chat.0, tape().group.0] {
        let _ = mls.handshake(conversation, &bytes);
    }
}

pub(super) fn mls_welcome(input: &[u8]) {
    if let Some(bytes) = given(input, &samples().welcomes) {
        let _ = mls(WELCOMED).join(&bytes, None);
    }
}

pub(super) fn mls_group_info(input: &[u8]) {
    if let Some(bytes) = given(input, &samples().group_infos) {
        let _ = mls(LAST).rejoin(tape().group.0, &bytes, None);
    }
}
