// SPDX-License-Identifier: MIT OR Apache-2.0
//! Valid bytes for decoders, taken from the recording.

use std::sync::OnceLock;

use bytes::Bytes;
use pli_api::conversations::{CommitRequest, CreateRequest, Object, object};
use pli_api::directory::SignedDeviceList;
use pli_api::edge::{Call, ServerFrame, client_frame, server_frame};
use pli_api::log::{Content, Envelope, envelope};
use pli_client_core::archive::{Archive, ArchiveName, ArchiveRow, HistorySecret, PART_BYTES, SALT_BYTES, seal};
use pli_client_core::{MessageRow, Table};
use pli_domain::{AccountId, DeviceAddress};
use prost::Message;

use crate::person::Step;
use crate::tape::{ALICE, Tape, identity, tape};

/// What a device offered when it made a conversation and brought others in.
pub struct Offered {
    /// Who.
    pub creator: DeviceAddress,
    /// The GroupInfo of the conversation that it made.
    pub created: Bytes,
    /// What it committed.
    pub commit: Bytes,
    /// For those that it brought in.
    pub welcome: Bytes,
    /// The GroupInfo after it.
    pub group_info: Bytes,
}

/// The history of a device, for another one of its account.
pub struct Archived {
    /// What both share.
    pub secret: HistorySecret,
    /// Which archive it is.
    pub name: ArchiveName,
    /// What it says.
    pub contents: Archive,
    /// As it is uploaded: [`ARCHIVE_PARTS`] parts.
    pub sealed: Vec<u8>,
}

/// Parts of [`Archived::sealed`].
pub const ARCHIVE_PARTS: usize = 3;

/// See the module.
pub struct Samples {
    /// Alice's account.
    pub account: AccountId,
    /// Its first list.
    pub list: SignedDeviceList,
    /// Bodies of envelopes that Alice got in her last life: sealed messages.
    pub messages: Vec<Bytes>,
    /// The same of commits and proposals.
    pub handshakes: Vec<Bytes>,
    /// Welcomes that she ever got.
    pub welcomes: Vec<Bytes>,
    /// GroupInfos of her conversations.
    pub group_infos: Vec<Bytes>,
    /// What she offered.
    pub offers: Vec<Offered>,
    /// Every envelope that she got.
    pub envelopes: Vec<Bytes>,
    /// What she was shown.
    pub archived: Archived,
}

/// Taken once.
pub fn samples() -> &'static Samples {
    static SAMPLES: OnceLock<Samples> = OnceLock::new();
    SAMPLES.get_or_init(|| taken(tape()))
}

fn taken(tape: &Tape) -> Samples {
    let alice = identity(&tape.rows[ALICE]);
    let offers = offers(tape, alice.address());
    let all: Vec<Bytes> = (0..tape.lives.len()).flat_map(|life| envelopes(tape, life)).collect();
    let last = envelopes(tape, tape.lives.len() - 1);
    let handshakes = [bodies(&last, Content::Commit), bodies(&last, Content::Proposal)].concat();
    Samples {
        account: alice.address().account,
        list: alice.device_list().expect("she has the identity key"),
        messages: bodies(&last, Content::Application),
        handshakes,
        welcomes: bodies(&all, Content::Welcome),
        group_infos: offers.iter().map(|offer| offer.group_info.clone()).collect(),
        offers,
        envelopes: all,
        archived: archived(tape, alice.address()),
    }
}

/// Filled up with zeros, as every archive is, to have parts to exchange.
fn archived(tape: &Tape, address: DeviceAddress) -> Archived {
    let rows = tape.rows[ALICE].iter().filter(|((table, _), _)| *table == Table::Messages);
    let rows = rows.filter_map(|((_, key), value)| {
        let (conversation, order) = key.split_at_checked(16)?;
        let order = u64::from_be_bytes(order.try_into().ok()?);
        ArchiveRow::of(conversation.try_into().ok()?, order, &MessageRow::decode(value.as_slice()).ok()?)
    });
    let contents = Archive::of(rows.collect(), 7);
    let mut plain = contents.encode();
    plain.resize((ARCHIVE_PARTS - 1) * PART_BYTES, 0);
    let secret = HistorySecret::from_bytes([9; 32]);
    let name = ArchiveName { account: address.account, device: address.device, number: 1 };
    let sealed = seal(&secret, &name, [8; SALT_BYTES], &plain).expect("a few parts");
    assert_eq!((contents.rows.is_empty(), sealed.len()), (false, ARCHIVE_PARTS * PART_BYTES));
    Archived { secret, name, contents, sealed }
}

fn envelopes(tape: &Tape, life: usize) -> Vec<Bytes> {
    let frames = tape.lives[life].steps.iter().filter_map(|(_, step)| match step {
        Step::Frame(bytes) => ServerFrame::decode(bytes.clone()).ok()?.frame,
        _ => None,
    });
    let delivered = frames.filter_map(|frame| match frame {
        server_frame::Frame::Deliver(deliver) => Some(deliver.envelope),
        _ => None,
    });
    delivered.collect()
}

fn bodies(envelopes: &[Bytes], content: Content) -> Vec<Bytes> {
    let envelopes = envelopes.iter().filter_map(|bytes| Envelope::decode(bytes.clone()).ok());
    let bodies = envelopes.filter(|envelope| envelope.content() == content).filter_map(|e| match e.body_or_ref {
        Some(envelope::BodyOrRef::Body(body)) => Some(body),
        _ => None,
    });
    bodies.collect()
}

fn inline(object: Option<Object>) -> Bytes {
    match object.and_then(|object| object.object) {
        Some(object::Object::Inline(bytes)) => bytes,
        _ => Bytes::new(),
    }
}

/// Each conversation that Alice made, with the first commit after that.
fn offers(tape: &Tape, creator: DeviceAddress) -> Vec<Offered> {
    let calls = tape.setup.iter().filter(|(n, _)| *n == ALICE).filter_map(|(_, frame)| match &frame.frame {
        Some(client_frame::Frame::Call(call)) => Some(call),
        _ => None,
    });
    let calls: Vec<&Call> = calls.collect();
    let creates = calls.iter().enumerate().filter(|(_, call)| call.method.ends_with("/Create"));
    let offered = creates.filter_map(|(at, create)| {
        let commit = calls[at..].iter().find(|call| call.method.ends_with("/Commit"))?;
        let created = CreateRequest::decode(create.body.clone()).ok()?.group_info;
        let CommitRequest { commit, welcome, group_info, .. } = CommitRequest::decode(commit.body.clone()).ok()?;
        Some(Offered {
            creator,
            created: inline(created),
            commit: inline(commit),
            welcome: inline(welcome),
            group_info: inline(group_info),
        })
    });
    offered.collect()
}
